"""`bnengine doctor`: what is wrong with a network's batch normalisation, and what cures it."""

import click

from ..data import ArraySource
from ..inspect import Finding, doctor
from ..storage import saving
from ..storage.codec import dumps
from .app import FOUND
from .assembly import backend_of
from .models import data_for, load_model, model_file
from .options import backend_option, json_option, target_option


@click.command("doctor")
@click.argument("run")
@click.argument("data", required=False)
@target_option
@backend_option
@json_option
@click.pass_context
def command(
    ctx: click.Context, run: str, data: str | None, target: str | None, backend: str | None, as_json: bool
) -> None:
    """Look for what is wrong with the batch normalisation of RUN: each finding with its numbers and its cure.

    RUN is the folder of a run or a model file. With DATA, as evaluate takes it (train for the rows that RUN was
    trained on), inputs and units are looked at too; labels are not needed. RUN is left as it is.

    \b
      bnengine doctor runs/digits-1
      bnengine doctor runs/digits-1 train
      bnengine doctor runs/digits-1 new.npz --json

    Exit code 3 where a finding is an error: results that are wrong or lost.
    """
    file = model_file("doctor", run)
    saved = saving.read(file)
    source = None if data is None else _source(run, data, target, backend)
    network = saving.load(file, backend=backend_of("doctor", backend))
    found = doctor(network, source, saved)
    if as_json:
        findings = [finding.to_json() for finding in found]
        click.echo(dumps({"model": str(file), "data": data, "findings": findings}))
    else:
        _show(str(file), data, found, bool(network.named_statistics()))
    if any(finding.severity == "error" for finding in found):
        ctx.exit(FOUND)


def _source(run: str, data: str, target: str | None, backend: str | None) -> ArraySource:
    model = load_model("doctor", run, backend)
    dataset, rows = data_for("doctor", model, data, target, need_targets=False)
    prepared, own = model.preprocessing, {"dtype": model.network.dtype, "name": dataset.name}
    return ArraySource(dataset.x, None, preprocessing=prepared, indices=rows, **own)


def _show(file: str, data: str | None, found: list[Finding], normalised: bool) -> None:
    left_out = "" if data else "; without DATA its inputs were not looked at"
    click.echo(f"{file}: {_count(found)}{'' if normalised else '; it has no BatchNorm'}{left_out}")
    for finding in found:
        place = f", layer {finding.layer}" if finding.layer else ""
        click.echo(f"\n{finding.severity} {finding.id}{place}")
        click.echo(f"  {finding.says}")
        click.echo(f"  cure: {finding.cure}")


def _count(found: list[Finding]) -> str:
    severities = [finding.severity for finding in found]
    parts = [f"{n} {name}{'s' * (n > 1)}" for name in dict.fromkeys(severities) if (n := severities.count(name))]
    return ", ".join(parts) or "nothing found"

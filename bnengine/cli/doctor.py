"""`bnengine doctor`: find faults of a network's batch normalization."""

import click

from ..data import ArraySource
from ..inspect import Finding, doctor
from ..storage import saving
from ..storage.codec import dumps
from .app import FOUND
from .assembly import backend_of
from .models import data_for, load_model, model_file
from .options import backend_option, json_option, target_option


@click.command("doctor", short_help="Find faults of batch normalization, with cures.")
@click.argument("run")
@click.argument("data", required=False)
@target_option
@backend_option
@json_option
@click.pass_context
def command(
    ctx: click.Context, run: str, data: str | None, target: str | None, backend: str | None, as_json: bool
) -> None:
    """Find faults of the batch normalization of RUN: each finding has its numbers and a cure.

    RUN is the folder of a run or a model file. DATA is what evaluate takes (train for the rows that RUN was trained
    on); with it the doctor also checks inputs and units. It needs no labels and does not change RUN.

    \b
      bnengine doctor runs/digits-1
      bnengine doctor runs/digits-1 train
      bnengine doctor runs/digits-1 new.npz --json

    The exit code is 3 if a finding is an error: results are wrong or lost.
    """
    file = model_file("doctor", run)
    saved = saving.read(file)
    source = None if data is None else _source(run, data, target, backend)
    network = saving.load(file, backend=backend_of("doctor", backend), sound=False)
    findings = doctor(network, source, saved)
    if as_json:
        entries = [finding.to_json() for finding in findings]
        click.echo(dumps({"model": str(file), "data": data, "findings": entries}))
    else:
        _show(str(file), data, findings, bool(network.named_statistics()))
    if any(finding.severity == "error" for finding in findings):
        ctx.exit(FOUND)


def _source(run: str, data: str, target: str | None, backend: str | None) -> ArraySource:
    model = load_model("doctor", run, backend, sound=False)
    dataset, rows = data_for("doctor", model, data, target, need_targets=False)
    options = {"dtype": model.network.dtype, "name": dataset.name}
    return ArraySource(dataset.x, None, preprocessing=model.preprocessing, indices=rows, **options)


def _show(file: str, data: str | None, findings: list[Finding], normalized: bool) -> None:
    left_out = "" if data else "; without DATA its inputs were not checked"
    click.echo(f"{file}: {_count(findings)}{'' if normalized else '; it has no BatchNorm'}{left_out}")
    for finding in findings:
        place = f", layer {finding.layer}" if finding.layer else ""
        click.echo(f"\n{finding.severity} {finding.id}{place}")
        click.echo(f"  {finding.says}")
        click.echo(f"  cure: {finding.cure}")


def _count(findings: list[Finding]) -> str:
    severities = [finding.severity for finding in findings]
    parts = [f"{n} {name}{'s' * (n > 1)}" for name in dict.fromkeys(severities) if (n := severities.count(name))]
    return ", ".join(parts) or "nothing found"

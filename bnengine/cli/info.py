"""`bnengine info`: what bnengine finds on this machine, or what a run is."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import click
import numpy as np

from .. import fused
from .._version import __version__
from ..arrays.backend import available_backends, get_backend
from ..errors import BackendError, InputError
from ..fused import threads
from ..network.sequential import Sequential
from ..storage import saving
from ..storage.codec import dumps
from ..storage.runs import kernels_of, read_metrics
from .describe import task_of
from .models import load_model
from .options import json_option

EXTRAS = {
    "matplotlib": "curves.png; pip install 'bnengine[plot]'",
    "ml_dtypes": "bfloat16 on NumPy and CuPy; pip install ml_dtypes",
    "torch": "a witness and the peers' tests; pip install torch",
    "array-api-strict": "a witness; pip install array-api-strict",
    "pytest": "the tests; pip install 'bnengine[test]'",
}


@click.command("info")
@click.argument("run", required=False)
@json_option
def command(run: str | None, as_json: bool) -> None:
    """Show versions, every backend with its device (or why it cannot be used and what to do), and extras.

    With RUN, a run's folder or a model file, show its layers and how far it was trained instead.

    \b
      bnengine info
      bnengine info runs/digits-1
    """
    found = machine() if run is None else of_run(run)
    if as_json:
        click.echo(dumps(found))
    elif run is None:
        _show_machine(found)
    else:
        _show_run(found)


def machine() -> dict[str, Any]:
    """What there is here, as JSON values."""
    try:
        chosen = get_backend()
        auto: dict[str, Any] = {"name": chosen.name, "why": chosen.why}
    except BackendError as error:
        auto = {"name": None, "why": str(error)}
    return {
        "bnengine": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "backends": [vars(report) for report in available_backends()],
        "chosen": auto,
        "kernels": _kernels(),
        "extras": {name: _installed(name) for name in EXTRAS},
    }


def _kernels() -> str:
    """The native kernels for NumPy arrays, or why there are none."""
    try:
        reason = fused.native().available()
    except InputError as error:
        reason = str(error)
    if reason:
        return f"references: {reason}"
    return f"built, instruction set {fused.instruction_set()}, {threads.get()} threads"


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def of_run(run: str) -> dict[str, Any]:
    """What a run has come to, as JSON values."""
    model = load_model("info", run, "numpy")
    saved = saving.read(model.file)
    training = saved.training or {}
    records = read_metrics(model.file.parent)
    network, classes = model.network, model.preprocessing.classes
    return {
        "model": str(model.file),
        "epochs": training.get("epoch"),
        "stopped": training.get("stopping") or None,
        "last": records[-1] if records else None,
        "task": task_of(model.preprocessing),
        "input_shape": list(model.preprocessing.input_shape),
        "scaling": model.preprocessing.scaling,
        "precision": saved.config.get("precision", "highest"),
        "kernels": kernels_of(model.file.parent),
        "classes": None if classes is None else classes.values.tolist(),
        "parameters": network.parameter_count,
        "cancelled_biases": network.cancelled_biases,
        "layers": _layers(network),
    }


def _layers(network: Sequential) -> list[str]:
    return network.summary().splitlines()


def _show_machine(found: dict[str, Any]) -> None:
    click.echo(f"bnengine {found['bnengine']}, Python {found['python']}, NumPy {found['numpy']}, {found['platform']}\n")
    click.echo("backends")
    for one in found["backends"]:
        version = one["version"] or "-"
        if one["usable"]:
            click.echo(f"  {one['name']:<17} {version:<12} on {one['device']}: {one['reason']}")
        else:
            click.echo(f"  {one['name']:<17} {version:<12} cannot be used: {one['reason']}")
            click.echo(f"  {'':<17} {'':<12} cure: {one['cure']}")
    click.echo(f"  taken: {found['chosen']['name'] or 'none'} ({found['chosen']['why']})\n")
    click.echo(f"kernels: {found['kernels']}")
    click.echo("extras")
    for name, use in EXTRAS.items():
        version = found["extras"][name]
        click.echo(f"  {name:<17} {version or '-':<12} {use.partition(';')[0] if version else f'not installed: {use}'}")


def _show_run(found: dict[str, Any]) -> None:
    stopped = f" ({found['stopped']})" if found["stopped"] else ""
    trained = f"{found['epochs'] or 0} epochs{stopped} in precision {found['precision']}"
    click.echo(f"{found['model']}: {trained}, scaling {found['scaling']}, {found['task']}")
    if found["kernels"]:
        click.echo(f"begun with the kernels: {found['kernels']}")
    last = {k: v for k, v in (found["last"] or {}).items() if k.startswith(("train_", "valid_")) and v is not None}
    for name, value in last.items():
        click.echo(f"  {name.replace('_', ' '):<26} {value:.6g}")
    click.echo("\n" + "\n".join(found["layers"]))
    config = Path(found["model"]).with_name("config.toml")
    if config.is_file():
        click.echo(f"\nhow it was trained: {config}")

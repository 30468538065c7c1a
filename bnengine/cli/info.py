"""`bnengine info`: show what bnengine can use on this machine, or a run."""

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
from ..metrics.tables import print_table
from ..network.sequential import Sequential
from ..storage import saving
from ..storage.codec import dumps
from ..storage.runs import kernels_of, read_metrics
from .describe import task_of
from .models import load_model
from .options import json_option

EXTRAS = {  # the use of each package, and how to install it
    "matplotlib": ("curves.png", "pip install 'bnengine[plot]'"),
    "jinja2": ("reports", "pip install 'bnengine[report]'"),
    "ml_dtypes": ("bfloat16 on NumPy and CuPy", "pip install ml_dtypes"),
    "torch": ("cross-checks of results, and comparisons in tests", "pip install torch"),
    "array-api-strict": ("cross-checks of results", "pip install array-api-strict"),
    "pytest": ("the tests", "pip install 'bnengine[test]'"),
}


@click.command("info", short_help="Show what bnengine can use on this machine, or a run.")
@click.argument("run", required=False)
@json_option
def command(run: str | None, as_json: bool) -> None:
    """Show versions, every backend with its device (or why it is unusable and what to do), and extras.

    With RUN, a run's folder or a model file, show its layers and how far it was trained.

    \b
      bnengine info
      bnengine info runs/digits-1
    """
    facts = machine() if run is None else of_run(run)
    if as_json:
        click.echo(dumps(facts))
    elif run is None:
        _show_machine(facts)
    else:
        _show_run(facts)


def machine() -> dict[str, Any]:
    """The report on this machine as JSON values."""
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
    """The native kernels for NumPy arrays, or why they are missing."""
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
    """The report on a run as JSON values."""
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


def _show_machine(facts: dict[str, Any]) -> None:
    click.echo(f"bnengine {facts['bnengine']}, Python {facts['python']}, NumPy {facts['numpy']}, {facts['platform']}\n")
    click.echo("backends")
    print_table(("", "", ""), [row for report in facts["backends"] for row in _backend(report)])
    click.echo(f"chosen: {facts['chosen']['name'] or 'none'} ({facts['chosen']['why']})\n")
    click.echo(f"kernels: {facts['kernels']}\n")
    click.echo("extras")
    versions = facts["extras"]
    print_table(("", "", ""), [
        (name, versions[name] or "-", use if versions[name] else f"not installed: {use}; {cure}")
        for name, (use, cure) in EXTRAS.items()
    ])  # fmt: skip


def _backend(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    name, version, reason = report["name"], report["version"] or "-", report["reason"]
    if report["usable"]:
        return [(name, version, f"on {report['device']}: {reason}")]
    return [(name, version, f"unusable: {reason}"), ("", "", f"cure: {report['cure']}")]


def _show_run(facts: dict[str, Any]) -> None:
    stopped = f" ({facts['stopped']})" if facts["stopped"] else ""
    trained = f"{facts['epochs'] or 0} epochs{stopped} in precision {facts['precision']}"
    click.echo(f"{facts['model']}: {trained}, scaling {facts['scaling']}, {facts['task']}")
    if facts["kernels"]:
        click.echo(f"began with the kernels: {facts['kernels']}")
    last = {k: v for k, v in (facts["last"] or {}).items() if k.startswith(("train_", "valid_")) and v is not None}
    if last:
        print_table(("", ""), [(name.replace("_", " "), f"{value:.6g}") for name, value in last.items()], numbers=(1,))
    click.echo("\n" + "\n".join(facts["layers"]))
    config = Path(facts["model"]).with_name("config.toml")
    if config.is_file():
        click.echo(f"\nsettings: {config}")

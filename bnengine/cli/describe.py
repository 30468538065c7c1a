"""Describe a training in a few lines."""

from pathlib import Path
from shlex import quote
from typing import Any

from .. import fused
from ..data import Preprocessing
from ..layers.norm.choices import NORMS
from ..network.sequential import Sequential
from .assembly import TrainingSetup, steps_per_epoch
from .settings import Settings


def header_lines(training: TrainingSetup, folder: Path) -> list[str]:
    """The lines before a training: backend, kernels, data, network, options, folder."""
    network, settings, backend = training.network, training.settings, training.network.backend
    return [
        f"backend   {backend.name} {backend.version} ({backend.why})",
        f"kernels   {kernels_line(backend.name, settings.kernels)}",
        f"data      {data_line(training)}",
        f"network   {network_line(network, settings)}",
        f"training  {training_line(training)}",
        f"run       {folder}",
    ]


def kernels_line(backend: str, kernels: str) -> str:
    """Such as "native, AVX2 (x86-64-v3)", or that the references run, and why."""
    if kernels == "reference":
        return "references, by --kernels reference"
    return fused.kernels(backend)


def data_line(training: TrainingSetup) -> str:
    """Such as "digits: 1,438 samples of 8 x 8 to train, 359 to validate; 10 classes; center"."""
    preprocessing, dataset = training.preprocessing, training.dataset
    valid = 0 if training.valid is None else training.valid.rows
    origin = ", as the files have it" if dataset.validation is not None else ""
    shape = " x ".join(map(str, preprocessing.input_shape))
    of = f"of {shape}" if len(preprocessing.input_shape) > 1 else f"of {shape} features"
    return (
        f"{dataset.name}: {training.train.rows:,} samples {of} to train, {valid:,} to validate{origin}; "
        f"{task_of(preprocessing)}; scaling {preprocessing.scaling}"
    )


def task_of(preprocessing: Preprocessing) -> str:
    """Such as "10 classes", or "regression of 2 targets"."""
    if preprocessing.classes is not None:
        return f"{len(preprocessing.classes)} classes"
    return "regression" if preprocessing.outputs == 1 else f"regression of {preprocessing.outputs} targets"


def network_line(network: Sequential, settings: Settings) -> str:
    """Such as "64-100-100-10, batch norm, relu: 17,510 parameters in float32; 200 biases left out ..."."""
    widths = "-".join(map(str, (network.inputs, *settings.hidden, network.outputs)))
    dropout = f", dropout {settings.dropout:g}" if settings.dropout else ""
    norm = NORMS[settings.norm].label
    hidden = f"{norm and f', {norm}'}, {settings.activation}{dropout}" if settings.hidden else ""
    precision = "" if network.precision == "highest" else f", precision {network.precision}"
    count = network.cancelled_biases
    cancelled = f"; {count:,} biases left out, since batch norm cancels them" if count else ""
    return f"{widths}{hidden}: {network.parameter_count:,} parameters in {network.dtype}{precision}{cancelled}"


def training_line(training: TrainingSetup) -> str:
    """Such as "adam, one-cycle at 0.005, 20 epochs of 23 steps, batches of 64, seed 0"."""
    settings = training.settings
    accumulated = f" x {settings.accumulate}" if settings.accumulate > 1 else ""
    return (
        f"{settings.loss}, {settings.optimizer}, {settings.schedule} learning rate {settings.learning_rate:g}, "
        f"{settings.epochs} epochs of {steps_per_epoch(training)} steps, "
        f"batches of {settings.batch_size}{accumulated}, seed {settings.seed}"
    )


def finish_lines(result: dict[str, Any], records: list[dict[str, Any]], kept: dict[str, Any]) -> list[str]:
    """The lines after a training; `kept` is the record of the epoch whose weights the run keeps."""
    figures = []
    if result["valid_accuracy"] is not None:
        best = max((r for r in records if r.get("valid_accuracy") is not None), key=lambda r: r["valid_accuracy"])
        where = f"(best {best['valid_accuracy']:.4f} in epoch {best['epoch'] + 1})"
        figures.append(f"validation accuracy {result['valid_accuracy']:.4f} {where}")
    figures += [
        f"{name} loss {result[key]:.4g}"
        for name, key in (("validation", "valid_loss"), ("training", "train_loss"))
        if result[key] is not None
    ]
    if records and kept is not records[-1]:
        figures.append(f"of epoch {kept['epoch'] + 1}, whose weights are kept")
    rate = f", {result['samples_per_second']:,.0f} samples/s" if result["samples_per_second"] else ""
    skipped = f" and {result['skipped_steps']:,} skipped steps" if result["skipped_steps"] else ""
    done = f"{result['steps']:,} steps{skipped} in {result['seconds']:.1f} s{rate}"
    part = "validation" if result["valid_loss"] is not None else "train"
    return [
        f"result    {', '.join(figures) or 'no figures'}",
        f"          {done}",
        f"          bnengine evaluate {quote(result['out'])} {part}",
    ]

"""`bnengine train`: a new run, or one that goes on."""

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import click

from ..errors import InputError, TrainingFailed
from ..storage import saving
from ..storage.codec import dumps
from ..storage.runs import RunFolder, check_free, read_config, read_metrics
from ..training import Callback, EarlyStopping, Trainer
from ..training.callbacks import Record, TrainingRun
from .app import INTERRUPTED, TERMINATED, Interrupted
from .assembly import BUILT_IN, Training, set_up, trainer_of
from .describe import finish_lines, header_lines
from .options import SettingsCommand, setting_options
from .settings import Settings, flag

BESIDE_RESUME = "backend", "threads"


class MetricsLog(Callback):
    """One line an epoch in the run's metrics.jsonl, before the checkpoint of that epoch."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.saved = False  # whether the training was interrupted between two steps, and so saved

    def epoch_ends(self, trainer: TrainingRun, record: Record) -> None:  # noqa: ARG002
        self.run.append(record)

    def interrupted(self, trainer: TrainingRun) -> None:  # noqa: ARG002
        self.saved = True


class Manner(NamedTuple):
    """How a training is run, which changes nothing of what comes out."""

    plot: bool
    quiet: bool
    as_json: bool
    terminated: Callable[[], bool]

    @property
    def progress(self) -> str:
        """How the trainer shows its progress; standard error is None where it was closed before the start."""
        return "quiet" if self.quiet or sys.stderr is None else "auto"

    def say(self, lines: Iterable[str]) -> None:
        """Tell the user; where standard output is for JSON, on standard error."""
        for line in () if self.quiet else lines:
            click.echo(line, err=self.as_json)


@click.command("train", cls=SettingsCommand)
@click.argument("data", required=False)
@setting_options
@click.option("--config", metavar="FILE", help="Take settings from a config.toml; options beside it count more.")
@click.option("--out", metavar="DIR", help="The new folder of the run.  [runs/NAME-1, or the next free number]")
@click.option("--resume", metavar="DIR", help="Go on with the run in DIR; needs nothing else.")
@click.option("--no-plot", is_flag=True, help="Draw no curves.png.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors (and the result, with --json).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; all else goes to standard error.")
def command(
    data: str | None,
    config: str | None,
    out: str | None,
    resume: str | None,
    no_plot: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a network on DATA and keep it in a folder.

    DATA is digits (1,797 handwritten digits that come with bnengine), a table with a header (.csv; name its --target),
    an .npz file with x and y, an x.npy with y.npy beside it, or a folder of IDX files such as MNIST's.

    \b
      bnengine train digits
      bnengine train flowers.csv --target species --hidden 32 --epochs 50
      bnengine train digits --config runs/digits-1/config.toml --seed 1
      bnengine train --resume runs/digits-1

    The folder gets config.toml (every setting: --config takes it), metrics.jsonl (a line an epoch), model.safetensors
    (the network with the scaling of the data and the labels; what evaluate and predict take) and curves.png. Ctrl-C
    saves the training between two steps.
    """
    given = {name: value for name, value in options.items() if value is not None}
    with _terminable() as terminated:
        manner = Manner(not no_plot, quiet, as_json, terminated)
        if resume is not None:
            _nothing_beside_resume(given, {"DATA": data, "--config": config, "--out": out})
            result = _resume(Path(resume), given, manner)
        else:
            result = _new(_settings(data, config, given), out, manner)
    if as_json:
        click.echo(dumps(result))


def _settings(data: str | None, config: str | None, given: dict[str, Any]) -> Settings:
    settings = Settings()
    if config is not None:
        settings = Settings.from_tables(read_config(Path(config), "train: --config"), config)
    settings = settings.changed(**given, **({} if data is None else {"path": data}))
    if not settings.path:
        raise InputError(
            "train: there is no data to train on; try bnengine train digits, or give a .csv, .npz or x.npy file or a "
            "folder of IDX files (bnengine train --help has examples)"
        )
    return settings


def _nothing_beside_resume(given: dict[str, Any], others: dict[str, str | None]) -> None:
    """A run goes on as it was set up: what would change the training cannot be given again."""
    named = [name for name, value in others.items() if value is not None]
    named += [flag(name) for name in given if name not in BESIDE_RESUME]
    if named:
        raise InputError(
            f"train: {', '.join(named)} cannot be given beside --resume, which takes everything from the run's "
            "config.toml; leave it out, or begin a new run with --config"
        )


def _new(settings: Settings, out: str | None, manner: Manner) -> dict[str, Any]:
    if out is not None:
        check_free(Path(out))
    training = set_up(settings)
    run = RunFolder.create(out, _name(settings.path))
    try:
        run.write_config(training.settings.tables(), training.network.backend.name)
        return _fit(run, training, None, manner)
    except InputError:
        run.discard()
        raise
    finally:
        run.close()


def _name(path: str) -> str:
    """What a run on these data is called."""
    place = Path(path).resolve()
    return path if path in BUILT_IN else (place.name if place.is_dir() else place.stem) or "data"


def _resume(folder: Path, given: dict[str, Any], manner: Manner) -> dict[str, Any]:
    run = RunFolder.open(folder)
    try:
        settings = Settings.from_tables(read_config(run.config, "train: --resume"), str(run.config)).changed(**given)
        saved = saving.read(run.model) if run.model.exists() else None
        if saved is not None and saved.training is None:
            raise InputError(
                f"train: --resume {folder}: {run.model} holds a network without its training; begin a new run"
            )
        training = set_up(settings, fitted=None if saved is None else saved.preprocessing)
        return _fit(run, training, saved, manner)
    finally:
        run.close()


def _fit(run: RunFolder, training: Training, saved: saving.Saved | None, manner: Manner) -> dict[str, Any]:
    settings, log = training.settings, MetricsLog(run)
    trainer = trainer_of(training, callbacks=[log], model=run.model, progress=manner.progress)
    if saved is not None:
        _restore(trainer, training, saved)
    run.rewind(trainer.history)
    finished = bool(trainer.stopping) or trainer.epoch >= settings.epochs
    manner.say(header_lines(training, run.folder))
    if saved is not None:
        manner.say([_where_it_goes_on(trainer, settings.epochs, finished)])
    try:
        trainer.fit(training.train, epochs=settings.epochs, batch_size=settings.batch_size, validation=training.valid)
    except KeyboardInterrupt:
        code = TERMINATED if manner.terminated() else INTERRUPTED
        raise Interrupted(_interrupted(run, trainer, log.saved), code) from None
    except TrainingFailed as error:
        raise TrainingFailed(f"train: {error}; the run is in {run.folder}") from error
    records = read_metrics(run.folder)
    if manner.plot and not (finished and run.curves.exists()):
        _plot(run, records)
    kept = kept_record(trainer, records)
    result = _result(run, training, trainer, records, kept)
    manner.say(finish_lines(result, records, kept))
    return result


def _restore(trainer: Trainer, training: Training, saved: saving.Saved) -> None:
    """Put the trainer where the checkpoint was taken."""
    assert saved.training is not None
    if saved.config != training.network.config():
        raise InputError(
            "train: --resume: the config.toml describes another network than the checkpoint holds; put it back as it "
            "was, or begin a new run with --config"
        )
    training.network.load_state_dict(saved.state)
    trainer.load_state(saved.arrays, saved.training)


def _where_it_goes_on(trainer: Trainer, epochs: int, finished: bool) -> str:
    if finished:
        early = f" ({trainer.stopping})" if trainer.stopping else ""
        return f"resumed   the run is finished: {trainer.epoch} of {epochs} epochs{early}; nothing is left to train"
    step = f", behind step {trainer.group}" if trainer.group else ""
    return f"resumed   in epoch {trainer.epoch + 1} of {epochs}{step}"


def _interrupted(run: RunFolder, trainer: Trainer, saved: bool) -> str:
    again = f"go on with: bnengine train --resume {quote(str(run.folder))}"
    if not run.model.exists():
        return f"train: interrupted before the first checkpoint; {again}"
    if not saved:
        return f"train: interrupted at once; the last checkpoint is {run.model}; {again}"
    step = (
        f" behind step {trainer.group} of epoch {trainer.epoch + 1}"
        if trainer.group
        else f" after epoch {trainer.epoch}"
    )
    return f"train: interrupted{step}; the checkpoint is {run.model}; {again}"


@contextmanager
def _terminable() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM does what Ctrl-C does; the function tells whether it came."""
    came = False

    def handle(number: int, frame: Any) -> None:  # noqa: ARG001
        nonlocal came
        came = True
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(
            interrupt
        ):  # Ctrl-C is ignored, as in a background job of a script: there is nobody to defer it
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield lambda: came
    except KeyboardInterrupt:
        if came:
            raise Interrupted("train: terminated", TERMINATED) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _plot(run: RunFolder, records: list[dict[str, Any]]) -> None:
    """Draw the curves; a training that is done does not fail for want of a picture."""
    from ..training.curves import draw

    try:
        draw(records, run.curves, run.folder.name)
    except (InputError, OSError) as error:
        click.echo(f"train: no {run.curves.name} was drawn: {error} (--no-plot leaves it out)", err=True)


def kept_record(trainer: Trainer, records: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of the weights that the run ends with: the last epoch's, or the best one's by early stopping."""
    stopping = next((c for c in trainer.callbacks if isinstance(c, EarlyStopping)), None)
    best = [r for r in records if stopping is not None and r.get("epoch") == stopping.best_epoch]
    return (best or records or [{}])[-1]


def _result(
    run: RunFolder, training: Training, trainer: Trainer, records: list[dict[str, Any]], kept: dict[str, Any]
) -> dict[str, Any]:
    """What --json prints."""
    report, network = trainer.step.report(), training.network
    accuracies = [r["valid_accuracy"] for r in records if r.get("valid_accuracy") is not None]
    seconds = [r["seconds"] for r in records if r.get("seconds") is not None]
    rows = sum(r["seconds"] * r["samples_per_second"] for r in records if r.get("seconds") is not None)
    return {
        "backend": network.backend.name,
        "epochs": trainer.epoch,
        "steps": report.steps,
        "train_loss": kept.get("train_loss"),
        "train_accuracy": kept.get("train_accuracy"),
        "valid_loss": kept.get("valid_loss"),
        "valid_accuracy": kept.get("valid_accuracy"),
        "best_valid_accuracy": max(accuracies, default=None),
        "seconds": sum(seconds),
        "samples_per_second": rows / sum(seconds) if sum(seconds) else None,
        "parameters": network.parameter_count,
        "cancelled_biases": network.cancelled_biases,
        "skipped_steps": report.skipped,
        "out": str(run.folder),
    }

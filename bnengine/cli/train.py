"""`bnengine train`: begin a run, or resume one."""

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
from .assembly import BUILT_IN, TrainingSetup, set_up, trainer_of
from .describe import finish_lines, header_lines
from .options import SettingsCommand, setting_options
from .settings import Settings, flag

RESUME_OPTIONS = "backend", "threads"


class MetricsLog(Callback):
    """Write one line an epoch into metrics.jsonl, before the checkpoint of that epoch."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.saved = False  # whether an interrupt came between two steps, and the training was saved

    def epoch_ends(self, trainer: TrainingRun, record: Record) -> None:  # noqa: ARG002
        self.run.append(record)

    def interrupted(self, trainer: TrainingRun) -> None:  # noqa: ARG002
        self.saved = True


class DisplayOptions(NamedTuple):
    """Options that do not affect the result."""

    plot: bool
    quiet: bool
    as_json: bool
    terminated: Callable[[], bool]

    @property
    def progress(self) -> str:
        """How the trainer shows its progress; standard error is None if it was closed before the start."""
        return "quiet" if self.quiet or sys.stderr is None else "auto"

    def say(self, lines: Iterable[str]) -> None:
        """Print lines; with --json on standard error, since standard output is for JSON."""
        for line in () if self.quiet else lines:
            click.echo(line, err=self.as_json)


@click.command("train", cls=SettingsCommand, short_help="Train a network on your data.")
@click.argument("data", required=False)
@setting_options
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Take settings from a config.toml; other options override it.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The new folder of the run.  [runs/NAME-1, or the next free number]",
)
@click.option(
    "--resume", metavar="DIR", type=click.Path(path_type=Path), help="Resume the run in DIR, with its settings."
)
@click.option("--no-plot", is_flag=True, help="Draw no curves.png.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors (and the result, with --json).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; everything else goes to standard error.")
def command(
    data: str | None,
    config: Path | None,
    out: Path | None,
    resume: Path | None,
    no_plot: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a network on DATA and save it in a folder.

    DATA is digits (1,797 handwritten digits that come with bnengine), a table with a header (.csv; name its --target),
    an .npz file with x and y, an x.npy next to a y.npy, or a folder of IDX files such as MNIST's.

    \b
      bnengine train digits
      bnengine train flowers.csv --target species --hidden 32 --epochs 50
      bnengine train digits --config runs/digits-1/config.toml --seed 1
      bnengine train --resume runs/digits-1

    The folder contains config.toml (every setting, for --config), metrics.jsonl (a line an epoch), model.safetensors
    (the network with the scaling of the data and the labels, for evaluate and predict) and curves.png. Ctrl-C saves the
    training after the current step.
    """
    chosen = {name: value for name, value in options.items() if value is not None}
    with _terminable() as terminated:
        display = DisplayOptions(not no_plot, quiet, as_json, terminated)
        if resume is not None:
            _only_resume(chosen, {"DATA": data, "--config": config, "--out": out})
            result = _resume(resume, chosen, display)
        else:
            result = _new(_settings(data, config, chosen), out, display)
    if as_json:
        click.echo(dumps(result))


def _settings(data: str | None, config: Path | None, chosen: dict[str, Any]) -> Settings:
    settings = Settings()
    if config is not None:
        settings = Settings.from_tables(read_config(config, "train: --config"), str(config))
    settings = settings.changed(**chosen, **({} if data is None else {"path": data}))
    if not settings.path:
        raise InputError(
            "train: DATA is missing. Try bnengine train digits, or give a .csv, .npz or x.npy file or a folder of IDX "
            "files (bnengine train --help has examples)."
        )
    return settings


def _only_resume(chosen: dict[str, Any], others: dict[str, Any]) -> None:
    """Raise InputError for anything that would change a resumed training."""
    named = [name for name, value in others.items() if value is not None]
    named += [flag(name) for name in chosen if name not in RESUME_OPTIONS]
    if named:
        raise InputError(
            f"train: {', '.join(named)} does not go with --resume, which takes all settings from the run's config. "
            "Leave it out, or begin a new run with --config."
        )


def _new(settings: Settings, out: Path | None, display: DisplayOptions) -> dict[str, Any]:
    if out is not None:
        check_free(out)
    training = set_up(settings)
    run = RunFolder.create(None if out is None else str(out), _name(settings.path))
    try:
        run.write_config(training.settings.tables(), training.network.backend.name)
        return _fit(run, training, None, display)
    except InputError:
        run.discard()
        raise
    finally:
        run.close()


def _name(path: str) -> str:
    """The name of a run on these data."""
    place = Path(path).resolve()
    return path if path in BUILT_IN else (place.name if place.is_dir() else place.stem) or "data"


def _resume(folder: Path, chosen: dict[str, Any], display: DisplayOptions) -> dict[str, Any]:
    run = RunFolder.open(folder)
    try:
        settings = Settings.from_tables(read_config(run.config, "train: --resume"), str(run.config)).changed(**chosen)
        saved = saving.read(run.model) if run.model.exists() else None
        if saved is not None and saved.training is None:
            raise InputError(
                f"train: --resume {folder}: {run.model} contains a network without its training. Begin a new run."
            )
        training = set_up(settings, fitted=None if saved is None else saved.preprocessing)
        return _fit(run, training, saved, display)
    finally:
        run.close()


def _fit(
    run: RunFolder, training: TrainingSetup, saved: saving.Saved | None, display: DisplayOptions
) -> dict[str, Any]:
    settings, log = training.settings, MetricsLog(run)
    trainer = trainer_of(training, callbacks=[log], model=run.model, progress=display.progress)
    if saved is not None:
        _restore(trainer, training, saved)
    run.rewind(trainer.history)
    finished = bool(trainer.stopping) or trainer.epoch >= settings.epochs
    display.say(header_lines(training, run.folder))
    if saved is not None:
        display.say([_resumed_line(trainer, settings.epochs, finished)])
    try:
        trainer.fit(training.train, epochs=settings.epochs, batch_size=settings.batch_size, validation=training.valid)
    except KeyboardInterrupt:
        code = TERMINATED if display.terminated() else INTERRUPTED
        raise Interrupted(_interrupted(run, trainer, log.saved), code) from None
    except TrainingFailed as error:
        raise TrainingFailed(f"train: {error}; the run is in {run.folder}") from error
    records = read_metrics(run.folder)
    if display.plot and not (finished and run.curves.exists()):
        _plot(run, records)
    kept = kept_record(trainer, records)
    result = _result(run, training, trainer, records, kept)
    display.say(finish_lines(result, records, kept))
    return result


def _restore(trainer: Trainer, training: TrainingSetup, saved: saving.Saved) -> None:
    """Load the checkpoint into network and trainer."""
    assert saved.training is not None
    if saved.config != training.network.config():
        raise InputError(
            "train: --resume: config.toml and the checkpoint describe different networks. Restore config.toml, or "
            "begin a new run with --config."
        )
    training.network.load_state_dict(saved.state)
    trainer.load_state(saved.arrays, saved.training)


def _resumed_line(trainer: Trainer, epochs: int, finished: bool) -> str:
    if finished:
        early = f" ({trainer.stopping})" if trainer.stopping else ""
        return f"resumed   the run is finished: {trainer.epoch} of {epochs} epochs{early}; nothing is left to train"
    step = f", after step {trainer.group}" if trainer.group else ""
    return f"resumed   in epoch {trainer.epoch + 1} of {epochs}{step}"


def _interrupted(run: RunFolder, trainer: Trainer, saved: bool) -> str:
    cure = f"Resume with: bnengine train --resume {quote(str(run.folder))}"
    if not run.model.exists():
        return f"train: interrupted before the first checkpoint. {cure}"
    if not saved:
        return f"train: interrupted at once; the last checkpoint is {run.model}. {cure}"
    step = (
        f" after step {trainer.group} of epoch {trainer.epoch + 1}"
        if trainer.group
        else f" after epoch {trainer.epoch}"
    )
    return f"train: interrupted{step}; the checkpoint is {run.model}. {cure}"


@contextmanager
def _terminable() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM act like Ctrl-C; the function returns whether it came."""
    came = False

    def handle(number: int, frame: Any) -> None:  # noqa: ARG001
        nonlocal came
        came = True
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):  # Ctrl-C is ignored, as in a background job of a script
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
    """Draw the curves; a failure is a warning, since the training is done."""
    from ..training.curves import draw

    try:
        draw(records, run.curves, run.folder.name)
    except (InputError, OSError) as error:
        click.echo(f"train: could not draw {run.curves.name}: {error} (--no-plot leaves it out)", err=True)


def kept_record(trainer: Trainer, records: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of the epoch whose weights the run keeps: the last, or the best with early stopping."""
    stopping = next((c for c in trainer.callbacks if isinstance(c, EarlyStopping)), None)
    best = [r for r in records if stopping is not None and r.get("epoch") == stopping.best_epoch]
    return (best or records or [{}])[-1]


def _result(
    run: RunFolder, training: TrainingSetup, trainer: Trainer, records: list[dict[str, Any]], kept: dict[str, Any]
) -> dict[str, Any]:
    """The JSON object of the run."""
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

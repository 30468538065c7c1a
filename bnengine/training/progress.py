"""Progress of a training: a bar for each epoch, a plain line for each epoch, or nothing.

It goes to standard error, since results go to standard output.
"""

import os
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TextIO, get_args

from ..validation import choice

ProgressStyle = Literal["auto", "bar", "plain", "quiet"]


class Progress(Protocol):
    """The display of a training. Leaving a `with` block stops it."""

    def start(self, epochs: int, groups_per_epoch: int | None) -> None:
        """Begin a training of `epochs` epochs with `groups_per_epoch` steps each (None: unknown)."""

    def epoch(self, index: int) -> None:
        """Begin epoch `index`, counted from 0."""

    def advance(self, groups_done: int, loss: float, rate: float, samples_per_second: float) -> None:
        """Show the number of steps done in this epoch, the latest loss, learning rate and speed."""

    def end_epoch(self, record: Mapping[str, Any]) -> None:
        """Show the metrics of an epoch, after its validation."""

    def message(self, text: str) -> None:
        """Show a message on a separate line."""

    def stop(self) -> None:
        """Restore the terminal; a second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def progress(style: ProgressStyle = "auto", stream: TextIO | None = None) -> Progress:
    """Return the display for a style.

    Args:
        style: "bar": a live bar for each epoch; "plain": one line for each epoch, for pipes and logs; "quiet": nothing;
            "auto": "bar" if the stream is a terminal that can move its cursor, else "plain".
        stream: None for standard error.

    Raises:
        InputError: another style.
    """
    choice("Trainer", "progress", style, get_args(ProgressStyle))
    stream = sys.stderr if stream is None else stream
    if style == "auto":
        style = "bar" if stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown") else "plain"
    if style == "bar":
        return _Bar(stream)
    return _Plain(stream) if style == "plain" else _Quiet()


class _Quiet:
    """Shows nothing; the base class of the others."""

    def start(self, epochs: int, groups_per_epoch: int | None) -> None: ...

    def epoch(self, index: int) -> None: ...

    def advance(self, groups_done: int, loss: float, rate: float, samples_per_second: float) -> None: ...

    def end_epoch(self, record: Mapping[str, Any]) -> None: ...

    def message(self, text: str) -> None: ...

    def stop(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Plain(_Quiet):
    """Writes one line for each epoch."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._epochs, self._index = stream, 0, 0

    def start(self, epochs: int, groups_per_epoch: int | None) -> None:  # noqa: ARG002
        self._epochs = epochs

    def epoch(self, index: int) -> None:
        self._index = index

    def end_epoch(self, record: Mapping[str, Any]) -> None:
        parts = [_place(self._index, self._epochs), *_results(record)]
        if "learning_rate" in record:
            parts.append(f"rate {record['learning_rate']:.3g}")
        if "samples_per_second" in record:
            parts.append(f"{record['samples_per_second']:,.0f} samples/s")
        if "seconds" in record:
            parts.append(f"{record['seconds']:.1f} s")
        if record.get("skipped_steps"):
            parts.append(f"skipped steps {record['skipped_steps']}")
        self.message("  ".join(parts))

    def message(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class _Bar(_Quiet):
    """Shows a live bar for the running epoch; the lines of finished epochs stay above it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._epochs = 0
        self._groups: int | None = None
        self._rich: Any = None  # a rich.progress.Progress, which is imported when the training begins
        self._task: Any = None
        self._place, self._width = "", 0

    def start(self, epochs: int, groups_per_epoch: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self.stop()
        self._epochs, self._groups = epochs, groups_per_epoch
        console = Console(file=self._stream, force_terminal=True, highlight=False)
        self._width = 24 if console.width >= 120 else 12 if console.width >= 100 else 6
        self._rich = RichProgress(
            TextColumn("{task.fields[place]}", markup=False),
            BarColumn(bar_width=self._width, complete_style="cyan", finished_style="cyan"),
            TextColumn("{task.fields[text]}", markup=False),
            console=console,
            transient=True,
            redirect_stdout=False,
        )

    def epoch(self, index: int) -> None:
        """Show an empty bar before the epoch's first step."""
        if self._rich is None:
            return
        self._place = _place(index, self._epochs)
        if self._task is not None:
            self._rich.remove_task(self._task)
        self._task = self._rich.add_task("", total=self._groups, place=self._place, text="")
        self._rich.start()

    def advance(self, groups_done: int, loss: float, rate: float, samples_per_second: float) -> None:
        if self._rich is None or self._task is None:
            return
        parts = [f"loss {loss:.4f}", self._speed(samples_per_second), f"rate {rate:.3g}"]
        if self._groups is None:
            parts.insert(0, f"step {groups_done:,}")
        self._rich.update(self._task, completed=groups_done, text=self._fitted(parts))

    def end_epoch(self, record: Mapping[str, Any]) -> None:
        if self._rich is None or self._task is None:
            return
        from rich.text import Text

        parts = list(_results(record))
        if record.get("skipped_steps"):
            parts.append(f"skipped {record['skipped_steps']}")
        if "samples_per_second" in record:
            parts.append(self._speed(record["samples_per_second"]))
        if "learning_rate" in record:
            parts.append(f"rate {record['learning_rate']:.3g}")
        bar = ("-" if self._rich.console.options.ascii_only else "━") * self._width
        line = Text.assemble(f"{self._place} ", (bar, "green"), f" {self._fitted(parts)}", no_wrap=True)
        self._rich.remove_task(self._task)
        self._task = None
        self._rich.refresh()  # otherwise rich prints the line above the old bar
        self._rich.console.print(line)

    def _speed(self, samples_per_second: float) -> str:
        return f"{samples_per_second:,.0f}{' samples' if self._width > 6 else ''}/s"

    def _fitted(self, parts: list[str]) -> str:
        """Join as many parts, from the first, as fit on the terminal's line after the bar."""
        room = self._rich.console.width - len(self._place) - self._width - 2
        while len("  ".join(parts)) > room and len(parts) > 1:
            parts = parts[:-1]
        return "  ".join(parts)[: max(room, 0)]

    def message(self, text: str) -> None:
        if self._rich is None:
            self._stream.write(text + "\n")
            self._stream.flush()
        else:
            self._rich.console.print(text, markup=False)

    def stop(self) -> None:
        if self._rich is not None:
            self._rich.stop()
        self._rich = self._task = None


def _place(index: int, epochs: int) -> str:
    return f"epoch {index + 1:>{len(str(epochs))}}/{epochs}"


def _results(record: Mapping[str, Any]) -> list[str]:
    """Format the results of an epoch: the training loss, and the metrics of the validation, if there are any."""
    shown = [f"loss {record['train_loss']:.4f}"] if "train_loss" in record else []
    names = [name for name in record if name.startswith("valid_")]
    if not names:
        names = [name for name in record if name.startswith("train_") and name != "train_loss"]
    for name in names:
        label = name.replace("valid_loss", "valid loss").removeprefix("valid_").removeprefix("train_").replace("_", " ")
        shown.append(f"{label} {record[name]:.4f}")
    return shown

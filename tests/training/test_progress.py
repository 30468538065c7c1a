"""What a training shows: on a terminal, in a pipe, and not at all; and that the terminal comes back."""

import io
import re
import subprocess
import sys

import pytest

from bnengine.errors import InputError
from bnengine.training.progress import progress

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
RECORD = {
    "epoch": 0,
    "steps": 20,
    "learning_rate": 1e-3,
    "train_loss": 0.12345,
    "train_accuracy": 0.97,
    "valid_loss": 0.0512,
    "valid_accuracy": 0.97778,
    "seconds": 0.31,
    "samples_per_second": 43210.9,
    "skipped_steps": 0,
    "gradient_norm": 1.2,
}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def plain(text):
    """Text without the escapes of a terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def screen(text):
    """The lines that a terminal shows in the end."""
    rows, row, column = [""], 0, 0
    for escape, count, code, control, letters in re.findall(
        r"(\x1b\[\??(\d*)[\d;]*([A-Za-z]))|([\r\n])|([^\x1b\r\n]+)", text
    ):
        if control == "\n":
            row, column = row + 1, 0
            rows += [""] * (row == len(rows))
        elif control == "\r":
            column = 0
        elif escape and code == "A":
            row -= int(count or 1)
        elif escape and code == "K":
            rows[row] = ""
        elif letters:
            rows[row] = rows[row][:column].ljust(column) + letters + rows[row][column + len(letters) :]
            column += len(letters)
    return [line.rstrip() for line in rows if line.strip()]


def train(shown, epochs=2, groups=20, records=(RECORD, RECORD)):
    with shown:
        shown.start(epochs, groups)
        for index in range(epochs):
            shown.epoch(index)
            for done in (7, 20):
                shown.advance(done, 0.5, 1e-3, 23456.7)
            shown.end_epoch(records[index])


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")


def test_plain_writes_one_line_an_epoch():
    stream = io.StringIO()
    train(progress("plain", stream), epochs=2, records=(RECORD, RECORD | {"skipped_steps": 3}))
    first, second = stream.getvalue().splitlines()
    assert first == ("epoch 1/2  loss 0.1235  valid loss 0.0512  accuracy 0.9778  rate 0.001  43,211 samples/s  0.3 s")
    assert second == first.replace("1/2", "2/2") + "  skipped steps 3"


def test_without_validation_the_training_figures_are_shown():
    stream = io.StringIO()
    train(progress("plain", stream), epochs=1, records=({"train_loss": 0.5, "train_accuracy": 0.75},))
    assert stream.getvalue() == "epoch 1/1  loss 0.5000  accuracy 0.7500\n"


def test_other_metrics_have_their_names():
    stream = io.StringIO()
    record = {"train_loss": 0.5, "valid_loss": 0.25, "valid_mean_absolute_error": 0.125}
    train(progress("plain", stream), epochs=1, records=(record,))
    assert stream.getvalue() == "epoch 1/1  loss 0.5000  valid loss 0.2500  mean absolute error 0.1250\n"


def test_quiet_writes_nothing(capfd):
    shown = progress("quiet")
    train(shown)
    shown.message("nothing")
    assert capfd.readouterr() == ("", "")


def test_auto_takes_the_bar_on_a_terminal_and_lines_elsewhere(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    kinds = {m: type(progress(m, io.StringIO())) for m in ("bar", "plain")}
    assert type(progress("auto", Terminal())) is kinds["bar"]
    assert type(progress("auto", io.StringIO())) is kinds["plain"]
    monkeypatch.setenv("TERM", "dumb")
    assert type(progress("auto", Terminal())) is kinds["plain"]


def test_progress_goes_to_standard_error(capsys):
    train(progress("plain"), epochs=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("epoch 1/1")


@pytest.mark.usefixtures("wide")
def test_a_bar_leaves_one_line_an_epoch_and_the_messages():
    stream = Terminal()
    shown = progress("bar", stream)
    with shown:
        shown.start(2, 20)
        shown.epoch(0)
        shown.advance(20, 0.5, 1e-3, 1000.0)
        shown.message("step 7 was [red]skipped[/red]")
        shown.end_epoch(RECORD | {"skipped_steps": 1})
        shown.epoch(1)
        shown.end_epoch(RECORD)
    bar = "━" * 24
    figures = "loss 0.1235  valid loss 0.0512  accuracy 0.9778"
    assert screen(stream.getvalue()) == [
        "step 7 was [red]skipped[/red]",
        f"epoch 1/2 {bar} {figures}  skipped 1  43,211 samples/s  rate 0.001",
        f"epoch 2/2 {bar} {figures}  43,211 samples/s  rate 0.001",
    ]


@pytest.mark.usefixtures("wide")
def test_the_running_bar_shows_loss_speed_and_rate():
    stream = Terminal()
    with progress("bar", stream) as shown:
        shown.start(12, 20)
        shown.epoch(4)
        shown.advance(10, 0.5, 1e-3, 23456.7)
    text = plain(stream.getvalue())
    assert "epoch  5/12" in text
    assert "loss 0.5000  23,457 samples/s  rate 0.001" in text


@pytest.mark.usefixtures("wide")
def test_an_epoch_of_unknown_length_counts_its_steps():
    stream = Terminal()
    with progress("bar", stream) as shown:
        shown.start(2, None)
        shown.epoch(0)
        shown.end_epoch(RECORD)
        shown.epoch(1)
        shown.advance(1234, 0.5, 1e-3, 10.0)
    assert screen(stream.getvalue())[0].startswith("epoch 1/2 ━")
    assert "step 1,234  loss 0.5000" in plain(stream.getvalue())


@pytest.mark.parametrize("columns", [30, 60, 80, 100, 120, 200])
def test_a_finished_line_fits_the_terminal(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    train(progress("bar", stream), epochs=2)
    lines = screen(stream.getvalue())
    assert len(lines) == 2
    assert all(line.startswith(f"epoch {i}/2 ━") and len(line) <= columns for i, line in enumerate(lines, 1))
    assert columns < 80 or "accuracy 0.9778" in lines[0]


def fails(shown, error):
    with shown:
        shown.start(2, 20)
        shown.epoch(0)
        shown.advance(3, 0.5, 1e-3, 10.0)
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_terminal_comes_back_whatever_happens(error):
    stream = Terminal()
    shown = progress("bar", stream)
    with pytest.raises(error):
        fails(shown, error)
    text = stream.getvalue()
    assert HIDE in text
    assert text.rindex(SHOW) > text.rindex(HIDE)
    assert screen(text) == []
    length = len(text)
    shown.stop()
    shown.advance(4, 0.5, 1e-3, 10.0)
    shown.end_epoch(RECORD)
    assert len(stream.getvalue()) == length


def test_a_display_may_be_started_again():
    stream = Terminal()
    shown = progress("bar", stream)
    train(shown, epochs=1)
    train(shown, epochs=1)
    assert len(screen(stream.getvalue())) == 2


@pytest.mark.parametrize("mode", ["bar", "plain"])
def test_a_message_may_come_before_the_start(mode):
    stream = io.StringIO()
    progress(mode, stream).message("backend: numpy")
    assert stream.getvalue() == "backend: numpy\n"


def test_an_unknown_mode_is_an_error():
    with pytest.raises(InputError, match="progress must be 'auto', 'bar', 'plain' or 'quiet', got 'loud'"):
        progress("loud")


def test_lines_need_no_rich():
    code = (
        "import sys; from bnengine.training.progress import progress\n"
        "with progress('auto') as p:\n    p.start(1, 1); p.epoch(0); p.end_epoch({'train_loss': 1.0})\n"
        "assert 'rich' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "epoch 1/1  loss 1.0000\n"

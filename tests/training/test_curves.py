"""The picture of a training: what it draws from which records, and that the file is replaced in one step."""

import math
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.training.curves import draw


def records(epochs, **more):
    """A training's records, one an epoch."""
    base = [{"epoch": e, "train_loss": 2.0 / (e + 1), "valid_loss": 2.5 / (e + 1)} for e in range(epochs)]
    return [{**r, **{k: f(i) for k, f in more.items()}} for i, r in enumerate(base)]


@pytest.fixture
def figure(require, monkeypatch):
    """The figures that were saved, as matplotlib's objects."""
    module, saved = require("matplotlib.figure"), []
    save = module.Figure.savefig
    monkeypatch.setattr(module.Figure, "savefig", lambda self, *a, **k: (saved.append(self), save(self, *a, **k)))
    return saved


def lines(panel):
    """The curves of a panel as (x, y), without the ring around the best."""
    return [
        line.get_xydata().T
        for line in panel.get_lines()
        if line.get_linestyle() != "None" and len(line.get_xdata()) > 1
    ]


def texts(panel):
    return [text.get_text() for text in panel.texts]


def test_two_panels_show_loss_and_accuracy_of_both_parts(figure, tmp_path):
    accuracy = {"train_accuracy": lambda i: 0.9 + i / 100, "valid_accuracy": lambda i: 0.88 + i % 3 / 100}
    draw(records(5, **accuracy), tmp_path / "curves.png", "digits")
    loss, share = figure[0].axes
    assert [p.get_title("left") for p in (loss, share)] == ["Loss", "Accuracy"]
    assert figure[0].texts[0].get_text() == "digits"
    (x, train), (_, valid) = lines(loss)
    np.testing.assert_array_equal(x, [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(train, [2, 1, 2 / 3, 0.5, 0.4])
    np.testing.assert_array_equal(valid, [2.5, 1.25, 2.5 / 3, 0.625, 0.5])
    np.testing.assert_allclose(lines(share)[1][1], [88, 89, 90, 88, 89], rtol=1e-14)
    assert {"Training", "Validation", "○ best 0.5, epoch 5"} <= set(texts(loss))
    assert "○ best 90.00 %, epoch 3" in texts(share)


def test_the_file_is_a_whole_png_of_the_size_asked_for(require, tmp_path):
    require("matplotlib")
    path = tmp_path / "curves.png"
    draw(records(3), path)
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, kinds = 8, []
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        body = data[place + 4 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length])[0] == zlib.crc32(body)
        kinds.append(body[:4])
        place += 12 + length
    assert kinds[0] == b"IHDR"
    assert kinds[-1] == b"IEND"
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def test_equal_records_give_equal_bytes(require, tmp_path):
    require("matplotlib")
    draw(records(3), tmp_path / "a.png", "t")
    draw(records(3), tmp_path / "b.png", "t")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_training_without_validation_shows_one_curve(figure, tmp_path):
    draw([{"epoch": 0, "train_loss": 1.0}, {"epoch": 1, "train_loss": 0.5}], tmp_path / "c.png")
    (loss,) = figure[0].axes
    assert len(lines(loss)) == 1
    assert texts(loss) == ["Training"]


def test_another_metric_takes_the_second_panel(figure, tmp_path):
    draw(records(4, valid_mean_absolute_error=lambda i: 4.0 - i), tmp_path / "c.png")
    panel = figure[0].axes[1]
    assert panel.get_title("left") == "Mean absolute error"
    assert "○ best 1, epoch 4" in texts(panel)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_a_value_that_is_not_finite_leaves_a_gap(figure, tmp_path, bad):
    given = records(5)
    given[2]["valid_loss"] = bad
    draw(given, tmp_path / "c.png")
    train, valid = lines(figure[0].axes[0])
    assert np.isfinite(train[1]).all()
    assert np.isfinite(valid[1]).tolist() == [True, True, False, True, True]


def test_a_loss_that_spans_much_is_drawn_on_a_log_scale(figure, tmp_path):
    draw(records(30), tmp_path / "c.png")
    draw([{"train_loss": -1.0}, {"train_loss": 100.0}], tmp_path / "c.png")
    assert [f.axes[0].get_yscale() for f in figure] == ["log", "linear"]
    assert figure[0].axes[0].get_title("left") == "Loss (log scale)"


@pytest.mark.parametrize("epochs", [1, 2, 300])
def test_every_length_of_training_can_be_drawn(figure, tmp_path, epochs):
    draw(records(epochs, valid_accuracy=lambda _: 1.0), tmp_path / "c.png", "x_1 $\\frac")
    low, high = figure[0].axes[1].get_ylim()
    assert low < 100 <= high
    left, right = figure[0].axes[0].get_xlim()
    ticks = [t for t in figure[0].axes[0].get_xticks() if left <= t <= right]
    assert ticks
    assert min(ticks) >= 1
    assert all(t == int(t) for t in ticks)


def test_names_at_the_ends_of_close_curves_do_not_overlap(figure, tmp_path):
    draw([{"train_loss": 1.0 - i / 10, "valid_loss": 1.0 - i / 10} for i in range(5)], tmp_path / "c.png")
    canvas, panel = figure[0].canvas, figure[0].axes[0]
    boxes = [
        t.get_window_extent(canvas.get_renderer()) for t in panel.texts if t.get_text() in ("Training", "Validation")
    ]
    assert len(boxes) == 2
    assert not boxes[0].overlaps(boxes[1])
    assert all(box.x1 < figure[0].bbox.x1 for box in boxes)


def test_no_figures_are_an_error_and_leave_the_old_picture(require, tmp_path):
    require("matplotlib")
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")
    for nothing in ([], [{"epoch": 0, "train_loss": math.nan}], [{"seconds": 1.0}]):
        with pytest.raises(InputError, match="curves: none of the"):
            draw(nothing, path)
    assert path.read_bytes() == b"old"


def test_without_matplotlib_the_error_names_the_cure(monkeypatch, tmp_path):
    for name in [m for m in sys.modules if m.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'bnengine\[plot\]'"):
        draw(records(2), tmp_path / "c.png")


def test_drawing_touches_no_global_state_of_pyplot(require, tmp_path):
    require("matplotlib")
    code = (
        "import sys; from bnengine.training.curves import draw\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"draw([{{'train_loss': 1.0}}], {str(tmp_path / 'c.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)

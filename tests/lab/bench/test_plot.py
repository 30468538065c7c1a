"""The picture of a run."""

import pytest

from bnengine.errors import InputError
from bnengine.lab.bench.plot import AXES, curves, draw
from tests.support import require


def row(places, ours, **peers):
    environment = {"threads": 2, "processor": "A processor with $ and _", "machine": "x86_64"}
    peers = {{"torch": "PyTorch eager", "jax": "JAX jit"}[name]: ms for name, ms in peers.items()}
    return {"places": places, "ours_ms": ours, "reference_ms": None, "peers_ms": peers, "environment": environment}


ROWS = [
    row({"width": 512}, 2.0, torch=5.0, jax=None),
    row({"width": 32}, 0.1, torch=0.5, jax=0.3),
    row({"depth": 5}, 1.0),
    row({"batch": 64}, None, jax=0.2),
    row({}, 9.0),
]


def test_curves_go_by_their_axis_and_leave_out_what_has_no_time():
    ours, torch = [(32, 0.1), (512, 2.0)], [(32, 0.5), (512, 5.0)]
    assert curves(ROWS, "width") == {"bnengine": ours, "PyTorch eager": torch, "JAX jit": [(32, 0.3)]}
    assert curves(ROWS, "batch") == {"JAX jit": [(64, 0.2)]}


def test_a_picture_has_a_panel_for_each_axis_or_says_why_there_is_none(tmp_path):
    require("matplotlib")
    from matplotlib.image import imread

    path = tmp_path / "figures.png"
    draw(ROWS, str(path))
    picture = imread(path)
    height, width, _ = picture.shape
    assert width > 2 * height
    for i in range(len(AXES)):  # each third has ink on white
        third = picture[:, width * i // 3 : width * (i + 1) // 3, :3]
        assert third.max() == 1.0
        assert (third.min(axis=2) < 0.5).mean() > 0.002
    with pytest.raises(InputError, match="bench: no training step was timed"):
        draw([row({}, 1.0)], str(path))
    with pytest.raises(InputError, match=r"bench: .*figures\.png cannot be written"):
        draw(ROWS, str(tmp_path / "missing" / "figures.png"))

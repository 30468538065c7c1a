"""Grids and vector widths: figures worked by hand, agreement with the kernels, and work for the whole device."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bnengine.fused.cuda import _launch, _load, loss
from bnengine.fused.cuda._launch import BLOCK, LANES, THREADS, WARPS, flat_grid, slice_width, sliced_grid, vector_of
from bnengine.ops import REGISTRY, Example, using
from bnengine.runtime.memory import Memory
from tests.contracts.examples import sized
from tests.fused.test_launches import upload

MULTIPROCESSORS = 3  # of the simulated device


@pytest.fixture
def like(simulated: Any) -> Any:
    return simulated.on_device(np.zeros(4, np.float32))


def constants(file: str) -> dict[str, int]:
    """The whole numbers that a kernel file gives names to."""
    text = (_load.folder() / "cuda" / file).read_text(encoding="utf-8")
    return {name: int(value) for name, value in re.findall(r"\b(k[A-Z]\w*) = (\d+)[,;]", text)}


def test_blocks_and_groups_are_those_of_the_kernels():
    there = constants("common.cuh")
    assert (LANES, WARPS) == BLOCK == (there["kLanes"], there["kWarps"])
    assert THREADS == LANES * WARPS
    assert constants("loss.cu")["kHeldPacks"] == loss.HELD_PACKS
    assert constants("slices.cuh")["kHeld"] == _launch.HELD


@pytest.mark.parametrize(
    ("size", "vector", "waves", "blocks"),
    [
        (0, 1, 8, 1),  # a launch has one block at least
        (256, 1, 8, 1),
        (257, 1, 8, 2),
        (1024, 4, 8, 1),
        (1025, 4, 8, 2),
        (6144, 1, 8, 24),  # eight for each multiprocessor, and no more
        (10**9, 4, 8, 24),
        (10**9, 4, 4, 12),
    ],
)
def test_a_flat_grid_has_a_thread_for_each_vector(size, vector, waves, blocks, like):
    assert flat_grid(like, size, vector, waves) == (blocks,)


@pytest.mark.parametrize(("vector", "channels"), [(1, 32), (2, 16), (4, 32), (8, 64)])
def test_a_slice_is_what_a_warp_reads_of_a_row(vector, channels):
    assert slice_width(vector) == channels


@pytest.mark.parametrize(
    ("rows", "channels", "vector", "sums", "grid"),
    [
        (1, 1, 1, False, (1, 1)),
        (1, 33, 1, False, (2, 1)),
        (1, 128, 4, False, (4, 1)),
        # A block of 8 warps with 1 row each, 2 rows a thread: 16 rows a split, 4 blocks a multiprocessor at most.
        (17, 32, 1, False, (1, 2)),
        (10**6, 32, 1, False, (1, 12)),
        (10**6, 96, 1, False, (3, 4)),
        (10**6, 32 * 13, 1, False, (13, 1)),
        # With 16 bytes a read a warp has 4 rows: 64 a split.
        (64, 32, 4, False, (1, 1)),
        (65, 32, 4, False, (1, 2)),
        # Sums: 8 rows a thread, 2 blocks a multiprocessor at most.
        (64, 32, 1, True, (1, 1)),
        (65, 32, 1, True, (1, 2)),
        (10**6, 32, 1, True, (1, 6)),
        (256, 32, 4, True, (1, 1)),
        (257, 32, 4, True, (1, 2)),
        # Four slices of six blocks that run side by side: a second split of each would be a second wave.
        (10**6, 128, 4, True, (4, 1)),
        (10**6, 160, 4, False, (5, 2)),
    ],
)
def test_a_sliced_grid_shares_out_channels_and_rows(rows, channels, vector, sums, grid, like):
    assert sliced_grid(like, rows, channels, vector, sums=sums) == grid


def test_splits_end_where_a_grid_does(like, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(_load, "multiprocessors", lambda _: 10**6)
        assert sliced_grid(like, 10**9, 32, 1, sums=False) == (1, 65535)


@pytest.mark.parametrize(
    ("dtype", "columns", "offsets", "vector"),
    [
        ("float32", None, (), 4),
        ("float64", None, (0, 16), 2),
        ("float16", 16, (32,), 8),
        ("float16", 12, (32,), 1),  # the second row would begin off 16 bytes
        ("float32", 12, (0, None, 16), 4),
        ("float32", 12, (0, 4), 1),
        ("float32", None, (8,), 1),
    ],
)
def test_aligned_rows_and_arrays_are_read_16_bytes_at_once(dtype, columns, offsets, vector):
    like = SimpleNamespace(dtype=np.dtype(dtype))
    arrays = [None if o is None else SimpleNamespace(data=SimpleNamespace(ptr=4096 + o)) for o in offsets]
    assert vector_of(like, columns, *arrays) == vector


def launches(simulated: Any, name: str, *args: Any, **options: Any) -> dict[str, tuple[int, ...]]:
    """The grid of every kernel that an op launches, by its name without what it is an instance for."""
    grids = {}
    original = _launch.Instance.__call__

    def recorded(self: _launch.Instance, *arguments: Any) -> None:
        grids[re.split("[:<]", self.name.removeprefix("bnengine::"))[0]] = self.grid
        original(self, *arguments)

    with pytest.MonkeyPatch.context() as patched, using("fused"):
        patched.setattr(_launch.Instance, "__call__", recorded)
        given, options = [upload(simulated, a) for a in args], {k: upload(simulated, a) for k, a in options.items()}
        REGISTRY[name](*given, memory=Memory(), **options)
    return grids


def test_large_arrays_have_blocks_on_every_multiprocessor(simulated):
    """What a kernel computes does not depend on its grid; how long it takes does."""
    one, few, many = np.ones(1), np.ones((1, 3, 1)), np.ones((1, 3, 4000))
    calls = [("check_step", Example("", (one, *given))) for given in ((many.reshape(-1), few), (one, many))]
    for name in REGISTRY.keys() - {"gather_raw", "count_step", "add_epoch_sums"}:
        largest = max(sized(name, "float32"), key=lambda e: sum(a.size for a in e.args if a is not None))
        calls.append((name, largest))
    for name, example in calls:
        for kernel, grid in launches(simulated, name, *example.args, **example.options).items():
            assert np.prod(grid) >= MULTIPROCESSORS, f"{name}: {kernel} has a grid of {grid}"

"""How launches are cut: figures worked by hand. No result depends on them, so nothing else would tell a wrong one."""

import numpy as np
import pytest

from bnengine.fused.cpu import batch_norm, dense, loss, update
from bnengine.fused.cpu._launch import Cut, cut, cut_columns, cut_rows
from bnengine.memory import Arena
from bnengine.plan import COLUMNS, ROWS
from tests.cpu.large import softmax
from tests.cpu.launching import of_rows, run


def array(*shape, dtype=np.float32):
    """Of this size, but of one element."""
    return np.broadcast_to(np.zeros((), dtype), shape)


@pytest.mark.parametrize(
    ("rows", "columns", "itemsize", "blocks"),
    [
        (256, 512, 4, 16),  # two lines of 16 columns each
        (256, 500, 4, 16),  # the last one has fewer
        (256, 512, 8, 32),
        (16, 512, 4, 2),  # 32 KiB: 16 at least are a block
        (8, 512, 4, 1),
        (8, 0, 4, 1),
    ],
)
def test_columns_are_cut_into_lines_of_which_a_block_has_two_at_least(rows, columns, itemsize, blocks):
    assert cut_columns(rows, columns, itemsize) == Cut(COLUMNS, columns, 64 // itemsize, blocks)


def test_a_block_of_columns_may_have_more_lines():
    assert cut_columns(256, 512, 4, lines=4) == Cut(COLUMNS, 512, 16, 8)


@pytest.mark.parametrize(
    ("rows", "columns", "itemsize", "blocks"),
    [(4096, 64, 4, 64), (4096, 64, 8, 128), (3, 2, 4, 1), (1_000_000, 64, 4, 512), (0, 64, 4, 1)],
)
def test_rows_are_cut_into_blocks_of_16_kib_and_at_most_512(rows, columns, itemsize, blocks):
    assert cut_rows(rows, columns, itemsize) == Cut(ROWS, rows, 1, blocks)
    assert cut_rows(rows, columns, itemsize, 16) == Cut(ROWS, rows, 16, blocks)


def test_more_than_1024_rows_are_cut_by_rows():
    assert cut((1024, 512), 4) == Cut(COLUMNS, 512, 16, 16)
    assert cut((1025, 512), 4) == Cut(ROWS, 1025, 1, 128)
    assert cut((1024, 512), 4).by_columns
    assert not cut((1025, 512), 4).by_columns


@pytest.mark.parametrize(
    ("m", "n", "k", "itemsize", "expected"),
    [
        (256, 512, 784, 4, Cut(COLUMNS, 512, 48, 11)),
        (256, 512, 784, 8, Cut(COLUMNS, 512, 24, 22)),
        (64, 300, 100, 4, Cut(COLUMNS, 300, 48, 3)),  # of half a million multiplications at least
        (64, 100, 64, 4, Cut(COLUMNS, 100, 48, 1)),
        (2000, 64, 64, 4, Cut(ROWS, 2000, 192, 11)),
        (200_000, 64, 128, 4, Cut(ROWS, 200_000, 192, 512)),
    ],
)
def test_products_are_cut_as_what_follows_them_into_panels_that_are_worth_it(m, n, k, itemsize, expected):
    assert dense._along(m, n, k, itemsize) == expected


@pytest.mark.parametrize(
    ("shape", "rows", "number"),
    [
        ((200_704, 64), 1024, 196),  # 256 KiB
        ((2048, 64), 64, 32),  # 16 KiB
        ((1500, 100), 48, 32),  # 40 rows have 16 KB: the next multiple of 16
        ((1_000_000, 1), 15_632, 64),  # a sixty-fourth of all
        ((2_000_000, 64), 1968, 1017),  # a thousand and twenty-four at most, but in sixteens
    ],
)
def test_partial_moments_are_of_16_to_256_kib_of_rows(shape, rows, number):
    blocks = batch_norm._blocks(array(*shape))
    assert blocks == (rows, number)
    assert blocks.cut == Cut(ROWS, number, 1, min(number, 512))


def test_a_tile_of_columns_bounds_the_scratch_and_rows_need_that_of_all_columns():
    assert batch_norm._scratch(300, cut((10, 300), 4)) == 128 * 128 + 1024
    assert batch_norm._scratch(100, cut((10, 100), 4)) == 128 * 100 + 1024
    assert batch_norm._scratch(300, cut((5000, 300), 4)) == 128 * 300 + 1024


def test_flat_arrays_are_cut_as_one_row():
    assert update._flat_cut(array(1_000_000)) == Cut(COLUMNS, 1_000_000, 16, 244)
    assert update._flat_cut(array(1000)) == Cut(COLUMNS, 1000, 16, 1)


def launches(name, example):
    """(kernel, width, unit, blocks) of every launch of an op."""
    arena = Arena()
    with arena.recording([a for a in (*example.args, *example.options.values()) if isinstance(a, np.ndarray)]) as plan:
        run(name, example, memory=arena)
    return [
        (kernel.name.partition("<")[0], kernel.width, kernel.unit, kernel.blocks)
        for kernel in (launch.kernel for launch in plan.launches)
    ]


@pytest.mark.usefixtures("native")
def test_every_launch_of_an_op_over_many_rows_is_cut():
    assert launches("batch_norm", of_rows("batch_norm", 2048, 64)) == [
        ("moments_of_blocks", 32, 1, 32),
        ("moments_of_all", 64, 8, 3),  # 96 rows of partial moments: 48 KiB
        ("normalize", 2048, 1, 32),
    ]
    assert launches("normalize_backward", of_rows("normalize_backward", 2048, 64)) == [
        ("sums_of_blocks", 32, 1, 32),
        ("sums_of_all", 64, 8, 2),
        ("input_of_rows", 2048, 1, 32),
    ]


@pytest.mark.usefixtures("native")
def test_gradients_of_weights_are_cut_by_columns_however_many_rows_there_are():
    assert launches("affine_backward", of_rows("affine_backward", 40_000, 30)) == [
        ("activation_backward", 40_000, 1, 205),
        ("gemm_tn", 21, 48, 1),
        ("gemm_nt_rows", 40_000, 192, 48),
    ]


@pytest.mark.usefixtures("native")
def test_rows_of_a_loss_count_more_than_their_bytes(rng):
    each = loss.EXPENSIVE * 4 * 100
    assert launches("softmax_cross_entropy", softmax(rng, 1000, 100, np.float32))[-2] == (
        "softmax_cross_entropy", 1000, 1, 1000 * each // 16384,
    )  # fmt: skip

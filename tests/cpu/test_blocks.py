"""How launches are cut: figures worked by hand. No result depends on them, so nothing else would tell a wrong one."""

import numpy as np
import pytest

from bnengine.fused.cpu import batch_norm, dense, loss
from bnengine.fused.cpu._launch import Cut, cut, cut_columns, cut_flat, cut_rows, evenly
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
        (256, 512, 8, 16),  # they are so many that more would be narrow
        (256, 2048, 4, 16),
        (256, 4096, 4, 32),  # but none is wider than 128 columns
        (256, 160, 4, 4),  # of five that have two lines: a power of two
        (16, 512, 4, 2),  # 32 KiB: 16 at least are a block
        (8, 512, 4, 1),
        (8, 0, 4, 1),
    ],
)
def test_columns_are_cut_into_lines_of_which_a_block_has_two_at_least(rows, columns, itemsize, blocks):
    assert cut_columns(rows, columns, itemsize) == Cut(COLUMNS, columns, 64 // itemsize, blocks)


@pytest.mark.parametrize(
    ("rows", "columns", "itemsize", "blocks"),
    [(4096, 64, 4, 64), (4096, 64, 8, 128), (1000, 100, 4, 16), (3, 2, 4, 1), (1_000_000, 64, 4, 512), (0, 64, 4, 1)],
)
def test_rows_are_cut_into_a_power_of_two_of_blocks_of_16_kib_and_at_most_512(rows, columns, itemsize, blocks):
    assert cut_rows(rows, columns, itemsize) == Cut(ROWS, rows, 1, blocks)
    assert cut_rows(rows, columns, itemsize, 16) == Cut(ROWS, rows, 16, blocks)


def test_blocks_are_evened_to_a_power_of_two():
    assert [evenly(n) for n in (-1, 0, 1, 2, 3, 4, 7, 8, 1000)] == [1, 1, 1, 2, 2, 4, 4, 8, 512]


def test_more_than_1024_rows_are_cut_by_rows():
    assert cut((1024, 512), 4) == Cut(COLUMNS, 512, 16, 16)
    assert cut((1025, 512), 4) == Cut(ROWS, 1025, 1, 128)
    assert cut((1024, 512), 4).by_columns
    assert not cut((1025, 512), 4).by_columns


@pytest.mark.parametrize(
    ("m", "n", "k", "itemsize", "expected"),
    [
        (256, 512, 784, 4, Cut(COLUMNS, 512, 16, 16)),
        (256, 512, 784, 8, Cut(COLUMNS, 512, 8, 16)),
        (64, 300, 100, 4, Cut(COLUMNS, 300, 16, 8)),  # of nine that have two lines
        (64, 100, 64, 4, Cut(COLUMNS, 100, 16, 2)),  # of 131,072 multiplications at least
        (64, 30, 30, 4, Cut(COLUMNS, 30, 16, 1)),
        (1, 512, 784, 4, Cut(COLUMNS, 512, 128, 4)),  # to read W takes as long as to multiply it by eight rows
        (2000, 64, 64, 4, Cut(ROWS, 2000, 192, 8)),
        (200_000, 64, 128, 4, Cut(ROWS, 200_000, 192, 512)),
    ],
)
def test_products_are_cut_as_what_follows_them_where_that_is_worth_it(m, n, k, itemsize, expected):
    assert dense._along(m, n, k, itemsize) == expected


@pytest.mark.parametrize(
    ("m", "n", "k", "expected"),
    [
        (256, 10, 512, Cut(ROWS, 256, 8, 8)),
        (1024, 100, 2048, Cut(ROWS, 1024, 8, 16)),
        (1024, 128, 2048, Cut(ROWS, 1024, 8, 16)),
        (1024, 129, 2048, Cut(COLUMNS, 129, 16, 4)),
        (64, 10, 100, Cut(ROWS, 64, 8, 1)),
    ],
)
def test_where_no_batch_norm_follows_few_outputs_are_cut_by_rows_as_a_loss_is(m, n, k, expected):
    assert dense._along(m, n, k, 4, ends=True) == expected


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
    assert cut_flat(1_000_000, 4) == Cut(COLUMNS, 1_000_000, 16, 64)  # 122 have 32 KiB
    assert cut_flat(1000, 4) == Cut(COLUMNS, 1000, 16, 1)
    assert cut_flat(10**8, 8) == Cut(COLUMNS, 10**8, 8, 256)


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
        ("moments_of_all", 64, 8, 2),  # 96 rows of partial moments: 48 KiB
        ("normalize", 2048, 1, 32),
    ]
    assert launches("normalize_backward", of_rows("normalize_backward", 2048, 64)) == [
        ("sums_of_blocks", 32, 1, 32),
        ("sums_of_all", 64, 8, 2),
        ("input_of_rows", 2048, 1, 32),
    ]


@pytest.mark.usefixtures("native")
def test_gradients_of_weights_are_cut_by_columns_however_many_rows_there_are():
    """Of few outputs by the columns of x, which are those of the layer before."""
    assert launches("affine_backward", of_rows("affine_backward", 40_000, 30)) == [
        ("activation_backward", 40_000, 1, 128),
        ("column_sums", 21, 1, 1),
        ("gemm_tn_rows", 30, 16, 1),
        ("gemm_nt_rows", 40_000, 192, 128),
    ]
    few = of_rows("affine_backward", 256, 300)
    assert launches("affine_backward", few)[-2:] == [("gemm_tn_rows", 300, 16, 8), ("gemm_nt", 300, 16, 8)]
    without_bias = few._replace(options=few.options | {"bias_gradient": False})
    assert launches("affine_backward", without_bias)[1] == ("gemm_tn", 21, 16, 1)


@pytest.mark.usefixtures("native")
def test_rows_of_a_loss_count_more_than_their_bytes(rng):
    each = loss.EXPENSIVE * 4 * 100
    assert launches("softmax_cross_entropy", softmax(rng, 1000, 100, np.float32))[-2] == (
        "softmax_cross_entropy", 1000, 1, evenly(1000 * each // 16384),
    )  # fmt: skip

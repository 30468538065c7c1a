"""How launches are cut: figures worked by hand. No result depends on them, so no other test would catch a wrong one."""

import numpy as np
import pytest

from bnengine.fused.cpu import batch_norm, dense
from bnengine.fused.cpu._launch import Cut, blocks_of_columns, cut, cut_columns, cut_flat, cut_rows, evenly, kernel
from bnengine.fused.cpu.native import NativeKernel
from bnengine.ops import REGISTRY, using
from bnengine.runtime.memory import Arena
from bnengine.runtime.plan import COLUMNS, ROWS
from tests.contracts.examples import Draw, of_rows, softmax


def array(*shape, dtype=np.float32):
    """Of this size, but of one element."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def test_a_kernel_has_the_cut_and_scratch_of_its_launch():
    assert kernel("commit") == NativeKernel("commit", width=1, unit=1, blocks=1, scratch=0)
    along = Cut(ROWS, 9, 3, 2)
    expected = NativeKernel("normalize<float, relu>", width=9, unit=3, blocks=2, scratch=64)
    assert kernel("normalize", "float", "relu", cut=along, scratch=64) == expected


@pytest.mark.parametrize(("blocks", "even"), [(0, 1), (1, 1), (2, 2), (3, 2), (5, 4), (64, 64), (127, 64)])
def test_blocks_are_powers_of_two(blocks, even):
    assert evenly(blocks) == even


@pytest.mark.parametrize(
    ("columns", "unit", "least", "blocks"),
    [
        (512, 16, 2, 16),
        (500, 16, 2, 16),  # the last one has fewer
        (512, 16, 4, 8),
        (200, 16, 2, 4),  # six of two lines
        (512, 8, 2, 16),  # no more than that, unless each has 128 columns
        (4096, 16, 2, 32),
        (300, 16, 1, 16),
    ],
)
def test_columns_are_cut_into_blocks_of_a_few_units(columns, unit, least, blocks):
    assert blocks_of_columns(columns, unit, least) == blocks


@pytest.mark.parametrize(
    ("rows", "columns", "itemsize", "blocks"),
    [
        (256, 512, 4, 16),
        (256, 512, 8, 16),
        (16, 512, 4, 2),  # 32 KiB: 16 at least are a block
        (8, 512, 4, 1),
        (8, 0, 4, 1),
    ],
)
def test_a_block_of_columns_has_16_kib_at_least(rows, columns, itemsize, blocks):
    assert cut_columns(rows, columns, itemsize) == Cut(COLUMNS, columns, 64 // itemsize, blocks)


@pytest.mark.parametrize(
    ("rows", "columns", "itemsize", "blocks"),
    [(4096, 64, 4, 64), (4096, 64, 8, 128), (3, 2, 4, 1), (1_000_000, 64, 4, 512), (0, 64, 4, 1)],
)
def test_rows_are_cut_into_blocks_of_16_kib_and_at_most_512(rows, columns, itemsize, blocks):
    assert cut_rows(rows, columns, itemsize) == Cut(ROWS, rows, 1, blocks)
    assert cut_rows(rows, columns, itemsize, 16) == Cut(ROWS, rows, 16, blocks)


def test_there_are_no_more_blocks_than_units_of_rows():
    assert cut_rows(100, 4096, 4) == Cut(ROWS, 100, 1, 64)
    assert cut_rows(100, 4096, 4, 16) == Cut(ROWS, 100, 16, 4)  # of seven


def test_more_than_1024_rows_are_cut_by_rows():
    assert cut((1024, 512), 4) == Cut(COLUMNS, 512, 16, 16)
    assert cut((1025, 512), 4) == Cut(ROWS, 1025, 1, 128)
    assert cut((1024, 512), 4).by_columns
    assert not cut((1025, 512), 4).by_columns


@pytest.mark.parametrize(
    ("size", "itemsize", "blocks"), [(1_000_000, 4, 64), (1_000_000, 8, 128), (1000, 4, 1), (10**9, 4, 256)]
)
def test_flat_arrays_are_cut_into_blocks_of_32_kib(size, itemsize, blocks):
    assert cut_flat(size, itemsize) == Cut(COLUMNS, size, 64 // itemsize, blocks)


@pytest.mark.parametrize(
    ("m", "n", "k", "itemsize", "ends", "expected"),
    [
        (256, 512, 784, 4, False, Cut(COLUMNS, 512, 16, 16)),
        (256, 512, 784, 8, False, Cut(COLUMNS, 512, 8, 16)),
        (64, 300, 100, 4, False, Cut(COLUMNS, 300, 16, 8)),
        (64, 100, 64, 4, False, Cut(COLUMNS, 100, 16, 2)),  # 131,072 multiplications at least are a block
        (1, 512, 784, 4, False, Cut(COLUMNS, 512, 128, 4)),  # a single row has panels of eight vectors
        (256, 512, 784, 4, True, Cut(COLUMNS, 512, 16, 16)),
        (256, 129, 64, 4, True, Cut(COLUMNS, 129, 16, 4)),
        (256, 128, 64, 4, True, Cut(ROWS, 256, 8, 16)),  # narrow, and no later launch needs columns
        (256, 10, 512, 4, True, Cut(ROWS, 256, 8, 8)),
        (2000, 64, 64, 4, False, Cut(ROWS, 2000, 192, 8)),
        (200_000, 64, 128, 4, False, Cut(ROWS, 200_000, 192, 512)),
    ],
)
def test_products_are_cut_as_what_follows_them(m, n, k, itemsize, ends, expected):
    assert dense._along(m, n, k, itemsize, ends=ends) == expected


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


def test_a_tile_of_columns_bounds_the_scratch():
    assert batch_norm._scratch(300, cut((10, 300), 4)) == 128 * 128 + 1024
    assert batch_norm._scratch(100, cut((10, 100), 4)) == 128 * 100 + 1024
    assert batch_norm._scratch(300, cut((5000, 300), 4)) == 128 * 300 + 1024


def launches(name, example):
    """(kernel, width, unit, blocks) of every launch of an op."""
    arena = Arena("fused")
    with arena.recording([a for a in example.args if a is not None]) as plan, using("fused"):
        REGISTRY[name](*example.args, memory=arena, **example.options)
    return [
        (kernel.name.partition("<")[0], kernel.width, kernel.unit, kernel.blocks)
        for kernel in (launch.kernel for launch in plan.launches)
    ]


@pytest.mark.usefixtures("native")
def test_every_launch_of_an_op_over_many_rows_is_cut():
    assert launches("batch_norm", next(of_rows("batch_norm", "float32", 2048, 64, "tanh"))) == [
        ("moments_of_blocks", 32, 1, 32),
        ("moments_of_all", 64, 8, 2),  # 96 rows of partial moments: 48 KiB
        ("normalize", 2048, 1, 32),
    ]
    assert launches("normalize_backward", next(of_rows("normalize_backward", "float32", 2048, 64, "tanh"))) == [
        ("sums_of_blocks", 32, 1, 32),
        ("sums_of_all", 64, 8, 2),
        ("input_of_rows", 2048, 1, 32),
    ]


@pytest.mark.usefixtures("native")
def test_few_columns_of_gradients_of_weights_are_cut_by_inputs():
    assert launches("affine_backward", next(of_rows("affine_backward", "float32", 40_000, 30, "tanh"))) == [
        ("activation_backward", 40_000, 1, 128),
        ("column_sums", 21, 1, 1),
        ("gemm_tn_rows", 30, 16, 1),
        ("gemm_nt_rows", 40_000, 192, 128),
    ]


@pytest.mark.usefixtures("native")
def test_rows_of_a_loss_count_eight_times_their_bytes():
    for rows, classes, blocks in ((1000, 100, 128), (64, 10, 2), (64, 16, 2)):
        example = softmax(Draw("float32"), rows, classes)
        assert launches("softmax_cross_entropy", example)[-2] == ("softmax_cross_entropy", rows, 1, blocks)

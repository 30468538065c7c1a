"""The kernel that takes a micro-batch out of the data: every storage, by packs and one by one, bit for bit."""

import numpy as np
import pytest

from bnengine.ops import REGISTRY
from tests.cuda_on_cpu.instances import kernel
from tests.cuda_on_cpu.launch import BLOCK, Launch, simulate, unwritten
from tests.cuda_on_cpu.storage import DOUBLE, STORAGES


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("storage", STORAGES, ids=lambda s: s.name)
def test_rows_are_gathered_bit_for_bit(storage, blocks, rng):
    op, wide = REGISTRY["gather"], np.float64 if storage is DOUBLE else np.float32
    for example in op.contract.examples(rng, "float64"):
        x, target, weights, samples, divisors, order, cursor = example.args
        classes = target.dtype.kind == "i"
        target = target if classes else target.astype(wide)
        weights = None if weights is None else weights.astype(wide)
        divisors = divisors.astype(wide)
        given = (storage.of(x.astype(wide)), target, weights, samples, divisors, order, cursor)
        expected = op.reference(*given, **example.options)
        rows, features = example.options["rows"], int(np.prod(x.shape[1:]))
        widths = (features, *(1 if a is None else int(np.prod(a.shape[1:])) for a in (target, weights)))
        kind = "long long" if classes else ("double" if storage is DOUBLE else "float")
        for vector in (storage.vector, 1) if features % storage.vector == 0 else (1,):
            out = [None if a is None else unwritten(a.shape, a.dtype) for a in expected]
            scalars = (rows, *widths, example.options.get("offset", 0))
            run = kernel("gather.cu", "gather", storage.name, vector, kind)
            found = simulate(Launch(run, (blocks,), given, (), out, (), scalars))
            for name, got, wanted in zip(expected._fields, found, expected, strict=True):
                assert (got is None) == (wanted is None), name
                assert got is None or got.tobytes() == wanted.tobytes(), (name, example.label)


def test_a_row_beyond_two_to_the_31_elements_is_found():
    """Places in x are 64-bit numbers: the low half alone would point into the rows before. Two rows are touched."""
    features, row = 1 << 16, (1 << 15) + 1
    x = np.zeros((row + 1, features), np.float16)
    x[row], x[1] = np.arange(features) % 2000, -1
    order, cursor, out = np.asarray([0, row]), np.asarray([1, 0]), unwritten((1, features), "f2")
    whole = (x, np.zeros(row + 1, np.int64), None, np.zeros(row + 1, np.int64), np.ones(1, np.float32), order, cursor)
    writes = (out, unwritten(1, "i8"), None, unwritten(1, "i8"), unwritten(1, "f4"))
    run = kernel("gather.cu", "gather", "__half", 8, "long long")
    run((4,), BLOCK, [*whole, *writes, 1, features, 1, 1, 0])
    assert out.tobytes() == x[row].tobytes()

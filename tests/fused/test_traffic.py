"""What the kernels of an op move between memory and chip: each array once, 16 bytes at a time.

It does not show in what they compute, and is nearly all of their time.
"""

from typing import Any

import numpy as np
import pytest

from bnengine.fused.cuda import _launch
from bnengine.ops import REGISTRY, Out, using
from bnengine.ops.update import RULES
from bnengine.runtime.memory import Memory
from tests.cuda_on_cpu.module import Traffic
from tests.optimizers import optional, settings_of

ROWS, CHANNELS = 400, 64  # more than a block keeps on the chip
SIZE = ROWS * CHANNELS


def traffic(simulated: Any, name: str, args: Any, options: dict[str, Any], into: Any = None) -> Traffic:
    """The sum over all kernels that an op launches."""
    launched: list[Traffic] = []
    original = _launch.Instance.__call__

    def recorded(self: _launch.Instance, *arguments: Any) -> None:
        original(self, *arguments)
        launched.append(self.function.cpu.traffic)

    with pytest.MonkeyPatch.context() as patched, using("fused"):
        patched.setattr(_launch.Instance, "__call__", recorded)
        given = [simulated.on_device(a) if isinstance(a, np.ndarray) else a for a in args]
        REGISTRY[name](*given, memory=Memory(), into=into, **options)
    return Traffic(*map(sum, zip(*launched, strict=True)))


def calls(rng: np.random.Generator, rows: int, channels: int) -> Any:
    """(op, arguments, options, arrays of the size of x that are read, and that are written)."""
    x, y, dy = (rng.standard_normal((rows, channels)).astype(np.float32) for _ in range(3))
    flat, slot, gradient = x.reshape(-1), np.square(y).reshape(-1), dy.reshape(-1)
    vector = np.ones(channels, np.float32)
    statistics = REGISTRY["moments"].reference(x).batch
    codes = rng.integers(0, channels, rows)
    control = np.zeros(5, np.int64), np.ones(1, bool), np.ones(1, np.float32)
    relu = {"activation": "relu"}
    yield "moments", (x,), {}, 1, 0
    yield "normalize", (x, statistics, vector, vector), relu, 1, 1
    yield "normalize", (x, statistics, vector, vector, dy), relu, 2, 1
    yield "activation", (x,), {"kind": "relu"}, 1, 1
    yield "activation_backward", (dy, x, y), {"kind": "relu"}, 2, 1
    yield "activation_backward", (dy, x, y), {"kind": "gelu"}, 2, 1
    yield "activation_backward", (dy, x, y), {"kind": "identity"}, 1, 1
    yield "total", (x, y), {}, 2, 1
    yield "affine_backward", (dy, x, np.eye(channels, dtype=np.float32), y), {"activation": "tanh"}, 2, 1
    yield "affine_backward", (dy, x, np.eye(channels, dtype=np.float32), y), {}, 1, 0
    yield "softmax_cross_entropy", (x, codes), {"divisor": 1.0}, 1, 1
    yield "binary_cross_entropy", (x, y), {"divisor": 1.0}, 2, 1
    yield "mean_squared_error", (x, y), {"divisor": 1.0}, 2, 1
    for name, rule in RULES.items():
        table = np.ones((1, rule.columns), np.float32)
        for lacking in {0, optional(rule)}:
            slots = [slot.copy() for _ in range(len(rule.slots) - lacking)] + [None] * lacking
            count = len(rule.slots) - lacking
            yield (
                name,
                (flat, gradient, *slots, table, *control),
                {"decay_end": 0, **settings_of(rule)},
                2 + count,
                1 + count,
            )
    yield "average", (flat, gradient, control[1]), {"decay": 0.9}, 2, 1


@pytest.mark.parametrize(("rows", "channels"), [(ROWS, CHANNELS), (13, 64)])
def test_each_array_is_read_and_written_once_16_bytes_at_a_time(rows, channels, simulated, rng):
    for name, args, options, read, written in calls(rng, rows, channels):
        found = traffic(simulated, name, args, options)
        size = 4 * rows * channels
        assert (found.loaded, found.stored) == (read * size, written * size), f"{name}, {options}"
        assert (found.loads, found.stores) == (found.loaded // 16, found.stored // 16), f"{name}, {options}"


@pytest.mark.parametrize(("rows", "read"), [(64, 3), (2000, 6)])
def test_backward_reads_twice_what_the_chip_does_not_hold(rows, read, simulated, rng):
    x, y, dy = (rng.standard_normal((rows, CHANNELS)).astype(np.float32) for _ in range(3))
    statistics, vector = REGISTRY["moments"].reference(x).batch, np.ones(CHANNELS, np.float32)
    found = traffic(simulated, "normalize_backward", (dy, x, y, statistics, vector, vector), {"activation": "relu"})
    assert (found.loaded, found.stored) == (read * x.nbytes, x.nbytes)


def test_dropout_moves_a_byte_for_each_element(simulated, rng):
    x = rng.standard_normal((ROWS, CHANNELS)).astype(np.float32)
    found = traffic(
        simulated, "dropout", (x, np.zeros(1, np.int64), np.arange(ROWS)), {"seed": 1, "layer": 0, "rate": 0.5}
    )
    assert (found.loaded, found.stored) == (x.nbytes, x.nbytes + x.size)
    found = traffic(simulated, "dropout_backward", (x, x > 0), {"rate": 0.5})
    assert (found.loaded, found.stored) == (x.nbytes + x.size, x.nbytes)


def test_what_a_destination_holds_is_read_where_it_is_added_to(simulated, rng):
    x, y = (rng.standard_normal((ROWS, CHANNELS)).astype(np.float32) for _ in range(2))
    into = {"out": Out(simulated.on_device(np.ones_like(x)), adds=True)}
    assert traffic(simulated, "total", (x, y), {}, into).loaded == 3 * x.nbytes


def test_a_row_of_more_classes_than_registers_hold_is_read_again(simulated, rng):
    for classes, read in ((512, 1), (4096, 1), (8192, 2)):
        x = rng.standard_normal((3, classes)).astype(np.float32)
        found = traffic(simulated, "softmax_cross_entropy", (x, np.zeros(3, np.int64)), {"divisor": 1.0})
        assert (found.loaded, found.stored) == (x.nbytes * read, x.nbytes), classes

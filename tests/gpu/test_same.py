"""One seed gives the same start and the same masks on a device as on NumPy, bit for bit."""

import numpy as np
import pytest

from bnengine import ops
from bnengine.network.sequential import Sequential
from bnengine.ops import using
from bnengine.runtime.memory import Arena
from tests.fused.test_step import layers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_and_statistics_start_with_the_same_bits(dtype, device):
    for seed in (0, 2**64 - 1):
        here, there = (
            Sequential(*layers(), backend=backend, dtype=dtype, seed=seed).state_dict()
            for backend in ("numpy", device.backend())
        )
        assert here.keys() == there.keys()
        for name, array in here.items():
            assert np.asarray(there[name]).tobytes() == np.asarray(array).tobytes(), (name, seed)


@pytest.mark.parametrize("mode", ["fused", "reference"])
@pytest.mark.parametrize("features", [1, 7, 64])
def test_dropout_keeps_the_same(features, mode, device):
    samples = np.asarray([0, 1, 2**32 - 1, 12345, 7])
    x = np.ones((len(samples), features), np.float32)
    for seed, layer, step in ((0, 0, 0), (2**64 - 5, 2**31 - 1, 2**32 - 1), (3, 2, 100)):
        options = {"seed": seed, "layer": layer, "rate": 0.4}
        expected = ops.dropout(x, np.asarray([step]), samples, **options)
        backend = device.backend()
        with using(mode):
            got = ops.dropout(*(backend.asarray(a) for a in (x, np.asarray([step]), samples)), **options)
        assert backend.to_numpy(got.keep).tobytes() == expected.keep.tobytes()
        assert backend.to_numpy(got.out).tobytes() == expected.out.tobytes()


def test_a_network_drops_the_same_of_the_same_samples(device, rng):
    x, samples = rng.standard_normal((40, 64)).astype(np.float32), rng.permutation(1000)[:40]
    dropped = []
    for backend, mode in (("numpy", "auto"), (device.backend(), "fused")):
        network = Sequential(*layers()[:4], backend=backend, seed=5)
        given = [network.backend.asarray(a) for a in (x, samples, np.asarray([3]))]
        forward = network.forward(given[0], training=True, memory=Arena(mode), samples=given[1], step=given[2])
        dropped.append(network.backend.to_numpy(forward.output))
    here, there = dropped
    # After relu and dropout a value is 0 for either reason; where one is above 0 by more than rounding, both kept it.
    sure = (here > 1e-4) | (there > 1e-4)
    assert sure.sum() > 100
    assert np.all((here > 0)[sure] == (there > 0)[sure])

"""One training step on the device, with its own kernels, compared with NumPy's: the first thing to know.

`python -m tests.gpu.smoke`: exit status 1 if they disagree, or the step cannot be done; then every op is tried alone,
and those that are wrong are named.
"""

import sys
from typing import Any

import numpy as np

from bnengine.arrays.backend import Backend, get_backend
from bnengine.data import Batch
from bnengine.lab.verify.certificate import Ledger
from bnengine.lab.verify.operations import verify_ops
from bnengine.lab.verify.variants import Variant
from bnengine.layers import Activation, BatchNorm, Dense, Dropout
from bnengine.losses import SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import Adam
from bnengine.runtime.memory import Arena
from bnengine.training.step import Step

ROWS, FEATURES, CLASSES = 96, 24, 10
TOLERANCE = 2.0**-24 * 2**10  # the order of sums in a small network, as a share of a tensor's largest element


def stepped(backend: Backend, mode: Any) -> dict[str, np.ndarray]:
    """Loss, gradients and pending statistics of one step."""
    rng = np.random.default_rng(0)
    layers = Dense(FEATURES, 32), BatchNorm(32), Activation("relu"), Dropout(0.2), Dense(32, CLASSES)
    network = Sequential(*layers, backend=backend, dtype="float32", seed=1)
    step = Step(network, Adam(), SoftmaxCrossEntropy(), clip_norm=1.0, memory=Arena(mode))
    step.schedule([1e-3])
    x, y = rng.standard_normal((ROWS, FEATURES)).astype(np.float32), rng.integers(0, CLASSES, ROWS)
    step([Batch(x, y, None, np.arange(ROWS))])
    fetch = backend.to_numpy
    found = {"loss": fetch(step.state.value), "norm": fetch(step.state.checked.norm)}
    return found | network.export(step.state.gradients, step.state.pending[0])


def disagreements(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
    wrong = []
    for name, array in expected.items():
        error = np.abs(np.float64(got[name]) - np.float64(array))
        allowed = TOLERANCE * max(float(np.abs(array).max(initial=0)), TOLERANCE)
        if not np.all(error <= allowed):
            wrong.append(f"{name} is off by {error.max():.2g}, allowed are {allowed:.2g}")
    return wrong


def wrong_ops(backend: Backend) -> list[str]:
    """The ops whose fused version, or reference on the device, is not within its bound."""
    ledger = Ledger()
    variants = [Variant(backend, "float32", mode) for mode in ("reference", "auto")]
    verify_ops(ledger, Variant(get_backend("numpy"), "float64"), variants, 0)
    return [f"{row.what}: {row.a} against {row.b}" for row in ledger.rows() if not row.ok]


def main() -> None:
    backend = get_backend("cupy")
    try:
        wrong = disagreements(stepped(backend, "fused"), stepped(get_backend("numpy"), "reference"))
    except Exception as error:  # whatever a launch raises: the ops say which one
        wrong = [f"the step raised {type(error).__name__}: {error}"]
    if not wrong:
        print(f"a step of {ROWS} rows agrees with NumPy's")
        return
    print(*wrong, sep="\n")
    ops = wrong_ops(backend)
    print(*ops, sep="\n")
    names = dict.fromkeys(line.split()[1].rstrip(":") for line in ops)
    print(f"{wrong[0]}; wrong ops: {', '.join(names) or 'none alone'}")
    sys.exit(1)


if __name__ == "__main__":
    main()

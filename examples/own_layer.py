"""Write a layer: its parameters, forward and pullback. Train, save and load it like any other."""

import tempfile
from pathlib import Path

import numpy as np

import bnengine as bn
from bnengine.arrays.namespaces import namespace
from bnengine.layers import Layer, deliver, register
from bnengine.layers.initializers import Ones
from bnengine.runtime.flat import Parameter


@register
class Scale(Layer):
    """y = s x, with one trained factor for each feature."""

    def __init__(self, features: int) -> None:
        self.width = features
        self.s = Parameter((features,), Ones(), decays=False)

    def __repr__(self) -> str:
        return f"Scale({self.width})"

    def handles(self):
        return {"s": self.s}

    def config(self):
        return {"features": self.width}

    def forward(self, x, run):
        y = x * self.s.value

        def pullback(dy, grads, *, dx=True):
            grads.put(self.s, namespace(dy).sum(dy * x, axis=0))
            return deliver(dy * self.s.value, dx, run.memory)

        return y, pullback


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 6)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
    layers = bn.Dense(6, 32), bn.BatchNorm(32), bn.Activation("tanh"), Scale(32), bn.Dense(32, 2)
    network = bn.Sequential(*layers)
    history = bn.Trainer(network, learning_rate=1e-2, progress="quiet").fit((x, y), epochs=30, batch_size=32)
    print(network.summary())
    print(f"\ntraining accuracy: {history[-1]['train_accuracy']:.3f}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scaled.safetensors"
        bn.save(path, network)
        same = np.array_equal(bn.load(path).predict(x), network.predict(x))
    print("saved, loaded, and the same:", same)


if __name__ == "__main__":
    main()

"""Train a regression on your own arrays with early stopping, and resume it from a checkpoint with the same bits."""

import tempfile
from pathlib import Path

import numpy as np

import bnengine as bn


def make_trainer() -> bn.Trainer:
    network = bn.Sequential(
        bn.Dense(5, 32), bn.BatchNorm(32), bn.Activation("gelu"),
        bn.Residual(bn.Dense(32, 32), bn.BatchNorm(32)), bn.Activation("relu"),
        bn.Dense(32, 1),
    )  # fmt: skip
    stopping = bn.EarlyStopping(patience=10)
    return bn.Trainer(
        network, bn.AdamW(weight_decay=1e-3), loss="mean_squared_error", learning_rate=3e-3, callbacks=[stopping],
        progress="quiet",
    )  # fmt: skip


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (600, 5)).astype(np.float32)
    y = (np.sin(3 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]).astype(np.float32)
    train, valid = (x[:500], y[:500]), (x[500:], y[500:])

    whole = make_trainer()
    whole.fit(train, epochs=30, validation=valid)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "half.safetensors"
        half = make_trainer()
        half.fit(train, epochs=15, validation=valid)
        half.save(path)
        resumed = make_trainer()
        resumed.resume(path)
        resumed.fit(train, epochs=30, validation=valid)

    a, b = whole.network.state_dict(), resumed.network.state_dict()
    print("epochs:", len(whole.history), " validation loss:", round(whole.history[-1]["valid_loss"], 4))
    print("resumed equals uninterrupted, bit for bit:", all(np.array_equal(a[name], b[name]) for name in a))


if __name__ == "__main__":
    main()

"""Train on the GPU, if CuPy works, and on NumPy: print how the steps run and how closely the two agree."""

import numpy as np

import bnengine as bn


def trained(backend: str) -> bn.Trainer:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 20)).astype(np.float32)
    y = (x[:, :5] ** 2).sum(axis=1) > 4.35
    network = bn.Sequential(
        bn.Dense(20, 64), bn.BatchNorm(64), bn.Activation("relu"), bn.Dropout(0.1),
        bn.Dense(64, 64), bn.BatchNorm(64), bn.Activation("relu"), bn.Dense(64, 2), backend=backend,
    )  # fmt: skip
    trainer = bn.Trainer(network, "adam", learning_rate=bn.schedules.OneCycle(1e-2), progress="quiet")
    trainer.fit((x[:3000], y[:3000].astype(np.int64)), epochs=5, validation=(x[3000:], y[3000:].astype(np.int64)))
    return trainer


def main() -> None:
    backend = bn.get_backend("auto")
    print(f"backend: {backend.name} ({backend.why})")
    trainer = trained(backend.name)
    for how, why in dict.fromkeys((mode.how, mode.why) for mode in trainer.step.modes()):
        print(f"steps run {how}: {why}" if why else f"steps run as one {how.removeprefix('one ')}")
    print("data on the device:", trainer.resident is not None)
    last, on_numpy = trainer.history[-1], trained("numpy").history[-1]
    for name in ("train_loss", "valid_loss", "valid_accuracy"):
        print(f"{name:15} {backend.name} {last[name]:.4f}   numpy {on_numpy[name]:.4f}")


if __name__ == "__main__":
    main()

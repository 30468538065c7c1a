"""Change contrast or brightness: accuracy without batch norm, with training statistics, and with the images' own."""

import numpy as np

import bnengine as bn
from bnengine.inspect import recalibrate, restore

SHIFTS = {
    "clean": lambda x: x,
    "brighter by 0.5": lambda x: x + 0.5,
    "a quarter of the contrast": lambda x: x / 4,
    "noise of 0.4": lambda x: x + 0.4 * np.random.default_rng(0).standard_normal(x.shape).astype(x.dtype),
}


def trained(norm, data):
    layers = [bn.Dense(64, 100), *([bn.BatchNorm(100)] if norm else []), bn.Activation("relu"), bn.Dense(100, 10)]
    trainer = bn.Trainer(bn.Sequential(*layers, seed=0), "sgd", learning_rate=0.1, progress="quiet")
    trainer.fit(data, epochs=30)
    return trainer


def main() -> None:
    digits = bn.load_digits()
    train, valid = bn.data.split_dataset(digits, seed=0)
    x = (digits.x.reshape(len(digits), -1) / 16).astype(np.float32)
    plain, normalized = (trained(norm, (x[train], digits.y[train])) for norm in (False, True))
    for name, shift in SHIFTS.items():
        rows = shift(x[valid]), digits.y[valid]
        accuracies = [trainer.evaluate(rows)["accuracy"] for trainer in (plain, normalized)]
        training = recalibrate(normalized.network, rows)
        accuracies.append(normalized.evaluate(rows)["accuracy"])
        restore(normalized.network, training)
        without, stored, fresh = accuracies
        print(f"{name:26} plain {without:.3f}, batch norm {stored:.3f}, by their own statistics {fresh:.3f}")


if __name__ == "__main__":
    main()

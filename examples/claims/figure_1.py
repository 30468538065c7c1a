"""Figure 1 of the 2015 paper: three layers of 100 sigmoids, their accuracy, and the input of one of the last."""

import numpy as np

import bnengine as bn
from bnengine.lab.explain.nets import look


def layers(norm):
    for inputs in (64, 100, 100):
        yield bn.Dense(inputs, 100, weights=bn.Normal(0.1))
        if norm:
            yield bn.BatchNorm(100)
        yield bn.Activation("sigmoid")
    yield bn.Dense(100, 10, weights=bn.Normal(0.1))


def main() -> None:
    digits = bn.load_digits()
    train, valid = bn.data.split_dataset(digits, seed=0)
    x = (digits.x.reshape(len(digits), -1) / 16).astype(np.float32)
    for norm in (False, True):
        network = bn.Sequential(*layers(norm), seed=0)
        trainer = bn.Trainer(network, "sgd", learning_rate=0.5, progress="quiet")
        print("batch norm" if norm else "plain")
        for epochs in (1, 5, 10, 20, 40):
            trainer.fit((x[train], digits.y[train]), epochs=epochs, batch_size=60)
            accuracy = trainer.evaluate((x[valid], digits.y[valid]))["accuracy"]
            unit = look(network, x[valid], training=True)[0][-2].x[:, 0]
            percentiles = " ".join(f"{p:5.2f}" for p in np.quantile(unit, (0.15, 0.5, 0.85)))
            print(f"  epoch {epochs:2}: accuracy {accuracy:.3f}, percentiles 15, 50, 85: {percentiles}")


if __name__ == "__main__":
    main()

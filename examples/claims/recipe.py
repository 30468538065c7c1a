"""Count the epochs to 95 % accuracy without and with batch norm: gradient descent, momentum, RMSprop and Adam."""

import numpy as np

import bnengine as bn

METHODS = {
    "gradient descent": (bn.SGD(), 0.5),
    "momentum": (bn.SGD(momentum=0.9), 0.05),
    "RMSprop": (bn.RMSprop(), 0.002),
    "Adam": (bn.Adam(), 0.002),
}
MAX_EPOCHS = 25


def layers(norm):
    for _ in range(3):
        yield bn.Dense(64, 64)
        if norm:
            yield bn.BatchNorm(64)
        yield bn.Activation("sigmoid")
    yield bn.Dense(64, 10)


def main() -> None:
    digits = bn.load_digits()
    train, valid = bn.data.split_dataset(digits, seed=0)
    x = digits.x.reshape(len(digits), -1).astype(np.float32)
    x = (x - x[train].mean(0)) / (x[train] - x[train].mean(0)).std()
    for name, (method, rate) in METHODS.items():
        needed = []
        for norm in (False, True):
            trainer = bn.Trainer(bn.Sequential(*layers(norm), seed=0), method, learning_rate=rate, progress="quiet")
            for epoch in range(1, MAX_EPOCHS + 1):
                trainer.fit((x[train], digits.y[train]), epochs=epoch)
                if trainer.evaluate((x[valid], digits.y[valid]))["accuracy"] >= 0.95:
                    break
            needed.append(epoch)
        print(f"{name:17} plain {needed[0]:2} epochs, batch norm {needed[1]:2}")


if __name__ == "__main__":
    main()

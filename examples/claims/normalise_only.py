"""Is normalizing without gamma and beta enough? Compare three networks: plain, normalized only, and batch norm."""

import numpy as np

import bnengine as bn


def layers(activation, norm):
    for inputs in (64, 64):
        yield bn.Dense(inputs, 64)
        if norm != "plain":
            yield bn.BatchNorm(64, gamma=norm == "batch norm", beta=norm == "batch norm")
        yield bn.Activation(activation)
    yield bn.Dense(64, 10)


def main() -> None:
    digits = bn.load_digits()
    train, valid = bn.data.split_dataset(digits, seed=0)
    x = digits.x.reshape(len(digits), -1).astype(np.float32)
    x = (x - x[train].mean(0)) / (x[train] - x[train].mean(0)).std()
    for activation in ("relu", "sigmoid"):
        for norm in ("plain", "normalized only", "batch norm"):
            network = bn.Sequential(*layers(activation, norm), seed=0)
            trainer = bn.Trainer(network, "sgd", learning_rate=0.5, progress="quiet")
            trainer.fit((x[train], digits.y[train]), epochs=25)
            measured = trainer.evaluate((x[valid], digits.y[valid]))
            print(f"{activation:8} {norm:16} accuracy {measured['accuracy']:.3f}, loss {measured['loss']:.3f}")


if __name__ == "__main__":
    main()

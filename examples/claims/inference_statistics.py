"""Running statistics are wrong after a short training on inputs with a large mean; exact statistics repair it."""

import numpy as np

import bnengine as bn
from bnengine.inspect import recalibrate, statistics_of


def main() -> None:
    digits = bn.load_digits()
    train, valid = bn.data.split_dataset(digits, seed=0)
    x = digits.x.reshape(len(digits), -1).astype(np.float32)
    x = (x - x[train].mean(0)) / (x[train] - x[train].mean(0)).std() + 10
    network = bn.Sequential(
        bn.Dense(64, 64), bn.BatchNorm(64, decay=0.99), bn.Activation("relu"), bn.Dense(64, 10), seed=0
    )
    trainer = bn.Trainer(network, "sgd", learning_rate=0.1, progress="quiet")
    trainer.fit((x[train], digits.y[train]), epochs=4)
    steps, held_out = trainer.step.report().steps, (x[valid], digits.y[valid])

    print(f"after {steps} steps, by running statistics: accuracy {trainer.evaluate(held_out)['accuracy']:.3f}")
    old = recalibrate(network, (x[train], digits.y[train]))["1.statistics"]
    print(f"by the exact statistics of the training rows: accuracy {trainer.evaluate(held_out)['accuracy']:.3f}")

    _, mean, var = statistics_of(network)["1.statistics"]
    error, remaining = np.abs(old[1] - mean) / np.sqrt(var), 0.99**steps * np.abs(mean) / np.sqrt(var)
    print(f"error of the running mean: {error.mean():.2f} sigma; 0.99^{steps} |mu|/sigma is {remaining.mean():.2f}")


if __name__ == "__main__":
    main()

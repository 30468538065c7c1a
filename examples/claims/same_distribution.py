"""Print what moves while a network trains: the means of the hidden units, and gamma, beta and W per epoch."""

import numpy as np

import bnengine as bn
from bnengine.lab.explain.nets import look


def network(norm):
    layers = []
    for inputs in (64, 64):
        layers += [bn.Dense(inputs, 64), *([bn.BatchNorm(64)] if norm else []), bn.Activation("relu")]
    return bn.Sequential(*layers, bn.Dense(64, 10), seed=0)


def main() -> None:
    digits = bn.load_digits()
    x = digits.x.reshape(len(digits), -1).astype(np.float32)
    x = (x - x.mean(0)) / (x - x.mean(0)).std()
    for norm in (False, True):
        net = network(norm)
        trainer = bn.Trainer(net, "sgd", learning_rate=0.1, progress="quiet")
        before, means = net.state_dict(), []
        for epoch in range(1, 7):
            trainer.fit((x, digits.y), epochs=epoch)
            hidden = look(net, x, training=True)[0][-3].y  # the input of the second activation
            means.append(hidden.mean(0))
            after = net.state_dict()
            if norm:
                change = {k: np.sqrt(sum(np.sum((after[n] - before[n]) ** 2) for n in after if n.endswith(k)))
                          for k in ("W", "gamma", "beta")}  # fmt: skip
                print(f"epoch {epoch}: changes " + ", ".join(f"{k} {v:.3f}" for k, v in change.items()))
                print(f"         batch mean less beta: {np.abs(means[-1] - after['4.beta']).max():.0e}")
            before = after
        drift = np.abs(means[-1] - means[0]) / hidden.std(0)
        print(f"{'batch norm' if norm else 'plain'}: means of layer 2 drift by {drift.mean():.2f} deviations\n")


if __name__ == "__main__":
    main()

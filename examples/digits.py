"""Train a batch-normalized network on handwritten digits, save it, load it, and predict from raw images."""

import tempfile
from pathlib import Path

import bnengine as bn


def main() -> None:
    digits = bn.load_digits()
    train, valid = bn.data.split_dataset(digits, seed=0)
    scaling = bn.Preprocessing.fit(digits, train)
    network = bn.Sequential(
        bn.Dense(64, 100), bn.BatchNorm(100), bn.Activation("relu"),
        bn.Dense(100, 100), bn.BatchNorm(100), bn.Activation("relu"),
        bn.Dense(100, 10),
    )  # fmt: skip
    print(network.summary(), "\n")

    def rows(indices):
        return bn.ArraySource(digits.x, digits.y, preprocessing=scaling, indices=indices)

    trainer = bn.Trainer(network, "adam", learning_rate=bn.schedules.OneCycle(5e-3))
    history = trainer.fit(rows(train), epochs=20, batch_size=64, validation=rows(valid))
    print(f"\nvalidation accuracy after {len(history)} epochs: {history[-1]['valid_accuracy']:.4f}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.safetensors"
        bn.save(path, network)
        loaded = bn.load(path)
        print(f"saved and loaded, {path.stat().st_size:,} bytes")
    first = valid[:10]
    print("labels:     ", digits.y[first])
    print("predictions:", bn.predict(loaded, digits.x[first]).labels)


if __name__ == "__main__":
    main()

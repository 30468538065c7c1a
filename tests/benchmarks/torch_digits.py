"""`bnengine train digits --no-plot` as a user of PyTorch would write it; `cold_start` times both.

The same data and split, 64-100-100-10 with batch norm and ReLU, Adam with a one-cycle rate up to 0.005, batches of 64,
validation and a checkpoint after each epoch, a line of JSON each.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn


def network() -> nn.Sequential:
    """Dense, batch norm, ReLU, twice, and the logits."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((64, 100), (100, 100)):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(100, 10))


def data(path: Path) -> tuple[torch.Tensor, ...]:
    """Training and validation rows, 80 to 20, centered by the training rows."""
    with np.load(path) as archive:
        x, y = archive["x"].reshape(-1, 64).astype(np.float32), archive["y"].astype(np.int64)
    rows = np.random.default_rng(0).permutation(len(x))
    train, valid = rows[: len(x) * 4 // 5], rows[len(x) * 4 // 5 :]
    x = (x - x[train].mean(axis=0)) / x[train].std()
    return tuple(map(torch.from_numpy, (x[train], y[train], x[valid], y[valid])))


def main() -> None:
    """Train, and write model.pt and metrics.jsonl into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("digits", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    torch.set_num_threads(1)  # a network this small is faster on one thread, especially on a busy machine
    torch.manual_seed(0)
    x, y, x_valid, y_valid = data(options.digits)
    model, loss_of, batch = network(), nn.CrossEntropyLoss(), 64
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005, fused=True)
    steps = options.epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.005, total_steps=steps)
    with (options.out / "metrics.jsonl").open("w") as log:
        for epoch in range(options.epochs):
            model.train()
            order, total = torch.randperm(len(x)), torch.zeros(())
            for rows in order.split(batch):
                optimizer.zero_grad()
                loss = loss_of(model(x[rows]), y[rows])
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.detach() * len(rows)
            model.eval()
            with torch.inference_mode():
                logits = model(x_valid)
                accuracy = float((logits.argmax(dim=1) == y_valid).float().mean())
                figures = {
                    "epoch": epoch,
                    "train_loss": float(total) / len(x),
                    "valid_loss": float(loss_of(logits, y_valid)),
                }
            log.write(json.dumps({**figures, "valid_accuracy": accuracy}) + "\n")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, options.out / "model.pt")
    print(f"valid_accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()

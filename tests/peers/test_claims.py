"""Three claims about batch norm repeated in plain PyTorch: the same verdicts by the same parts."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from bnengine.lab.explain import Setting, claim_of, verdict_of
from bnengine.lab.explain.gamma_beta_redundant import RATES, WORKS
from bnengine.lab.explain.recipe import EVERY, GOAL, METHODS
from bnengine.lab.explain.setting import Draw

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.usefixtures("torch")]
SEEDS = range(5)
BATCH, WIDTH = 64, 64
setting = Setting(backend="numpy")


def perceptron(hidden: int, norm: str, activation: str, seed: int) -> Any:
    """PyTorch's own layers, weights by He's normal, biases at 0."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    layers, width = [], setting.features
    for _ in range(hidden):
        layers.append(nn.Linear(width, WIDTH, bias=norm == "none"))
        if norm != "none":
            layers.append(nn.BatchNorm1d(WIDTH, affine=norm == "batch"))
        layers.append(nn.ReLU() if activation == "relu" else nn.Sigmoid())
        width = WIDTH
    layers.append(nn.Linear(width, setting.classes))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def tensors(draw: Draw) -> tuple[Any, Any, Any, Any]:
    import torch

    x, y, x_valid, y_valid = (torch.from_numpy(np.ascontiguousarray(a)) for a in draw)
    return x.float(), y, x_valid.float(), y_valid


def trained(network: Any, optimizer: Any, x: Any, y: Any, steps: int) -> Iterator[int]:
    """The steps done, after each; full batches of a new permutation in every epoch."""
    import torch

    network.train()
    batches: list[Any] = []
    for done in range(1, steps + 1):
        if not batches:
            batches = list(torch.randperm(len(x))[: len(x) // BATCH * BATCH].split(BATCH))
        rows = batches.pop()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
        optimizer.step()
        yield done


def evaluated(network: Any, x: Any, y: Any) -> tuple[float, float]:
    """Accuracy and loss in evaluation mode."""
    import torch

    network.eval()
    with torch.no_grad():
        output = network(x)
        loss = float(torch.nn.functional.cross_entropy(output, y))
    network.train()
    return float((output.argmax(dim=1) == y).double().mean()), loss


def after(network: Any, rate: float, draw: Draw, steps: int) -> tuple[float, float]:
    import torch

    x, y, x_valid, y_valid = tensors(draw)
    for _ in trained(network, torch.optim.SGD(network.parameters(), rate), x, y, steps):
        pass
    return evaluated(network, x_valid, y_valid)


def verdict(name: str, figures: Callable[[int], dict[str, float]]) -> str:
    found = [figures(seed) for seed in SEEDS]
    return verdict_of(claim_of(name).judge({key: [each[key] for each in found] for key in found[0]}))


def fixed(network: Any, x: Any) -> Any:
    """Each BatchNorm normalizes by its mean and biased variance on x for good; gamma and beta are trained."""
    import torch
    from torch import nn

    with torch.no_grad():
        for layer in network:
            if isinstance(layer, nn.BatchNorm1d):
                layer.running_mean.copy_(x.mean(dim=0))
                layer.running_var.copy_(x.var(dim=0, correction=0))
                layer.eval()
                layer.train = lambda _mode=True: None  # stays so when the network trains
            x = layer(x)
    return network


def redundant(seed: int) -> dict[str, float]:
    import torch

    draw = setting.raw(seed)
    x, y, *_ = tensors(draw)
    first, labels = x[:BATCH], y[:BATCH]
    made = {
        "batch norm": lambda: perceptron(2, "batch", "relu", seed),
        "affine": lambda: fixed(perceptron(2, "batch", "relu", seed).double(), first.double()).float(),
        "plain": lambda: perceptron(2, "none", "relu", seed),
    }
    outputs, gradients = {}, {}
    for name in ("batch norm", "affine"):
        network = made[name]().double()
        outputs[name] = network(first.double())
        torch.nn.functional.cross_entropy(outputs[name], labels).backward()
        gradients[name] = network[0].weight.grad.flatten()
    a, b = gradients.values()
    apart = (outputs["batch norm"] - outputs["affine"]).abs().max() / outputs["batch norm"].abs().max()
    largest = {
        name: max([RATES[0], *(rate for rate in RATES if after(make(), rate, draw, 200)[0] >= WORKS)])
        for name, make in made.items()
    }
    return {
        "same_batch": float(apart.detach()),
        "cosine_raw": float(a @ b / (a.norm() * b.norm())),
        "norms_raw": float(b.norm() / a.norm()),
        "over_affine": largest["batch norm"] / largest["affine"],
        "over_plain": largest["batch norm"] / largest["plain"],
    }


def normalize_only(seed: int) -> dict[str, float]:
    from torch import nn

    draw = setting.centered(seed)
    relu, sigmoid = (
        {norm: after(perceptron(2, norm, kind, seed), 0.5, draw, 600) for norm in ("normalize", "batch")}
        for kind in ("relu", "sigmoid")
    )
    deep = {norm: after(perceptron(5, norm, "sigmoid", seed), 0.1, draw, 600)[0] for norm in ("none", "normalize")}
    binary = draw._replace(y=(draw.y == 0).astype(np.int64), y_valid=(draw.y_valid == 0).astype(np.int64))
    outputs = [
        after(nn.Sequential(nn.Linear(setting.features, 2), nn.BatchNorm1d(2, affine=affine)), 0.5, binary, 600)[1]
        for affine in (False, True)
    ]
    return {
        "relu_gain": relu["batch"][0] - relu["normalize"][0],
        "sigmoid_loss": sigmoid["batch"][1] - sigmoid["normalize"][1],
        "sigmoid_5_normalise": deep["normalize"],
        "sigmoid_5_none": deep["none"],
        "output_gain": outputs[0] - outputs[1],
    }


def recipe(seed: int) -> dict[str, float]:
    import torch

    x, y, x_valid, y_valid = tensors(setting.centered(seed))
    made = {
        "SGD": lambda p, rate: torch.optim.SGD(p, rate),
        "momentum": lambda p, rate: torch.optim.SGD(p, rate, momentum=0.9),
        "RMSprop": lambda p, rate: torch.optim.RMSprop(p, rate, alpha=0.99),
        "Adam": lambda p, rate: torch.optim.Adam(p, rate),
    }

    def steps(method: str, activation: str, norm: str, rate: float) -> float:
        network = perceptron(3, norm, activation, seed)
        for done in trained(network, made[method](network.parameters(), rate), x, y, 600):
            if done % EVERY == 0 and evaluated(network, x_valid, y_valid)[0] >= GOAL:
                return done
        return 600

    ratios: dict[str, list[float]] = {"sigmoid": [], "relu": []}
    slowest = 0.0
    for method, (_, *rates) in METHODS.items():
        for (activation, found), rate in zip(ratios.items(), rates, strict=True):
            plain, normalized = (steps(method, activation, norm, rate) for norm in ("none", "batch"))
            found.append(plain / normalized)
            slowest = max(slowest, normalized) if activation == "sigmoid" else slowest
    return {"slowest": slowest, "least_ratio": min(ratios["sigmoid"]), "least_relu": min(ratios["relu"])}


def test_gamma_and_beta_are_not_redundant_in_pytorch_either():
    assert verdict("gamma-beta-redundant", redundant) == "does not hold"


def test_normalizing_alone_is_enough_in_pytorch_too():
    assert verdict("normalise-only", normalize_only) == "does not hold"


def test_the_recipe_works_in_pytorch_too():
    assert verdict("recipe", recipe) == "holds within limits"

"""PyTorch's own op for each of ours, on the same numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .kernels import ADAM_OPTIONS, LR, RATE, places_of, targets
from .machine import BLOCK

Call = Callable[[], Any]


def peer(torch: Any, name: str, shape: tuple[int, ...], dtype: str, device: str) -> Call:
    """The op called `name`; its result is the one that ours is compared with."""
    return PEERS[name](Inputs(torch, dtype, device), shape)


class Inputs:
    """The numbers that `Machine.random` gives, as tensors."""

    def __init__(self, torch: Any, dtype: str, device: str) -> None:
        self.torch, self.dtype, self.device = torch, getattr(torch, dtype), device

    def random(self, shape: tuple[int, ...], seed: int, dtype: Any = None) -> Any:
        """Standard normal numbers, a block of them repeated."""
        size = int(np.prod(shape))
        block = np.random.default_rng(seed).standard_normal(min(size, BLOCK), dtype=np.float32)
        held = self.torch.from_numpy(block).to(self.device)
        return held.repeat(-(-size // len(block)))[:size].reshape(shape).to(dtype or self.dtype)

    def put(self, array: Any) -> Any:
        """A NumPy array on the device."""
        return self.torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def batch_norm(given: Inputs, shape: tuple[int, ...]) -> Call:
    torch = given.torch
    x, dy = given.random(shape, 1).requires_grad_(), given.random(shape, 2)
    gamma, beta = (given.random(shape[1:], seed, torch.float32).requires_grad_() for seed in (3, 4))

    def call() -> Any:
        y = torch.nn.functional.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-5)
        return torch.autograd.grad(y, (x, gamma, beta), dy)[0]

    return call


def adam(given: Inputs, shape: tuple[int, ...]) -> Call:
    p = given.random(shape, 1).requires_grad_()
    p.grad = given.random(shape, 2)
    betas = ADAM_OPTIONS["beta1"], ADAM_OPTIONS["beta2"]
    optimizer = given.torch.optim.Adam([p], lr=LR, betas=betas, eps=ADAM_OPTIONS["eps"], fused=True)

    def call() -> Any:
        optimizer.step()
        return p.detach()

    return call


def softmax(given: Inputs, shape: tuple[int, ...]) -> Call:
    torch = given.torch
    logits, classes = given.random(shape, 1).requires_grad_(), given.put(targets(shape))

    def call() -> Any:
        return torch.autograd.grad(torch.nn.functional.cross_entropy(logits, classes), logits)[0]

    return call


def dropout(given: Inputs, shape: tuple[int, ...]) -> Call:
    torch = given.torch
    x, dy = given.random(shape, 1).requires_grad_(), given.random(shape, 2)

    def call() -> Any:
        return torch.autograd.grad(torch.nn.functional.dropout(x, RATE, training=True), x, dy)[0]

    return call


def affine(given: Inputs, shape: tuple[int, ...]) -> Call:
    torch, width = given.torch, shape[1]
    x, dy = given.random(shape, 1).requires_grad_(), given.random(shape, 2)
    weight = given.random((width, width), 3).T.contiguous().requires_grad_()
    bias = given.random((width,), 4).requires_grad_()

    def call() -> Any:
        y = torch.relu(torch.nn.functional.linear(x, weight, bias))
        torch.autograd.grad(y, (x, weight, bias), dy)
        return y.detach()

    return call


def norm(given: Inputs, shape: tuple[int, ...]) -> Call:
    gradients = given.random(shape, 1)
    return lambda: given.torch.linalg.vector_norm(gradients).reshape(1)


def gather(given: Inputs, shape: tuple[int, ...]) -> Call:
    rows = shape[0]
    x, places = given.random((2 * rows, shape[1]), 1), given.put(places_of(rows)[:rows])
    return lambda: x.index_select(0, places)


PEERS: dict[str, Callable[[Inputs, tuple[int, ...]], Call]] = {
    "batch_norm": batch_norm,
    "adam": adam,
    "softmax": softmax,
    "dropout": dropout,
    "affine": affine,
    "norm": norm,
    "gather": gather,
}

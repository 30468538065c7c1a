"""PyTorch's own op for each of ours, on the same numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .kernels import ADAM_OPTIONS, LR, RATE, places_of, targets
from .machine import BLOCK

Call = Callable[..., Any]


def peer(
    torch: Any, name: str, shape: tuple[int, ...], dtype: str, device: str, *, compiled: bool = False
) -> Call:  # fmt: skip
    """The op called `name`; its result is the one that ours is compared with. `compiled`: batch norm and loss only."""
    return PEERS[name](Inputs(torch, dtype, device, compiled), shape)


class Inputs:
    """The numbers that `Machine.random` gives, as tensors."""

    def __init__(self, torch: Any, dtype: str, device: str, compiled: bool = False) -> None:
        self.torch, self.dtype, self.device = torch, getattr(torch, dtype), device
        self.wrapped: Callable[[Call], Call] = torch.compile if compiled else lambda function: function

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

    @given.wrapped
    def forward() -> Any:
        return torch.nn.functional.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-5)

    return lambda: torch.autograd.grad(forward(), (x, gamma, beta), dy)[0]


def adam(given: Inputs, shape: tuple[int, ...]) -> Call:
    """Of one tensor (n,), or of several (tensors, n)."""
    whole, gradients = (given.random(shape, seed) for seed in (1, 2))
    tensors = list(whole) if len(shape) > 1 else [whole]
    for p, g in zip(tensors, gradients if len(shape) > 1 else [gradients], strict=True):
        p.requires_grad_().grad = g
    betas = ADAM_OPTIONS["beta1"], ADAM_OPTIONS["beta2"]
    optimizer = given.torch.optim.Adam(tensors, lr=LR, betas=betas, eps=ADAM_OPTIONS["eps"], fused=True)

    def call() -> Any:
        optimizer.step()
        return whole.detach()

    return call


def softmax(given: Inputs, shape: tuple[int, ...]) -> Call:
    torch = given.torch
    logits, classes = given.random(shape, 1).requires_grad_(), given.put(targets(shape))

    @given.wrapped
    def forward() -> Any:
        return torch.nn.functional.cross_entropy(logits, classes)

    return lambda: torch.autograd.grad(forward(), logits)[0]


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

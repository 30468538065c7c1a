"""PyTorch as a contender at its best settings: the same weights, batches, rule and precision. Needs PyTorch."""

import logging
import os
import warnings
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ..._typing import Array
from ...network.precision import PrecisionName
from .cases import COMPILE
from .machine import Machine
from .ops import ADAM_EPS, BETA1, BETA2, EPS, LR, RATE
from .subjects import SAMPLED, Call, Peer, Subject, Training
from .workloads import LEARNING_RATE, Data, Workload

WARM_UP = 3  # steps on a side stream before a capture, as PyTorch's documentation says
TRAINED = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}


class TorchStep(Training):
    """A PyTorch network and its training step. Rows are gathered on the device by an order uploaded once an epoch.

    "compile" compiles gather, forward and loss as one function, with their backward; the optimizer is PyTorch's fused
    Adam. "CUDA graph" captures the whole step; what changes between steps is a number on the device. Precision
    "bfloat16" is autocast.
    """

    def __init__(
        self, workload: Workload, data: Data, device: Any, precision: PrecisionName = "highest", mode: str = "eager"
    ) -> None:
        super().__init__(workload, data)
        self.autocast, self.on_gpu = precision == "bfloat16", device.type == "cuda"
        held = 0
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            held = int(torch.cuda.memory_allocated())
        orders = [torch.from_numpy(order) for order in data.orders]
        self.orders = [order.pin_memory() for order in orders] if self.on_gpu else orders
        self.x, self.y = (torch.from_numpy(a).to(device) for a in (data.x, data.y))
        if self.autocast:  # as ours stores them; autocast would convert them in every step
            self.x = self.x.to(torch.bfloat16)
        self.order = self.orders[0].to(device, copy=True)
        self.cursor = torch.zeros(1, dtype=torch.int64, device=device)
        self.places = torch.arange(workload.batch, device=device)
        self.model = network(workload).to(device).train()
        self.initial = {name: value.clone() for name, value in self.model.state_dict().items()}
        graph, self.compiled = mode == "CUDA graph", mode.startswith("compile")
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=LEARNING_RATE, eps=ADAM_EPS, fused=True, capturable=self.on_gpu and graph
        )
        self.forward: Callable[..., Any] = self._loss
        self.graph: Any = None
        self.value: Any = None
        if self.compiled:
            for array in (self.x, self.y):  # else each replay of the compiler's graph begins with a copy of all data
                torch._dynamo.mark_static_address(array)
            self.forward = torch.compile(self._loss, mode="max-autotune" if mode.endswith("max-autotune") else None)
        if graph:
            self._capture()
        self.run(WARM_UP)
        self.peak_bytes = int(torch.cuda.max_memory_allocated()) - held if self.on_gpu else None
        self.start()

    def reset(self) -> None:
        """Reset weights, optimizer and cursor in place, because a graph reads them there."""
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                value.copy_(self.initial[name])
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()

    def go(self, epoch: int, batch: int, _most: int) -> int:
        if batch == 0:
            self.order.copy_(self.orders[epoch], non_blocking=True)
            self.cursor.zero_()
        if self.graph is not None:
            self.graph.replay()
            return 1
        if self.compiled and self.on_gpu:
            torch.compiler.cudagraph_mark_step_begin()
        m = self.workload.batch
        self.value = self._trained(self.forward, self.order[batch * m : (batch + 1) * m])
        return 1

    def loss(self) -> float:
        return float(self.value)

    def _trained(self, forward: Callable[..., Any], rows: Any) -> Any:
        self.optimizer.zero_grad(set_to_none=True)
        loss = forward(rows)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _loss(self, rows: Any) -> Any:
        x, y = self.x.index_select(0, rows), self.y.index_select(0, rows)
        if not self.autocast:
            return functional.cross_entropy(self.model(x), y)
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            output = self.model(x).float()
        return functional.cross_entropy(output, y)

    def whole_step(self) -> Any:
        """Run a step on the rows at the cursor and advance it: the same launches every time."""
        loss = self._trained(self._loss, self.order.index_select(0, self.cursor + self.places))
        self.cursor.add_(self.workload.batch).remainder_(self.workload.rows)
        return loss

    def _capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.whole_step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.value = self.whole_step()
        self.graph = graph


def network(workload: Workload, trained: bool = False) -> Any:
    """Build the workload's network in PyTorch, with our weights and running statistics."""
    *hidden, last = workload.blocks(trained)
    layers = list[Any]()
    for (inputs, outputs), block in zip(workload.pairs, hidden, strict=False):
        linear, norm = (
            torch.nn.Linear(inputs, outputs, bias=False),
            torch.nn.BatchNorm1d(outputs, eps=EPS, momentum=0.1),
        )
        norm.load_state_dict({name: torch.from_numpy(block[ours]) for name, ours in TRAINED.items()}, strict=False)
        layers += [linear, norm, torch.nn.ReLU()]
    output = torch.nn.Linear(*workload.pairs[-1])
    output.bias.data = torch.from_numpy(last["b"])
    for linear, block in zip([*layers[::3], output], [*hidden, last], strict=True):
        linear.weight.data = torch.from_numpy(np.ascontiguousarray(block["W"].T))
    return torch.nn.Sequential(*layers, output)


def tidy(role: str) -> None:
    """Release cached memory and compiled code; multiply in full precision again."""
    torch.set_float32_matmul_precision("highest")
    if "compile" in role:
        torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class TorchPeer(Peer):
    """PyTorch in one of its modes."""

    cuts = True

    def __init__(self, role: str, machine: Machine) -> None:
        super().__init__(version=str(torch.__version__))
        self.mode, self.compiled = role.removeprefix("PyTorch "), role == COMPILE
        self.device = torch.device("cuda" if machine.on_gpu else "cpu")
        if not machine.on_gpu:
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
            if self.compiled:  # on a GPU, a reset would discard what another contender compiled
                torch._dynamo.reset()

    def subject(self, kind: str, given: dict[str, Any], bounded: bool) -> Subject:
        """Make the subject without the compiler's advice and its reports of interrupted work."""
        torch.set_float32_matmul_precision("high" if given.get("precision") == "tf32" else "highest")
        logging.disable(logging.CRITICAL)
        try:
            with warnings.catch_warnings(action="ignore"):
                return super().subject(kind, given, bounded)
        finally:
            logging.disable(logging.NOTSET)

    def training(self, workload: Workload, data: Data, precision: PrecisionName, _at_once: bool) -> TorchStep:
        step = TorchStep(workload, data, self.device, precision, self.mode)
        self.facts["peak_bytes"] = step.peak_bytes
        return step

    def prediction(self, workload: Workload, rows: Array) -> Subject:
        """The network in evaluation mode, without gradients; compiled, its weights are constants."""
        model, x = network(workload, trained=True).eval(), torch.from_numpy(rows)
        forward = torch.compile(model, options={"freezing": True}) if self.compiled else model

        def call() -> Any:
            with torch.no_grad() if self.compiled else torch.inference_mode():
                return forward(x)

        return self.called(call)

    def put(self, array: Array, dtype: str, shape: tuple[int, ...]) -> Any:
        block = torch.from_numpy(np.ravel(array)).to(self.device).to(getattr(torch, dtype))
        return block.repeat(-(-prod(shape) // array.size))[: prod(shape)].reshape(shape)

    def host(self, result: Any) -> Array:
        return result.detach().reshape(-1)[:SAMPLED].to("cpu", torch.float32).numpy()

    def op(self, op: str, arrays: list[Any]) -> Subject:
        return self.called(OPS[op](torch.compile if self.compiled else lambda function: function, *arrays))


def gradient(forward: Callable[..., Any], inputs: tuple[Any, ...], dy: Any = None) -> Call:
    """Return a call of forward and backward; its result is the gradient of the first input."""
    for tensor in inputs:
        tensor.requires_grad_()
    return lambda: torch.autograd.grad(forward(), inputs, dy)[0]


def _batch_norm(wrap: Any, x: Any, dy: Any, gamma: Any, beta: Any) -> Call:
    forward = wrap(lambda: functional.batch_norm(x, None, None, gamma, beta, training=True, eps=EPS))
    return gradient(forward, (x, gamma, beta), dy)


def _adam(_wrap: Any, p: Any, g: Any, *_ours: Any) -> Call:
    tensors = list(p) if p.ndim > 1 else [p]
    for tensor, of_it in zip(tensors, g if p.ndim > 1 else [g], strict=True):
        tensor.requires_grad_().grad = of_it
    step = torch.optim.Adam(tensors, lr=LR, betas=(BETA1, BETA2), eps=ADAM_EPS, fused=True).step
    return lambda: (step(), p)[1]


def _affine(_wrap: Any, x: Any, dy: Any, W: Any, b: Any) -> Call:
    inputs, outputs = (x, W.T.contiguous(), b), list[Any]()

    def forward() -> Any:
        outputs[:] = [torch.relu(functional.linear(*inputs))]
        return outputs[0]

    both = gradient(forward, inputs, dy)
    return lambda: (both(), outputs[0])[1]


def _gather(_wrap: Any, x: Any, _classes: Any, _samples: Any, _total: Any, order: Any, _cursor: Any) -> Call:
    places = order[: len(order) // 2].contiguous()
    return lambda: x.index_select(0, places)


OPS: dict[str, Callable[..., Call]] = {
    "batch_norm": _batch_norm,
    "adam": _adam,
    "softmax": lambda wrap, z, labels, _total: gradient(wrap(lambda: functional.cross_entropy(z, labels)), (z,)),
    "dropout": lambda _wrap, x, dy, *_ours: gradient(lambda: functional.dropout(x, RATE, training=True), (x,), dy),
    "affine": _affine,
    "check_step": lambda _wrap, gradients, *_ours: lambda: torch.linalg.vector_norm(gradients).reshape(1),
    "gather": _gather,
}

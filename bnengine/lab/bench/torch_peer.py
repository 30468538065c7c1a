"""PyTorch as a contender at its best settings: the same weights, batches, rule and precision. Needs PyTorch."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
import torch

from ..._typing import Array
from ...network.precision import PrecisionName
from .agreement import losses
from .cases import COMPILE
from .machine import Machine
from .ops import normal_block
from .subjects import Subject, op_of, repeated, sampled, sampled_rows
from .workloads import LEARNING_RATE, Data, Workload

WARM_UP = 3  # steps on a side stream before a capture, as PyTorch's documentation says


class TorchStep:
    """A PyTorch network and its training step. Rows are gathered on the device by an order uploaded once an epoch.

    "compile" compiles gather, forward and loss as one function, with their backward; the optimizer is PyTorch's fused
    Adam. "CUDA graph" captures the whole step; what changes between steps is a number on the device. Precision
    "bfloat16" is autocast.
    """

    def __init__(
        self,
        workload: Workload,
        data: Data,
        weights: Mapping[str, np.ndarray],
        *,
        on_gpu: bool,
        precision: PrecisionName = "highest",
        mode: str = "eager",
    ) -> None:
        self.workload, self.mode, self.precision, self.on_gpu = workload, mode, precision, on_gpu
        self.device, self._before = torch.device("cuda" if on_gpu else "cpu"), 0
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            self._before = int(torch.cuda.memory_allocated())
        orders = [torch.from_numpy(order) for order in data.orders]
        self.orders = [order.pin_memory() for order in orders] if on_gpu else orders
        self.x, self.y = (torch.from_numpy(a).to(self.device) for a in (data.x, data.y))
        if precision == "bfloat16":  # as ours stores them; autocast would convert them in every step
            self.x = self.x.to(torch.bfloat16)
        self.order = torch.zeros(len(data.x), dtype=torch.int64, device=self.device)
        self.cursor = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.places = torch.arange(workload.batch, device=self.device)
        self.model = network(workload, weights).to(self.device).train()
        self.initial = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=LEARNING_RATE, eps=1e-8, fused=True, capturable=on_gpu and mode == "CUDA graph"
        )
        self.forward: Callable[..., Any] = self._loss
        self.graph: Any = None
        self.value: Any = None
        self.at = 0

    def prepare(self) -> None:
        """Compile or capture; then start again."""
        self._upload_order(0)
        if self.mode == "CUDA graph":
            self._capture()
        else:
            if self.mode.startswith("compile"):
                self._compile()
            self.run(WARM_UP)
        self.start()

    def start(self) -> None:
        """Reset weights, optimizer and cursor in place, because a graph reads them there."""
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                value.copy_(self.initial[name])
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()
            self.cursor.zero_()
        self.at = 0

    def run(self, steps: int) -> None:
        """Enqueue steps without synchronizing."""
        for _ in range(steps):
            if self.at % self.workload.batches == 0:
                self._upload_order(self.at // self.workload.batches)
            self._step()
            self.at += 1

    def _upload_order(self, epoch: int) -> None:
        self.order.copy_(self.orders[epoch % len(self.orders)], non_blocking=True)
        self.cursor.zero_()

    def _step(self) -> None:
        if self.graph is not None:
            self.graph.replay()
            return
        m, start = self.workload.batch, (self.at % self.workload.batches) * self.workload.batch
        if self.mode.startswith("compile") and self.on_gpu:
            torch.compiler.cudagraph_mark_step_begin()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.forward(self.order[start : start + m])
        loss.backward()
        self.optimizer.step()
        self.value = loss.detach()

    def _loss(self, rows: Any) -> Any:
        x, y = self.x.index_select(0, rows), self.y.index_select(0, rows)
        if self.precision == "bfloat16":
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                output = self.model(x).float()
        else:
            output = self.model(x)
        return torch.nn.functional.cross_entropy(output, y)

    def _compile(self) -> None:
        for array in (self.x, self.y):  # otherwise each replay of the compiler's graph begins with a copy of all data
            torch._dynamo.mark_static_address(array)
        self.forward = torch.compile(self._loss, mode="max-autotune" if self.mode.endswith("max-autotune") else None)

    def _whole_step(self) -> Any:
        """Run a step on the rows at the cursor and advance it: the same launches every time."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(self.order.index_select(0, self.cursor + self.places))
        loss.backward()
        self.optimizer.step()
        self.cursor.add_(self.workload.batch).remainder_(self.workload.rows)
        return loss.detach()

    def _capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._whole_step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.value = self._whole_step()
        self.graph = graph

    def loss(self) -> float:
        """Wait for the last step and return its loss."""
        return float(self.value)

    def peak_bytes(self) -> int | None:
        """Return the most memory that PyTorch allocated on a GPU for this training, its data included."""
        return int(torch.cuda.max_memory_allocated()) - self._before if self.on_gpu else None


def network(workload: Workload, weights: Mapping[str, np.ndarray]) -> Any:
    """Build the workload's network in PyTorch from a `state_dict` of ours, running statistics included."""
    nn, layers = torch.nn, []
    for i, (inputs, outputs) in enumerate(workload.pairs[:-1]):
        linear, norm = nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs, eps=1e-5, momentum=0.1)
        _fill(linear.weight, weights[f"{3 * i}.W"].T)
        names = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}
        for theirs, ours in names.items():
            _fill(getattr(norm, theirs), weights[f"{3 * i + 1}.{ours}"])
        layers += [linear, norm, nn.ReLU()]
    last = nn.Linear(*workload.pairs[-1])
    _fill(last.weight, weights[f"{len(layers)}.W"].T)
    _fill(last.bias, weights[f"{len(layers)}.b"])
    return nn.Sequential(*layers, last)


def _fill(parameter: Any, value: Array) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the compiler's advice and its reports of interrupted work."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def make(role: str, kind: str, given: dict[str, Any], machine: Machine) -> Subject:
    """Make what this role runs of a case."""
    if not machine.on_gpu:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if role == COMPILE and not machine.on_gpu:  # on a GPU, a reset would discard what another contender compiled
        torch._dynamo.reset()
    torch.set_float32_matmul_precision("high" if given.get("precision") == "tf32" else "highest")
    with quiet():
        if kind == "kernel":
            subject = _op(given, machine.on_gpu, role == COMPILE)
        elif kind == "prediction":
            subject = _prediction(Workload.from_json(given), role == COMPILE)
        else:
            subject = _training(role, given, machine.on_gpu)
    subject.answer["version"] = str(torch.__version__)
    return subject


def tidy(role: str) -> None:
    """Release cached memory and compiled code; multiply in full precision again."""
    torch.set_float32_matmul_precision("highest")
    if "compile" in role:
        torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _training(role: str, given: dict[str, Any], on_gpu: bool) -> Subject:
    workload, mode = Workload.from_json(given), role.removeprefix("PyTorch ")
    options = {"precision": given.get("precision", "highest"), "mode": mode, "on_gpu": on_gpu}
    step = TorchStep(workload, workload.data(), workload.weights(), **options)
    step.prepare()
    facts = {"peak_bytes": step.peak_bytes()}
    base = losses(step)
    step.start()
    return Subject(step.run, {"losses": base, **facts})


def _prediction(workload: Workload, compiled: bool) -> Subject:
    """The network in evaluation mode, without gradients; compiled, its weights are constants."""
    model, x = network(workload, workload.trained_weights()).eval(), torch.from_numpy(workload.unseen_rows())
    forward: Callable[..., Any] = torch.compile(model, options={"freezing": True}) if compiled else model

    def call() -> Any:
        with torch.no_grad() if compiled else torch.inference_mode():
            return forward(x)

    return Subject(repeated(call), {"sample": sampled(call())})


def _op(given: dict[str, Any], on_gpu: bool, compiled: bool) -> Subject:
    op, shape, dtype = op_of(given, cut=True)
    device = torch.device("cuda" if on_gpu else "cpu")

    def put(array: Array) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    def normal(shape: tuple[int, ...], seed: int) -> Any:
        block, size = put(normal_block(prod(shape), seed)), prod(shape)
        whole = block.repeat(-(-size // len(block)))[:size].reshape(shape)
        return whole.to(getattr(torch, dtype) if len(shape) > 1 else torch.float32)

    assert op.torch is not None
    call = op.torch(torch, torch.compile if compiled else lambda function: function, *op.arrays(shape, normal, put))
    result = call().detach()
    return Subject(repeated(call), {"sample": sampled(result[: sampled_rows(result.shape)].to("cpu", torch.float32))})

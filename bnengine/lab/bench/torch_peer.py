"""PyTorch's training steps as contenders: the same weights, batches, rule and precision, at its best settings.

Every contender gathers its rows from data on the device by an order that lies there too, moved there once an epoch.
"""

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..._typing import Array
from ...network.precision import PrecisionName
from .workloads import LEARNING_RATE, Data, Workload

MODES = ("eager", "CUDA graph", "compile max-autotune", "compile")
WARM_UP = 3  # steps on a side stream before a capture, as PyTorch's documentation has it


def load(on_gpu: bool) -> tuple[Any, str]:
    """(PyTorch, "") if it computes on such a device here, else (None, the reason)."""
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken installation has its own words
        return None, f"PyTorch is not installed ({type(error).__name__})"
    if on_gpu and not torch.cuda.is_available():
        return None, f"PyTorch {torch.__version__} sees no CUDA device"
    return torch, ""


def modes(on_gpu: bool) -> tuple[str, ...]:
    """The ways to run a step that are compared, in order of value."""
    return MODES if on_gpu else tuple(mode for mode in MODES if mode != "CUDA graph")


@contextmanager
def multiplying(torch: Any, precision: PrecisionName) -> Iterator[None]:
    """Inside, PyTorch multiplies float32 matrices in tf32 if `precision` says so, else in float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class TorchStep:
    """A PyTorch network with a training step: `run` goes through the data in the orders that were given.

    "compile" compiles gather, forward and loss as one function, and their way back with it; the optimizer is PyTorch's
    fused Adam, a launch or a few. "CUDA graph" captures a whole step, gather and optimizer included, and replays it:
    what changes from step to step is a number on the device. `precision` "bfloat16" is autocast.
    """

    def __init__(
        self,
        torch: Any,
        workload: Workload,
        data: Data,
        weights: Mapping[str, np.ndarray],
        *,
        on_gpu: bool,
        precision: PrecisionName = "highest",
        mode: str = "eager",
    ) -> None:
        self.torch, self.workload, self.mode, self.precision, self.on_gpu = torch, workload, mode, precision, on_gpu
        self.name, self.device = f"PyTorch {mode}", torch.device("cuda" if on_gpu else "cpu")
        self._before = 0
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            self._before = int(torch.cuda.memory_allocated())
        orders = [torch.from_numpy(order) for order in data.orders]
        self.orders = [order.pin_memory() for order in orders] if on_gpu else orders
        self.x, self.y = (torch.from_numpy(a).to(self.device) for a in (data.x, data.y))
        if precision == "bfloat16":  # as ours are held; what autocast would make of them in every step
            self.x = self.x.to(torch.bfloat16)
        self.order = torch.zeros(len(data.x), dtype=torch.int64, device=self.device)
        self.cursor = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.places = torch.arange(workload.batch, device=self.device)
        self.model = network(torch, workload, weights).to(self.device).train()
        self.initial = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=LEARNING_RATE, eps=1e-8, fused=True, capturable=on_gpu and mode == "CUDA graph"
        )
        self.forward: Callable[..., Any] = self._loss
        self.graph: Any = None
        self.value: Any = None
        self.at = 0

    def prepare(self) -> None:
        """Compile or capture; then begin anew."""
        self._place_order(0)
        with quiet():
            if self.mode == "CUDA graph":
                self._capture()
            else:
                if self.mode.startswith("compile"):
                    self._compile()
                self.run(WARM_UP)
        self.start()

    def start(self) -> None:
        """The initial weights, no optimizer state, the first batch: in place, where a graph reads them."""
        with self.torch.no_grad():
            for name, value in self.model.state_dict().items():
                value.copy_(self.initial[name])
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()
            self.cursor.zero_()
        self.at = 0

    def run(self, steps: int) -> None:
        """So many steps; nothing is waited for."""
        for _ in range(steps):
            if self.at % self.workload.batches == 0:
                self._place_order(self.at // self.workload.batches)
            self._step()
            self.at += 1

    def _place_order(self, epoch: int) -> None:
        self.order.copy_(self.orders[epoch % len(self.orders)], non_blocking=True)
        self.cursor.zero_()

    def _step(self) -> None:
        if self.graph is not None:
            self.graph.replay()
            return
        m, start = self.workload.batch, (self.at % self.workload.batches) * self.workload.batch
        if self.mode.startswith("compile") and self.on_gpu:
            self.torch.compiler.cudagraph_mark_step_begin()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.forward(self.order[start : start + m])
        loss.backward()
        self.optimizer.step()
        self.value = loss.detach()

    def _loss(self, rows: Any) -> Any:
        torch = self.torch
        x, y = self.x.index_select(0, rows), self.y.index_select(0, rows)
        if self.precision == "bfloat16":
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                output = self.model(x).float()
        else:
            output = self.model(x)
        return torch.nn.functional.cross_entropy(output, y)

    def _compile(self) -> None:
        torch = self.torch
        for array in (self.x, self.y):  # else a graph's replay would begin with a copy of all data
            torch._dynamo.mark_static_address(array)
        mode = "max-autotune" if self.mode.endswith("max-autotune") else None
        self.forward = torch.compile(self._loss, mode=mode)

    def _whole(self) -> Any:
        """A step whose rows are those at the cursor, which it moves: the same launches every time."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(self.order.index_select(0, self.cursor + self.places))
        loss.backward()
        self.optimizer.step()
        self.cursor.add_(self.workload.batch).remainder_(self.workload.rows)
        return loss.detach()

    def _capture(self) -> None:
        """Steps on a side stream, then one under capture."""
        torch = self.torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._whole()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.value = self._whole()
        self.graph = graph

    def loss(self) -> float:
        """The loss of the last step, which is waited for."""
        return float(self.value)

    def peak_bytes(self) -> int | None:
        """On a GPU, what PyTorch held at most for this training since it was made, its data included."""
        return int(self.torch.cuda.max_memory_allocated()) - self._before if self.on_gpu else None

    @property
    def launches(self) -> None:
        """PyTorch does not tell."""
        return None


def network(torch: Any, workload: Workload, weights: Mapping[str, np.ndarray]) -> Any:
    """The workload's network in PyTorch, with weights as `Sequential.state_dict` gives them."""
    nn, layers, at = torch.nn, [], 0
    for inputs, outputs in workload.pairs[:-1]:
        linear, norm = nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs, eps=1e-5, momentum=0.1)
        _fill(torch, linear.weight, weights[f"{at}.W"].T)
        _fill(torch, norm.weight, weights[f"{at + 1}.gamma"])
        _fill(torch, norm.bias, weights[f"{at + 1}.beta"])
        layers += [linear, norm, nn.ReLU()]
        at += 3
    last = nn.Linear(*workload.pairs[-1])
    _fill(torch, last.weight, weights[f"{at}.W"].T)
    _fill(torch, last.bias, weights[f"{at}.b"])
    return nn.Sequential(*layers, last)


def _fill(torch: Any, parameter: Any, value: Array) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, the compiler's advice is not printed, nor what it was at when time ran out."""
    names = ("torch._inductor", "torch._dynamo")
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)

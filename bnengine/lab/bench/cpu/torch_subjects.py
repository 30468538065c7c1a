"""PyTorch as a contender: eager with its fused Adam, or compiled."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..agreement import losses
from ..torch_kernels import peer
from ..torch_peer import TorchStep, network, quiet
from ..workloads import Workload
from .cases import COMPILE
from .inputs import data_of, rows_of, sampled, weights_of, workload_of
from .own_subjects import repeated
from .worker import Subject


def make(role: str, kind: str, given: dict[str, Any], folder: Path) -> Subject:
    """What this role runs of a case; ImportError where PyTorch is not installed."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    compiled = role == COMPILE
    if compiled:
        torch._dynamo.reset()
    with quiet():
        if kind == "kernel":
            found = kernel(torch, role, given, folder, compiled)
        elif kind == "prediction":
            found = prediction(torch, role, workload_of(given), folder, compiled)
        else:
            found = step(torch, workload_of(given), folder, compiled)
    found.answer["version"] = str(torch.__version__)
    return found


def step(torch: Any, workload: Workload, folder: Path, compiled: bool) -> Subject:
    """Training steps."""
    mode = "compile" if compiled else "eager"
    one = TorchStep(torch, workload, data_of(folder), weights_of(folder), on_gpu=False, mode=mode)
    one.prepare()
    found = losses(one)
    one.start()
    return Subject(one.run, {"losses": found})


def prediction(torch: Any, role: str, workload: Workload, folder: Path, compiled: bool) -> Subject:
    """The network in evaluation mode, without anything for gradients; compiled, its weights are constants."""
    weights, x = weights_of(folder), torch.from_numpy(rows_of(folder))
    model = network(torch, workload, weights)
    norms = [layer for layer in model if isinstance(layer, torch.nn.BatchNorm1d)]
    for i, norm in enumerate(norms):
        norm.running_mean.copy_(torch.from_numpy(np.asarray(weights[f"{3 * i + 1}.running_mean"])))
        norm.running_var.copy_(torch.from_numpy(np.asarray(weights[f"{3 * i + 1}.running_var"])))
    model.eval()
    forward: Callable[..., Any] = torch.compile(model, options={"freezing": True}) if compiled else model
    without = torch.no_grad if compiled else torch.inference_mode

    def call() -> Any:
        with without():
            return forward(x)

    return Subject(repeated(call), sampled(call(), folder, role))


def kernel(torch: Any, role: str, given: dict[str, Any], folder: Path, compiled: bool) -> Subject:
    """A single op."""
    shape, tensors = tuple(given["shape"]), given.get("tensors", 1)
    if tensors > 1:
        shape = (tensors, shape[0] // tensors)
    call = peer(torch, given["op"], shape, "float32", "cpu", compiled=compiled)
    return Subject(repeated(call), sampled(call().detach(), folder, role))

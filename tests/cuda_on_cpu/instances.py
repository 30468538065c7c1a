"""Every instance of every kernel that the tests run and compile."""

from collections.abc import Iterable

from bnengine.ops.activations import ACTIVATIONS
from bnengine.ops.update import RULES
from tests.cuda_on_cpu.launch import enumerator, instance, module
from tests.cuda_on_cpu.module import CpuKernel
from tests.cuda_on_cpu.storage import BFLOAT, DOUBLE, FLOAT, HALF, STORAGES

WARP, BLOCK = 32, 256  # threads that share a row of logits
LOSSES = {"binary_cross_entropy": "BinaryCrossEntropy", "mean_squared_error": "SquaredError"}
CASTS = tuple((a, b) for a in STORAGES for b in STORAGES if a is not b)
OF_OUTPUT = tuple(kind for kind, rule in ACTIVATIONS.items() if rule.reads != "z")
WIDTHS = tuple((s, vector) for s in STORAGES for vector in (s.vector, 1))


def _plain(*kernels: str) -> tuple[str, ...]:
    return tuple(instance(kernel, s.name, vector) for kernel in kernels for s, vector in WIDTHS)


def _activated(*kernels: str, kinds: Iterable[str] = ACTIVATIONS) -> tuple[str, ...]:
    return tuple(instance(k, s.name, vector, enumerator(a)) for k in kernels for s, vector in WIDTHS for a in kinds)


def _masters(*kernels: str) -> tuple[str, ...]:
    return tuple(instance(k, s.name, vector) for k in kernels for s, vector in WIDTHS if s in (FLOAT, DOUBLE))


def _softmax() -> tuple[str, ...]:
    return tuple(
        instance("softmax_cross_entropy", s.name, vector, group, target)
        for s, vector in WIDTHS
        for group in (WARP, BLOCK)
        for target in ("long long", s.wide_name)
    )


def _shadowed(*kernels: str) -> tuple[str, ...]:
    return tuple(instance(k, "float", vector, s.name) for k in kernels for vector in (4, 1) for s in (HALF, BFLOAT))


INSTANCES = {
    "batch_norm.cu": (
        *_plain("moments"),
        *_activated("normalize", "batch_norm"),
        *(instance("commit"), instance("merge_statistics")),
    ),
    "batch_norm_backward.cu": _activated("batch_norm_sums", "batch_norm_backward", "batch_norm_gradients"),
    "dense.cu": (*_activated("bias_activation"), *_activated("bias_activation_backward", kinds=OF_OUTPUT)),
    "dropout.cu": (
        *(instance("dropout", s.name, vector) for s in STORAGES for vector in (4, 1)),
        *_plain("dropout_backward"),
    ),
    "gather.cu": tuple(
        instance("gather", s.name, vector, kind)
        for s, vector in WIDTHS
        for kind in ("long long", "double" if s is DOUBLE else "float")
    ),
    "loss.cu": (
        *_softmax(),
        *(instance("elementwise_loss", s.name, v, f"bnengine::{rule}") for s, v in WIDTHS for rule in LOSSES.values()),
        *(instance("correct", s.name, target) for s in STORAGES for target in ("long long", s.wide_name)),
    ),
    "pointwise.cu": (
        *_activated("activation", "activation_backward"),
        *_plain("total"),
        *(instance("cast", a.name, b.name, v) for a, b in CASTS for v in (max(a.vector, b.vector), 1)),
    ),
    "update.cu": (
        *_masters("check_step", *RULES, "average"),
        *_shadowed(*RULES),
        *(instance("add_epoch_sums", s.name) for s in (FLOAT, DOUBLE)),
        instance("count_step"),
    ),
}


def kernel(file: str, name: str, *which: object) -> CpuKernel:
    """The instance name<which> of kernels/cuda/<file>."""
    return module(file, INSTANCES[file])(instance(name, *which))

"""What is measured, who runs it, the floor of its time, and what is aimed at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal

from .machine import Mode
from .targets import TARGETS
from .workloads import WORKLOADS, Workload

Kind = Literal["step", "steps", "prediction", "kernel", "product", "busy", "sweep"]

OURS, V3, ONE_THREAD, REFERENCE = "bnengine", "bnengine v3", "bnengine, 1 thread", "bnengine references"
PRODUCTS, COPY, BLAS = "products alone", "copies", "OpenBLAS (NumPy)"
EAGER, COMPILE, GRAPH, AUTOTUNED = (
    f"PyTorch {mode}" for mode in ("eager", "compile", "CUDA graph", "compile max-autotune")
)
JAX = "JAX jit"
PEERS, DEVICE_PEERS = (EAGER, COMPILE, JAX), (EAGER, GRAPH, AUTOTUNED, COMPILE)
MODES: tuple[Mode, ...] = ("graph", "replayed", "eager")  # of our steps, the best first
ROWS = 16384  # of the data on a CPU: more than caches hold where rows are wide
FLOAT = 4  # bytes
TENSORS = 20  # that 10,000 parameters are cut into
TOLERANCES = {"float32": 1e-4, "bfloat16": 2.0**-5}  # of results, as a share of the largest element

# Targets on a CPU: shares of the best peer's time, of the best peer's where ours has AVX2 only, and of the floor.
STEPS = {
    "64-100-100-10": (0.20, 0.30, 1.8),
    "784-512-512-10": (0.50, 0.85, 1.15),
    "784-20x128-10": (0.35, 0.55, 1.3),
    "1024-3x2048-100": (0.55, 0.90, 1.08),
}
PREDICTED = {1: 0.2, 256: 0.5, 8192: 0.6}  # by batch
NORMS = {(256, 512): (0.5, None), (4096, 512): (1.0, None), (65536, 128): (1.0, 1 / 0.8), (200704, 64): (1.0, 1 / 0.8)}
ADAMS = {10_000: (0.1, None), 1_000_000: (0.6, None), 10_000_000: (0.7, 1 / 0.85)}
SOFTMAX, SOFTMAX_AIM = (4096, 1000), 0.3
RATES, RATE = {"64-100-100-10": 0.85}, 0.95  # of OpenBLAS's rate, for single products; RATE for the other networks
BUSY = 2.0
AXES = {"width": (32, 128, 512, 2048), "depth": (1, 5, 20), "batch": (16, 64, 512, 4096)}  # of the plot
PLACES = {"64-100-100-10": {"batch": 64}, "784-512-512-10": {"width": 512}, "784-20x128-10": {"depth": 20}}


@dataclass(frozen=True)
class Case:
    """Something to time, once for each of `roles`; the first role is ours.

    `given`: what a contender needs to build it, as JSON values. `floor`: the role whose time, times `passes`, is the
    floor: products alone, or copies, which go once through the memory that an op works on. `best_peer`, `by_floor`,
    `v3`: the ratios aimed at. `places`: of a step in the plot. `weight`: its share of the time.
    """

    name: str
    kind: Kind
    roles: tuple[str, ...]
    given: dict[str, Any]
    floor: str | None = None
    passes: float = 1.0
    best_peer: float | None = None
    by_floor: float | None = None
    v3: float | None = None
    weight: float = 1.0
    places: dict[str, int] = field(default_factory=dict)

    @property
    def peers(self) -> tuple[str, ...]:
        """Whose time ours is compared with."""
        return tuple(role for role in self.roles[1:] if role not in (V3, REFERENCE, PRODUCTS, COPY))

    @property
    def tolerance(self) -> float | None:
        """How far a result may differ, as a share of its largest element; None where random numbers differ."""
        return None if self.given.get("op") == "dropout" else TOLERANCES[self.given.get("dtype", "float32")]


def mode_of(role: str) -> Mode:
    """Return how a role of ours runs."""
    named: dict[str, Mode] = {REFERENCE: "eager", **{f"{OURS} {mode}": mode for mode in MODES}}
    return named.get(role, "replayed")


# -- on a CPU


def cpu_cases(
    *, only: str | None = None, workloads: Sequence[Workload] = WORKLOADS, sweep: bool = False, quick: bool = False,
    scale: int = 1,
) -> list[Case]:  # fmt: skip
    """List all cases in order of importance. `sweep` adds those of the plot; `scale` divides the rows of single ops."""
    whole = [replace(workload, rows=ROWS) for workload in workloads]
    small, _, deep, _ = (workload.name for workload in WORKLOADS)
    cases: list[Case] = []
    if only in (None, "steps"):
        cases += [step(workload) for workload in whole]
    if only in (None, "predictions"):
        cases += predictions(workloads)
    if only in (None, "kernels"):
        cases += kernels(scale)
        cases += [case for workload in workloads for case in products(workload)]
    if only in (None, "steps"):
        for workload in (workload for workload in whole if workload.name in (small, deep)):
            name = f"steps {workload.name}, batch {workload.batch}, many in one call"  # as in `fit`; JAX: in its loop
            cases.append(Case(name, "steps", (OURS, JAX), workload.to_json(), weight=3.0))
        for workload in (workload for workload in whole if workload.name == small):
            name = f"step {workload.name}, batch {workload.batch}, another program on one core"
            cases.append(Case(name, "busy", (OURS, ONE_THREAD), workload.to_json(), best_peer=BUSY, weight=3.0))
        cases += swept(quick) if sweep else []
    return cases


def step(workload: Workload) -> Case:
    """Whole training steps."""
    best_peer, v3, by_floor = STEPS.get(workload.name, (None, None, None))
    return Case(
        f"step {workload.name}, batch {workload.batch}", "step", (OURS, V3, REFERENCE, PRODUCTS, *PEERS),
        workload.to_json(), PRODUCTS, best_peer=best_peer, by_floor=by_floor, v3=v3, weight=12.0,
        places=PLACES.get(workload.name, {}),
    )  # fmt: skip


def predictions(workloads: Sequence[Workload]) -> Iterator[Case]:
    """The second network's output in evaluation mode."""
    for workload in (workload for workload in workloads if workload.name == WORKLOADS[1].name):
        for batch, aim in PREDICTED.items():
            given = replace(workload, batch=batch, rows=batch).to_json()
            name, roles = f"prediction {workload.name}, batch {batch:,}", (OURS, REFERENCE, PRODUCTS, *PEERS)
            yield Case(name, "prediction", roles, given, PRODUCTS, best_peer=aim, weight=4.0)


def kernels(scale: int = 1) -> Iterator[Case]:
    """Ops whose time memory bounds; those that are not of full size have no targets."""
    roles = (OURS, REFERENCE, COPY, EAGER, COMPILE, JAX)

    def case(name: str, op: str, shape: tuple[int, ...], arrays: int, aims: tuple[float | None, float | None],
             passes: float, **more: Any) -> Case:  # fmt: skip
        given = {"op": op, "shape": list(shape), **more, "working_set": arrays * prod(shape) * FLOAT}
        aimed = {"best_peer": aims[0], "by_floor": aims[1], "weight": 2.0} if scale == 1 else {}
        # PyTorch's fused Adam is one kernel and gains nothing from its compiler.
        chosen = tuple(role for role in roles if role != COMPILE or op != "adam")
        return Case(name, "kernel", chosen, given, COPY, passes, **aimed)  # type: ignore[arg-type]

    for (rows, channels), aims in NORMS.items():
        shape = max(2, rows // scale), channels
        yield case(f"batch norm {shape}", "batch_norm", shape, 4, aims, 2.0)
    for parameters, aims in ADAMS.items():
        n, tensors = max(TENSORS, parameters // scale), TENSORS if parameters == min(ADAMS) else 1
        name = f"Adam, {n:,} parameters" + (f" in {tensors} tensors" if tensors > 1 else "")
        yield case(name, "adam", (n,), 4, aims, 7 / 4, tensors=tensors)
    shape = max(2, SOFTMAX[0] // scale), SOFTMAX[1]
    yield case(f"softmax cross-entropy {shape}", "softmax", shape, 2, (SOFTMAX_AIM, None), 1.0)


def products(workload: Workload) -> Iterator[Case]:
    """Each product of a step once, on one thread: forward x W, the weights' gradient x^T dy, the input's dy W^T."""
    shapes = dict[tuple[str, int, int, int], None]()
    for i, (inputs, outputs) in enumerate(workload.pairs):
        shapes["NN", workload.batch, outputs, inputs] = None
        shapes["TN", inputs, outputs, workload.batch] = None
        if i:
            shapes["NT", workload.batch, inputs, outputs] = None
    aim = 1 / RATES.get(workload.name, RATE)
    for kind, m, n, k in shapes:
        given = {"product": kind, "m": m, "n": n, "k": k, "workload": workload.name}
        name = f"product {kind} ({m}, {k}) x ({k}, {n}) of {workload.name}"
        yield Case(name, "product", (ONE_THREAD, BLAS), given, best_peer=aim, weight=0.5)


def swept(quick: bool = False) -> Iterator[Case]:
    """Steps of networks that differ in width, depth and batch, around three of the workloads."""
    widths, depths, batches = (axis[:2] if quick else axis for axis in AXES.values())
    networks = [({"width": n}, Workload(f"784-{n}-{n}-10", (784, n, n, 10), 256, rows=ROWS)) for n in widths]
    networks += [({"depth": n}, Workload(f"784-{n}x128-10", (784, *[128] * n, 10), 128, rows=ROWS)) for n in depths]
    networks += [({"batch": n}, Workload("64-100-100-10", (64, 100, 100, 10), n, rows=ROWS)) for n in batches]
    for places, workload in networks:
        if places not in PLACES.values():
            name = f"step {workload.name}, batch {workload.batch}"
            yield Case(name, "sweep", (OURS, REFERENCE, *PEERS), workload.to_json(), weight=3.0, places=places)


# -- on a GPU

# Bytes are counted by a model, not by a counter: every array counts once for each time it must be read or written. A
# version that keeps x on the chip can therefore exceed the copy bandwidth.
_DROPOUT = "forward and back: x, y, dy, dx, and a byte an element for what was kept, written and read"


def device_cases(
    best: Mode, torch: bool, only: str | None, workloads: Sequence[Workload], precisions: Sequence[str], scale: int = 1
) -> list[Case]:
    """List single ops and training steps, those with a target first.

    Args:
        best: the best mode of our steps; the others that the machine has are timed too.
        torch: whether PyTorch is compared with.
        only, workloads, precisions, scale: as for `bench`.
    """
    roles = (*(f"{OURS} {mode}" for mode in MODES[MODES.index(best) :]), *(DEVICE_PEERS if torch else ()))
    cases = [] if only == "steps" else list(device_kernels(scale, torch))
    for workload in [] if only == "kernels" else workloads:
        for precision in workload.precisions:
            if not precisions or precision in precisions:
                given = workload.to_json() | {"what": workload.name, "variant": precision, "precision": precision}
                cases.append(Case(f"steps of {workload.name}, {precision}", "step", roles, given, weight=12.0))
    targets = {(target.what, target.variant) for target in TARGETS}
    return sorted(cases, key=lambda case: (case.given["what"], case.given["variant"]) not in targets)


def device_kernels(scale: int = 1, torch: bool = True) -> Iterator[Case]:
    """Single ops; `scale` divides their rows or parameters."""
    rows, n, floats = 65536 // scale, 100_000_000 // scale, {"float32": 4, "bfloat16": 2}

    def case(what: str, op: str, shape: tuple[int, ...], amount: int, model: str, dtype: str = "float32",
             unit: str = "bytes") -> Case:  # fmt: skip
        given: dict[str, Any] = {"what": what, "variant": dtype, "op": op, "shape": list(shape), "dtype": dtype}
        given |= {"amount": amount, "unit": unit, "model": model}
        return Case(f"{what}, {dtype}", "kernel", (OURS, *((EAGER,) if torch else ())), given)

    for shape in ((rows, 1024), (200704 // scale, 256)):
        for dtype, size in floats.items():
            model = "8 passes over (rows, channels): 3 forward, 5 back"
            yield case(f"batch norm {shape}", "batch_norm", shape, 8 * prod(shape) * size, model, dtype)
    model = "7 passes over the parameters: 4 reads, 3 writes"
    yield case(f"Adam, {n:,} parameters", "adam", (n,), 7 * 4 * n, model)
    shape, model = (rows, 4096), "2 passes: logits read, gradient written; and the targets"
    yield case(f"softmax cross-entropy {shape}", "softmax", shape, rows * (2 * 4 * 4096 + 8), model)
    shape = (rows, 1024)
    for dtype, size in floats.items():
        moved = prod(shape) * (4 * size + 2)
        yield case(f"dropout forward and back {shape}", "dropout", shape, moved, _DROPOUT, dtype)
    model = "6 m k n: y = relu(x W + b), dW and dx, with their epilogues"
    what = f"affine relu forward and back {shape} by (1024, 1024)"
    yield case(what, "affine", shape, 6 * rows * 1024 * 1024, model, unit="flops")
    yield case(f"check_step, {n:,} gradients", "check_step", (n,), 4 * n, "1 pass over the gradients")
    moved, model = 2 * 4 * prod(shape), "2 passes over the rows that are taken"
    yield case(f"gather {shape} of {(2 * rows, 1024)}", "gather", shape, moved, model)

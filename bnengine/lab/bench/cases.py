"""What is measured, who runs it, the floor of its time, and what is aimed at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import prod
from typing import Any, Literal

from .targets import TARGETS
from .workloads import WORKLOADS, Workload

Kind = Literal["step", "steps", "prediction", "kernel", "product", "busy", "sweep"]
Mode = Literal["eager", "replayed", "graph"]  # of our steps

OURS, V3, ONE_THREAD, REFERENCE = "bnengine", "bnengine v3", "bnengine, 1 thread", "bnengine references"
PRODUCTS, COPY, BLAS = "products alone", "copies", "OpenBLAS (NumPy)"
EAGER, COMPILE, GRAPH, AUTOTUNED = (
    f"PyTorch {mode}" for mode in ("eager", "compile", "CUDA graph", "compile max-autotune")
)
JAX = "JAX jit"
PEERS, DEVICE_PEERS = (EAGER, COMPILE, JAX), (EAGER, GRAPH, AUTOTUNED, COMPILE)
MODES: dict[str, Mode] = {f"{OURS} graph": "graph", f"{OURS} replayed": "replayed", f"{OURS} eager": "eager"}
ROWS = 16384  # of the data on a CPU: more than caches hold where rows are wide
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
RATES, RATE = {"64-100-100-10": 0.85}, 0.95  # of OpenBLAS's rate, for single products; RATE for the other networks
BUSY = 2.0
AXES = {"width": (32, 128, 512, 2048), "depth": (1, 5, 20), "batch": (16, 64, 512, 4096)}  # of the plot
PLACES = {"64-100-100-10": {"batch": 64}, "784-512-512-10": {"width": 512}, "784-20x128-10": {"depth": 20}}


# Op: its name in tables; how often its array must be read or written, and on a CPU how many such arrays there are; the
# model in words. Bytes are counted by a model, not by a counter: every array counts once for each time it must be read
# or written. A version that keeps x on the chip can therefore exceed the copy bandwidth.
OPS = {
    "batch_norm": ("batch norm {}", 8, 4, "8 passes over (rows, channels): 3 forward, 5 back"),
    "adam": ("Adam, {[0]:,} parameters", 7, 4, "7 passes over the parameters: 4 reads, 3 writes"),
    "softmax": ("softmax cross-entropy {}", 2, 2, "2 passes: logits read, gradient written; and the targets"),
    "dropout": ("dropout forward and back {}", 4, 4,
                "forward and back: x, y, dy, dx, and a byte an element for what was kept, written and read"),
    "affine": ("affine relu forward and back {} by (1024, 1024)", 6, 2,
               "6 m k n: y = relu(x W + b), dW and dx, with their epilogues"),
    "check_step": ("check_step, {[0]:,} gradients", 1, 1, "1 pass over the gradients"),
    "gather": ("gather {} of {}", 2, 2, "2 passes over the rows that are taken"),
}  # fmt: skip
CPU_OPS = (  # op, shape, and the most of the best peer's time and of the floor
    ("batch_norm", (256, 512), 0.5, None), ("batch_norm", (4096, 512), 1.0, None),
    ("batch_norm", (65536, 128), 1.0, 1 / 0.8), ("batch_norm", (200704, 64), 1.0, 1 / 0.8),
    ("adam", (10_000,), 0.1, None), ("adam", (1_000_000,), 0.6, None), ("adam", (10_000_000,), 0.7, 1 / 0.85),
    ("softmax", (4096, 1000), 0.3, None),
)  # fmt: skip
ONE, BOTH = {"float32": 4}, {"float32": 4, "bfloat16": 2}  # bytes of an element
DEVICE_OPS = (
    ("batch_norm", (65536, 1024), BOTH), ("batch_norm", (200704, 256), BOTH), ("adam", (100_000_000,), ONE),
    ("softmax", (65536, 4096), ONE), ("dropout", (65536, 1024), BOTH), ("affine", (65536, 1024), ONE),
    ("check_step", (100_000_000,), ONE), ("gather", (65536, 1024), ONE),
)  # fmt: skip
PARTS = {"steps": ("step", "steps", "busy", "sweep"), "predictions": ("prediction",), "kernels": ("kernel", "product")}


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


def cpu_cases(
    *, only: str | None = None, workloads: Sequence[Workload] = WORKLOADS, sweep: bool = False, quick: bool = False,
    scale: int = 1,
) -> list[Case]:  # fmt: skip
    """List all cases in order of importance. `sweep` adds those of the plot; `scale` divides the rows of single ops."""
    small, middle, deep, _ = (workload.name for workload in WORKLOADS)
    cases = list[Case]()
    for each in workloads:
        best_peer, v3, by_floor = STEPS.get(each.name, (None, None, None))
        cases.append(
            trained("step", each, (OURS, V3, REFERENCE, PRODUCTS, *PEERS), floor=PRODUCTS, best_peer=best_peer,
                    by_floor=by_floor, v3=v3, weight=12.0, places=PLACES.get(each.name, {}))
        )  # fmt: skip
    for each in (each for each in workloads if each.name == middle):
        for batch, aim in PREDICTED.items():  # of its output in evaluation mode
            name, given = f"prediction {each.name}, batch {batch:,}", replace(each, batch=batch, rows=batch).to_json()
            roles = (OURS, REFERENCE, PRODUCTS, *PEERS)
            cases.append(Case(name, "prediction", roles, given, PRODUCTS, best_peer=aim, weight=4.0))
    cases += [*kernels(scale), *chain.from_iterable(map(products, workloads))]
    # As in `fit`; JAX: in its loop.
    many = [each for each in workloads if each.name in (small, deep)]
    cases += [trained("steps", each, (OURS, JAX), ", many in one call") for each in many]
    for each in (each for each in workloads if each.name == small):
        cases.append(trained("busy", each, (OURS, ONE_THREAD), ", another program on one core", best_peer=BUSY))
    cases += swept(quick) if sweep else []
    return [case for case in cases if only is None or case.kind in PARTS[only]]


def trained(kind: Kind, workload: Workload, roles: tuple[str, ...], more: str = "", **options: Any) -> Case:
    """Make a case of training steps."""
    name = f"{'steps' if kind == 'steps' else 'step'} {workload.name}, batch {workload.batch}{more}"
    return Case(name, kind, roles, replace(workload, rows=ROWS).to_json(), **{"weight": 3.0, **options})


def kernels(scale: int = 1) -> Iterator[Case]:
    """Ops whose time memory bounds; those that are not of full size have no targets."""
    for op, (rows, *columns), best_peer, by_floor in CPU_OPS:
        shape = max(2 if columns else TENSORS, rows // scale), *columns
        tensors = TENSORS if (op, rows) == ("adam", 10_000) else 1
        name, passes, arrays, _ = OPS[op]
        name = name.format(shape) + (f" in {tensors} tensors" if tensors > 1 else "")
        given: dict[str, Any] = {"op": op, "shape": list(shape), "working_set": arrays * prod(shape) * 4}
        given |= {"tensors": tensors} if op == "adam" else {}
        # PyTorch's fused Adam is one kernel and gains nothing from its compiler.
        roles = tuple(role for role in (OURS, REFERENCE, COPY, *PEERS) if (op, role) != ("adam", COMPILE))
        case = Case(name, "kernel", roles, given, COPY, passes / arrays)
        yield replace(case, best_peer=best_peer, by_floor=by_floor, weight=2.0) if scale == 1 else case


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
    networks = [({"width": n}, Workload(f"784-{n}-{n}-10", (784, n, n, 10), 256)) for n in widths]
    networks += [({"depth": n}, Workload(f"784-{n}x128-10", (784, *[128] * n, 10), 128)) for n in depths]
    networks += [({"batch": n}, Workload("64-100-100-10", (64, 100, 100, 10), n)) for n in batches]
    for places, workload in networks:
        if places not in PLACES.values():
            yield trained("sweep", workload, (OURS, REFERENCE, *PEERS), places=places)


def device_cases(
    torch: bool, only: str | None, workloads: Sequence[Workload], precisions: Sequence[str], scale: int = 1
) -> list[Case]:
    """List single ops and training steps of a GPU, those with a target first.

    Args:
        torch: whether PyTorch is compared with.
        only, workloads, precisions, scale: as for `bench`.
    """
    roles = (*MODES, *(DEVICE_PEERS if torch else ()))
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
    for op, (rows, *columns), dtypes in DEVICE_OPS:
        shape, (name, passes, _, model) = (rows // scale, *columns), OPS[op]
        what, size = name.format(shape, (2 * (rows // scale), *columns)), prod(shape)
        more = {"softmax": 8 * shape[0], "dropout": 2 * size}.get(op, 0)  # bytes of labels; of what was kept
        for dtype, itemsize in dtypes.items():
            amount, unit = passes * size * itemsize + more, "bytes"
            if op == "affine":
                amount, unit = passes * size * columns[0], "flops"
            given: dict[str, Any] = {"what": what, "variant": dtype, "op": op, "shape": list(shape), "dtype": dtype}
            given |= {"amount": amount, "unit": unit, "model": model}
            yield Case(f"{what}, {dtype}", "kernel", (OURS, *((EAGER,) if torch else ())), given)

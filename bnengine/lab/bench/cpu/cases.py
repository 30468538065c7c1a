"""What is measured on a CPU: workloads and ops, who runs them, the floor, and what is aimed at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal

from ....errors import InputError
from ..workloads import WORKLOADS, Workload

Kind = Literal["step", "steps", "prediction", "kernel", "product", "busy", "sweep"]

OURS, V3, ONE_THREAD, REFERENCE = "bnengine", "bnengine v3", "bnengine, 1 thread", "bnengine references"
PRODUCTS, COPY = "products alone", "copies"
EAGER, COMPILE, JAX = "PyTorch eager", "PyTorch compile", "JAX jit"
BLAS = "OpenBLAS (NumPy)"
PEERS = (EAGER, COMPILE, JAX)
ROWS = 16384  # of the data: more than caches hold where rows are wide
FLOAT = 4  # bytes
TENSORS = 20  # that 10,000 parameters are cut into

# Of the best peer's time, of ours on v3, and of the floor.
STEPS = {
    "64-100-100-10": (0.20, 0.30, 1.8),
    "784-512-512-10": (0.50, 0.85, 1.15),
    "784-20x128-10": (0.35, 0.55, 1.3),
    "1024-3x2048-100": (0.55, 0.90, 1.08),
}
PREDICTED = {1: 0.2, 256: 0.5, 8192: 0.6}
NORMS = {(256, 512): (0.5, None), (4096, 512): (1.0, None), (65536, 128): (1.0, 1 / 0.8), (200704, 64): (1.0, 1 / 0.8)}
ADAMS = {10_000: (0.1, None), 1_000_000: (0.6, None), 10_000_000: (0.7, 1 / 0.85)}
SOFTMAX, SOFTMAX_AIM = (4096, 1000), 0.3
RATES = {"64-100-100-10": 0.85}  # of OpenBLAS's, for single products,
RATE = 0.95  # and those of the other networks
BUSY = 2.0
AXES_OF = {"width": (32, 128, 512, 2048), "depth": (1, 5, 20), "batch": (16, 64, 512, 4096)}
# Where three of the workloads are in the plot.
PLACES = {"64-100-100-10": {"batch": 64}, "784-512-512-10": {"width": 512}, "784-20x128-10": {"depth": 20}}


@dataclass(frozen=True)
class Case:
    """Something to be timed, once for each of `roles`.

    The first role is ours. `given`: what a worker needs to make the case, as JSON values. `floor`: the role whose time
    is the floor: products as they are, copies, which go once through the memory that an op works on, times `passes`.
    `best_peer`, `by_floor`, `v3`: the ratios that are aimed at, the last one on the lesser instruction set. `places`:
    of a step in the plot. `weight`: its share of the time.
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


def cases(
    *, only: str | None = None, workloads: Sequence[Workload] = WORKLOADS, sweep: bool = False, quick: bool = False,
    scale: int = 1,
) -> list[Case]:  # fmt: skip
    """All of them, in order of value. `sweep`: those of the plot too. `scale` divides the rows of single ops."""
    whole = [replace(workload, rows=ROWS) for workload in workloads]
    found: list[Case] = []
    if only in (None, "steps"):
        found += [step(workload) for workload in whole]
    if only in (None, "predictions"):
        found += predictions(workloads)
    if only in (None, "kernels"):
        found += kernels(scale)
        found += [case for workload in workloads for case in products(workload)]
    if only in (None, "steps"):
        found += [many(workload) for workload in whole if workload.name in (WORKLOADS[0].name, WORKLOADS[2].name)]
        found += [busy(workload) for workload in whole if workload.name == WORKLOADS[0].name]
        found += swept(quick) if sweep else []
    return found


def file_stem(role: str) -> str:
    """A role as part of a file's name."""
    return role.replace(" ", "-").replace(",", "")


def described(workload: Workload) -> dict[str, Any]:
    """A workload as JSON values."""
    return {"name": workload.name, "widths": list(workload.widths), "batch": workload.batch, "rows": workload.rows}


def step(workload: Workload) -> Case:
    """Whole training steps."""
    best_peer, v3, by_floor = STEPS.get(workload.name, (None, None, None))
    at = PLACES.get(workload.name, {})
    return Case(
        f"step {workload.name}, batch {workload.batch}", "step", (OURS, V3, REFERENCE, PRODUCTS, *PEERS),
        described(workload), PRODUCTS, best_peer=best_peer, by_floor=by_floor, v3=v3, weight=12.0, places=at,
    )  # fmt: skip


def predictions(workloads: Sequence[Workload]) -> Iterator[Case]:
    """The second network's output in evaluation mode."""
    for workload in (one for one in workloads if one.name == WORKLOADS[1].name):
        for batch, aim in PREDICTED.items():
            given = described(replace(workload, batch=batch, rows=batch))
            roles = (OURS, REFERENCE, PRODUCTS, *PEERS)
            name = f"prediction {workload.name}, batch {batch:,}"
            yield Case(name, "prediction", roles, given, PRODUCTS, best_peer=aim, weight=4.0)


def kernels(scale: int = 1) -> Iterator[Case]:
    """Ops that memory bounds; the copies beside them go through as much memory."""
    roles = (OURS, REFERENCE, COPY, EAGER, COMPILE, JAX)
    for whole, aims in NORMS.items():
        shape = max(2, whole[0] // scale), whole[1]
        given = {"op": "batch_norm", "shape": list(shape), "working_set": 4 * prod(shape) * FLOAT}
        yield _aimed(Case(f"batch norm {shape}", "kernel", roles, given, COPY, 2.0), aims, scale)
    for parameters, aims in ADAMS.items():
        n = max(TENSORS, parameters // scale)
        tensors = TENSORS if parameters == min(ADAMS) else 1
        given = {"op": "adam", "shape": [n], "tensors": tensors, "working_set": 4 * n * FLOAT}
        name = f"Adam, {n:,} parameters" + (f" in {tensors} tensors" if tensors > 1 else "")
        some = tuple(role for role in roles if role != COMPILE)  # PyTorch's fused Adam is one kernel as it is
        yield _aimed(Case(name, "kernel", some, given, COPY, 7 / 4), aims, scale)
    shape = max(2, SOFTMAX[0] // scale), SOFTMAX[1]
    given = {"op": "softmax", "shape": list(shape), "working_set": 2 * prod(shape) * FLOAT}
    case = Case(f"softmax cross-entropy {shape}", "kernel", roles, given, COPY, 1.0)
    yield _aimed(case, (SOFTMAX_AIM, None), scale)


def _aimed(case: Case, aims: tuple[float | None, float | None], scale: int) -> Case:
    """With what is aimed at, if the case is of the whole size."""
    return replace(case, best_peer=aims[0], by_floor=aims[1], weight=2.0) if scale == 1 else case


def products(workload: Workload) -> Iterator[Case]:
    """Each product of a step once, on one thread: forward x W, the weights' gradient x^T dy, the input's dy W^T."""
    found = dict[tuple[str, int, int, int], None]()
    for i, (inputs, outputs) in enumerate(workload.pairs):
        found["NN", workload.batch, outputs, inputs] = None
        found["TN", inputs, outputs, workload.batch] = None
        if i:
            found["NT", workload.batch, inputs, outputs] = None
    aim = 1 / RATES.get(workload.name, RATE)
    for kind, m, n, k in found:
        given = {"product": kind, "m": m, "n": n, "k": k, "workload": workload.name}
        name = f"product {kind} ({m}, {k}) x ({k}, {n}) of {workload.name}"
        yield Case(name, "product", (ONE_THREAD, BLAS), given, best_peer=aim, weight=0.5)


def many(workload: Workload) -> Case:
    """Training steps of which one call does many: as `Trainer.fit` does, and as JAX can in a loop that it compiles."""
    name = f"steps {workload.name}, batch {workload.batch}, many in one call"
    return Case(name, "steps", (OURS, JAX), described(workload), weight=3.0)


def busy(workload: Workload) -> Case:
    """Training steps while another program takes a core, beside those of one thread while none does."""
    name = f"step {workload.name}, batch {workload.batch}, another program on one core"
    return Case(name, "busy", (OURS, ONE_THREAD), described(workload), best_peer=BUSY, weight=3.0)


def swept(quick: bool = False) -> Iterator[Case]:
    """Steps of networks that differ in width, in depth and in batch, around three of the workloads."""
    widths, depths, batches = (axis[:2] if quick else axis for axis in AXES_OF.values())
    networks = [({"width": n}, Workload(f"784-{n}-{n}-10", (784, n, n, 10), 256, rows=ROWS)) for n in widths]
    networks += [({"depth": n}, Workload(f"784-{n}x128-10", (784, *[128] * n, 10), 128, rows=ROWS)) for n in depths]
    networks += [({"batch": n}, Workload("64-100-100-10", (64, 100, 100, 10), n, rows=ROWS)) for n in batches]
    measured = list(PLACES.values())
    for places, workload in networks:
        if places not in measured:
            name = f"step {workload.name}, batch {workload.batch}"
            yield Case(name, "sweep", (OURS, REFERENCE, *PEERS), described(workload), weight=3.0, places=places)


def checked_threads(threads: int, cores: int) -> int:
    """The number itself; InputError for more threads than there are cores for them."""
    if threads > cores:
        raise InputError(f"bench: --threads {threads}, but this process may use {cores} cores; ask for at most {cores}")
    return threads

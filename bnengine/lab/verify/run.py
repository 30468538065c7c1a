"""Make a certificate: choose the variants, compare them part by part."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ... import validation
from ...arrays.backend import GPU, Backend, BackendReport, available_backends, get_backend
from ...runtime.reasons import Reason
from .certificate import Certificate, Ledger, NotRun, Row, environment
from .layers import verify_layers
from .operations import verify_ops
from .steps import verify_free, verify_steps
from .trainings import QUICK_STEPS, STEPS, narrow_training, optimizer_trainings, trainings
from .variants import DTYPES, Variant, fused_variants, narrow_dtypes

LEFT_OUT = (
    f"training steps {QUICK_STEPS + 1} to {STEPS}",
    "independent trainings in float64",
    "layers in evaluation, except a plain BatchNorm",
)


def verify(
    backends: Sequence[str | Backend] | None = None,
    *,
    quick: bool = False,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> Certificate:
    """Check that everything agrees on this machine, on every array library that it can use.

    It compares every op of the registry on ordinary and adversarial inputs, every fused version, every layer, every
    optimizer and trainings step by step, in float32 and float64; also every op and a training in 16-bit dtypes. A fused
    version is compared with the reference on the same arrays, another library with NumPy, and both with NumPy in
    float64. Bounds are computed from the inputs (see `bnengine.lab.verify.bounds`).

    Args:
        backends: names or Backends to compare with NumPy; None for every usable one.
        quick: run few training steps, and a part of the rest.
        seed: of inputs and weights.
        say: called with the name of each part when it begins.

    Raises:
        BackendError: an unknown backend, or a named one that is unusable here.
        InputError: a seed below 0.
    """
    seed = validation.integer("verify", "seed", seed, least=0)
    say = say or (lambda _part: None)
    reports = available_backends()
    numpy = get_backend("numpy")
    chosen, not_run = _chosen(backends, reports)
    variants = [Variant(backend, dtype) for backend in chosen for dtype in DTYPES]
    without = dict[str, dict[str, Reason]]()
    for backend in (numpy, *chosen):
        fused, without[backend.name] = fused_variants(backend)
        variants += fused
    not_run += _without_fused(without, {v.backend.name for v in variants if v.mode != "reference"})
    narrow = []
    for backend in (numpy, *chosen):
        dtypes, lacking = narrow_dtypes(backend)
        not_run += [NotRun(f"{dtype} on {backend.name}", why) for dtype, why in lacking.items()]
        narrow += [Variant(backend, dtype) for dtype in dtypes if backend is not numpy]
        narrow += fused_variants(backend, dtypes)[0]
    with _one_thread(chosen):
        rows = _compare(numpy, variants, narrow, quick, seed, say)
    if quick:
        not_run += [NotRun(what, "left out by --quick") for what in LEFT_OUT]
    return Certificate(all(row.ok for row in rows), environment(chosen, reports), rows, tuple(not_run))


def _compare(
    numpy: Backend, variants: list[Variant], narrow: list[Variant], quick: bool, seed: int, say: Callable[[str], None]
) -> tuple[Row, ...]:
    """All comparisons, part by part."""
    ledger, base = Ledger(), Variant(numpy, "float64")

    def begin(part: str, shown: str = "") -> None:
        ledger.part = part
        say(shown or part)

    begin("ops")
    verify_ops(ledger, base, [*variants, *narrow], seed)
    begin("layers")
    verify_layers(ledger, base, variants, seed, quick=quick)
    begin("optimizers")
    for training in optimizer_trainings(quick):
        verify_steps(ledger, numpy, variants, training, seed, passes=False)
    for training in trainings(quick):
        begin("trainings", training.label)
        verify_steps(ledger, numpy, variants, training, seed)
        if not quick:
            verify_free(ledger, numpy, [v for v in variants if v.dtype == "float64"], training, seed)
    for dtype in narrow_dtypes(numpy)[0]:
        training = narrow_training(dtype, quick)
        begin("trainings", training.label)
        verify_steps(ledger, numpy, [v for v in narrow if v.dtype == dtype], training, seed)
    return ledger.rows()


@contextmanager
def _one_thread(backends: Sequence[Backend]) -> Iterator[None]:
    """Limit libraries to one thread, since threads only wait for each other on arrays this small."""
    able = [backend.xp for backend in backends if hasattr(backend.xp, "set_num_threads")]
    before = [xp.get_num_threads() for xp in able]
    try:
        for xp in able:
            xp.set_num_threads(1)
        yield
    finally:
        for xp, threads in zip(able, before, strict=True):
            xp.set_num_threads(threads)


def _chosen(
    backends: Sequence[str | Backend] | None, reports: list[BackendReport]
) -> tuple[list[Backend], list[NotRun]]:
    """The libraries to compare with NumPy, and why the others are left out."""
    if backends is None:
        compared = [get_backend(r.name) for r in reports if r.usable and r.name != "numpy"]
    else:
        named = {backend.name: backend for backend in map(get_backend, backends)}
        compared = [backend for name, backend in named.items() if name != "numpy"]
    not_run, names = [], {backend.name for backend in compared}
    for report in reports:
        if report.name in names or report.name == "numpy":
            continue
        what = f"{GPU}: references and fused versions on a GPU" if report.name == GPU else report.name
        why = "not among the named backends" if report.usable else f"{report.reason}. {report.cure}"
        not_run.append(NotRun(what, why))
    return compared, not_run


def _without_fused(without: dict[str, dict[str, Reason]], some: set[str]) -> list[NotRun]:
    """The fused versions that each library lacks, and why; equal entries of several libraries in one line."""
    lines: dict[tuple[str, str], list[str]] = {}
    for library, reasons in without.items():
        if library not in some:
            texts = "; ".join(dict.fromkeys(reason.text for reason in reasons.values()))
            why = f"no op has one for these arrays ({texts})"
            lines.setdefault(("", why), []).append(library)
            continue
        for reason in dict.fromkeys(reasons.values()):
            names = "; ".join(name for name, each in reasons.items() if each == reason)
            lines.setdefault((names, reason.text), []).append(library)
    return [
        NotRun(f"fused versions{f' of {ops}' if ops else ''} on {', '.join(libraries)}", why)
        for (ops, why), libraries in lines.items()
    ]

"""The certificate from beginning to end."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ...arrays.backend import Backend, BackendReport, available_backends, get_backend
from ...errors import InputError
from .certificate import Certificate, Ledger, NotRun, Row, environment
from .layers import verify_layers
from .operations import verify_ops
from .steps import verify_free, verify_steps
from .trainings import QUICK_STEPS, STEPS, narrow_training, optimizer_trainings, trainings
from .variants import DTYPES, Variant, fused_variants, narrow_dtypes

LEFT_OUT = (
    f"training steps {QUICK_STEPS + 1} to {STEPS}",
    "trainings that run free in float64",
    "layers in evaluation, other than a plain BatchNorm",
)


def verify(
    backends: Sequence[str | Backend] | None = None,
    *,
    quick: bool = False,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> Certificate:
    """The parity certificate: does everything agree, on this machine, on every array library that can be used here?

    Every op of the registry on ordinary and nasty inputs, every fused version, every layer, every optimizer and
    trainings step by step, in float32 and float64; every op and a training in the dtypes of 16 bits, too. Two hops: a
    fused version against the reference on the same arrays, another library against NumPy; and both against NumPy in
    float64. Bounds are computed from the inputs (see `bnengine.lab.verify.bounds`). `backends`: names or Backends to
    compare with NumPy, None for every one that is usable. `quick`: a few training steps, and not all of the rest.
    `seed`: of inputs and weights. `say` is told which part begins. BackendError for a backend that is unknown or, if
    named, not usable; InputError for a seed below 0.
    """
    if seed < 0:
        raise InputError(f"verify: seed {seed!r} is below 0; give a whole number from 0 up")
    say = say or (lambda _part: None)
    reports = available_backends()
    numpy = get_backend("numpy")
    chosen, not_run = _chosen(backends, reports)
    variants = [Variant(backend, dtype) for backend in chosen for dtype in DTYPES]
    without = {}
    for backend in (numpy, *chosen):
        found, without[backend.name] = fused_variants(backend)
        variants += found
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
        not_run += [NotRun(what, "the quick certificate was asked for") for what in LEFT_OUT]
    return Certificate(all(row.ok for row in rows), environment(chosen, reports), rows, tuple(not_run))


def _compare(
    numpy: Backend, variants: list[Variant], narrow: list[Variant], quick: bool, seed: int, say: Callable[[str], None]
) -> tuple[Row, ...]:
    """All comparisons, part by part."""
    ledger, base = Ledger(), Variant(numpy, "float64")
    say("ops")
    verify_ops(ledger, base, [*variants, *narrow], seed)
    say("layers")
    verify_layers(ledger, base, variants, seed, quick=quick)
    say("optimizers")
    for training in optimizer_trainings(quick):
        verify_steps(ledger, numpy, variants, training, seed, passes=False)
    for training in trainings(quick):
        say(training.label)
        verify_steps(ledger, numpy, variants, training, seed)
        if not quick:
            verify_free(ledger, numpy, [v for v in variants if v.dtype == "float64"], training, seed)
    for dtype in narrow_dtypes(numpy)[0]:
        training = narrow_training(dtype, quick)
        say(training.label)
        verify_steps(ledger, numpy, [v for v in narrow if v.dtype == dtype], training, seed)
    return ledger.rows()


@contextmanager
def _one_thread(backends: Sequence[Backend]) -> Iterator[None]:
    """One thread for libraries whose several would only wait for each other on arrays as small as these."""
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
        found = [get_backend(r.name) for r in reports if r.usable and r.name != "numpy"]
    else:
        named = {backend.name: backend for backend in map(get_backend, backends)}
        found = [backend for name, backend in named.items() if name != "numpy"]
    not_run, names = [], {backend.name for backend in found}
    for report in reports:
        if report.name in names or report.name == "numpy":
            continue
        what = "cupy: references and fused versions on a GPU" if report.name == "cupy" else report.name
        why = "it was not asked for" if report.usable else f"{report.reason}; cure: {report.cure}"
        not_run.append(NotRun(what, why))
    return found, not_run


def _without_fused(without: dict[str, dict[str, str]], some: set[str]) -> list[NotRun]:
    """Which fused versions each library does not have, and why; those that share everything in one line."""
    lines: dict[tuple[str, str], list[str]] = {}
    for library, reasons in without.items():
        if library not in some:
            why = f"no op has one for these arrays ({_plainly(*reasons.values())})"
            lines.setdefault(("", why), []).append(library)
            continue
        for why in dict.fromkeys(reasons.values()):
            names = "; ".join(name for name, other in reasons.items() if other == why)
            lines.setdefault((names, _plainly(why)), []).append(library)
    return [
        NotRun(f"fused versions{f' of {ops}' if ops else ''} on {', '.join(libraries)}", why)
        for (ops, why), libraries in lines.items()
    ]


def _plainly(*whys: str) -> str:
    """Reasons without the modules that gave them, each once."""
    parts = [part.rpartition(": ")[2] for why in whys for part in why.split("; ")]
    return "; ".join(dict.fromkeys(parts))

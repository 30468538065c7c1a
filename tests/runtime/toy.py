"""A toy library of fused versions for NumPy: each launches its op's reference, which stores what it computes.

It serves to test arenas, plans and replay without a compiler or a GPU: a launcher asks for outputs and scratch, says
what is read and how it splits, and launches. `installed(monkeypatch)` gives its launchers to the ops.
"""

from functools import cache
from typing import Any

import numpy as np

from bnengine.ops import REGISTRY
from bnengine.runtime.plan import COLUMNS, ROWS, Launch, Plan
from tests.contracts.cases import fields
from tests.support import give_versions

# The arguments that every block of columns needs in full. Other ops are not split.
WHOLE = {
    "affine": {0},
    "moments": set(),
    "normalize": set(),
    "batch_norm": set(),
    "normalize_backward": set(),
    "commit": {2},
}
FUSED = (
    *WHOLE, "affine_backward", "softmax_cross_entropy", "correct", "check_step", "adam", "add_epoch_sums", "count_step",
    "gather",
)  # fmt: skip


def installed(monkeypatch: Any, *names: str) -> None:
    """Let the ops (all of `FUSED` if none is named) take their fused versions from here, and no op from elsewhere."""
    give_versions(monkeypatch, {name: launcher(name) for name in names or FUSED}, alone=True)


def launcher(name: str) -> Any:
    """A version of the op. Its outputs are made by the shapes that the reference gives."""
    op, layouts = REGISTRY[name], dict[Any, Any]()

    @cache
    def kernel(order: Any, written: Any, adds: Any, count: int, names: Any) -> Any:
        def run(*parts: Any) -> None:
            arrays, outs, working, values = cut(parts, len(order), len(written), len(written), len(names))
            given = dict(zip(order, arrays, strict=True))
            options = {k: v for k, v in given.items() if isinstance(k, str)} | dict(zip(names, values, strict=True))
            with np.errstate(all="ignore"):
                found = fields(op, op.reference(*(given[i] for i in range(count)), **options))
            for field, out, add, scratch in zip(written, outs, adds, working, strict=True):
                np.copyto(scratch, op.accumulates[field](out, found[field]) if add else found[field])
                np.copyto(out, scratch)

        run.__name__ = f"_{name}"
        return run

    def launch(to: Any, *args: Any, **options: Any) -> Any:
        given = {**dict(enumerate(args)), **{k: v for k, v in options.items() if isinstance(v, np.ndarray)}}
        plain = {k: v for k, v in options.items() if k not in given}
        form = (*((k, None if a is None else (a.shape, a.dtype.str)) for k, a in given.items()), *plain.items())
        if form not in layouts:
            result = op.reference(*args, **options)
            found = {f: a for f, a in fields(op, result).items() if a is not None}
            same = {f: next(g for g in found if found[g] is a) for f, a in found.items()}
            layouts[form] = type(result), {f: (a.shape, a.dtype, same[f]) for f, a in found.items()}
        record, layout = layouts[form]
        written = tuple(f for f, (*_, same) in layout.items() if same == f or to.given(f))
        outs = {f: to.array(f, *layout[f][:2], args[0]) for f in written}
        split = COLUMNS if name in WHOLE else None
        order = sorted(given, key=lambda k: split is not None and k not in WHOLE[name])
        whole = tuple(given[k] for k in order if split is None or k in WHOLE[name])
        reads, writes = tuple(given[k] for k in order)[len(whole) :], tuple(outs[f] for f in written)
        run = kernel(tuple(order), written, tuple(to.adds(f) for f in written), len(args), tuple(plain))
        scratch, scalars = tuple((a.shape, a.dtype) for a in writes), tuple(plain.values())
        to.launch(run, whole=whole, reads=reads, writes=writes, scratch=scratch, scalars=scalars, split=split)
        outs |= {f: outs[same] for f, (*_, same) in layout.items() if f not in outs}
        return record(*map(outs.get, op.fields)) if hasattr(record, "_fields") else outs["out"]

    return launch


def cut(parts: tuple[Any, ...], *counts: int) -> list[tuple[Any, ...]]:
    ends = np.cumsum(counts)
    return [parts[end - count : end] for count, end in zip(counts, ends, strict=True)]


def block(launch: Launch, start: int, stop: int) -> Launch:
    """The same launch on the columns or rows [start, stop) of what it reads and writes."""

    def part_of(arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        part = slice(start, stop) if launch.split == ROWS else (..., slice(start, stop))
        return tuple(None if x is None else x[part] for x in arrays)

    scratch = part_of(launch.scratch) if launch.split == COLUMNS else launch.scratch
    return launch._replace(reads=part_of(launch.reads), writes=part_of(launch.writes), scratch=scratch)


def replay_by_blocks(plan: Plan, size: int) -> None:
    """Run each group of a plan block by block, `size` columns or rows at a time."""
    for group in plan.groups():
        if group[0].split is None:
            for launch in group:
                launch()
            continue
        for start in range(0, group[0].width, size):
            for launch in group:
                block(launch, start, min(start + size, launch.width))()

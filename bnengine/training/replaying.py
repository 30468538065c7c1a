"""Steps recorded once and replayed ever after: as one graph or native call, launch by launch, or op by op."""

from collections.abc import Callable, Hashable
from typing import Literal, NamedTuple

from .._typing import Array
from ..errors import InputError
from ..fused import backend_feature
from ..runtime.flat import Changes
from ..runtime.memory import Arena
from ..runtime.plan import Obstacle, Plan
from .watching import difference

How = Literal["graph", "one call", "launches", "op by op"]
Graph = Literal["auto"] | bool


class Mode(NamedTuple):
    """How steps of one kind run: `launches` of a replay, and `why` not in the best way there is; "" if they do."""

    key: Hashable
    how: How
    launches: int
    why: str


class _Kept:
    """A recorded step, and what runs it again; None until that is settled, at the first replay.

    `again` is to wait while the step is `watched`: until a second recording launched the same. `many`: runs it several
    times in one call, where there is such. `memory`: that of the recording, as `ReplayCache` counts it; None where
    it grew meanwhile, so that the next one will lie elsewhere.
    """

    def __init__(self, plan: Plan, memory: tuple[int, ...] | None) -> None:
        self.plan, self.memory, self.watched = plan, memory, False
        self.mode: Mode | None = None
        self.again: Callable[[], None] | None = None
        self.many: Callable[[int, Array], int] | None = None


def has_graphs(backend: str) -> bool:
    """Whether a step on arrays of this backend can be replayed as one graph."""
    return bool(backend_feature(backend, "REPLAYED_AS") == "graph")


class ReplayCache:
    """Records the first step of each key while it runs, and replays later ones: the same launches, so the same bytes.

    `replay` False: op by op, always. `graph`: "auto" takes one graph a step, or one native call, where the library can,
    False never, and True makes it an error where there is no graph. `changes`: of the network's layers, after which all
    is recorded anew. `outside` names the classes that bnengine does not know: where there are any, the second step of a
    key is recorded too, and the steps of one whose launches differ run op by op.
    """

    def __init__(
        self, memory: Arena, backend: str, changes: Changes, *, replay: bool, graph: Graph,
        outside: Callable[[], list[str]],
    ) -> None:  # fmt: skip
        if graph not in ("auto", True, False):
            raise InputError(f"Step: graph {graph!r} is not 'auto', True or False")
        self._replayer, self._replayed_as = (
            backend_feature(backend, "replayer"),
            backend_feature(backend, "REPLAYED_AS"),
        )
        if graph is True and not (replay and has_graphs(backend)):
            why = "replay=False runs op by op" if not replay else f"the backend {backend} has no graphs"
            raise InputError(f"Step: graph=True, but {why}; take graph='auto'")
        self.memory, self.replay, self.graph, self._outside = memory, replay, graph, outside
        self._kept: dict[Hashable, _Kept] = {}
        self._memory_of_plans: tuple[int, ...] = ()
        self._changes, self._seen = changes, changes.count
        self._last: tuple[Hashable, _Kept] | None = None

    @property
    def plans(self) -> dict[Hashable, Plan]:
        """The plans kept, by key."""
        return {key: kept.plan for key, kept in self._kept.items()}

    def modes(self) -> list[Mode]:
        """How the steps of each key run, of those that were settled."""
        return [kept.mode for kept in self._kept.values() if kept.mode is not None]

    def __call__(
        self,
        key: Hashable,
        memory: Callable[[], tuple[int, ...]],
        owned: Callable[[], list[Array]],
        run: Callable[[], None],
        times: int = 1,
        until: Array = None,
    ) -> int:
        """Run a step: `key` says what a plan of it has baked in, `memory` counts the replacements of memory it points
        to, `owned` is the memory outside the arena that it reads.

        Returns how many steps it ran: `times` at most where one call can run many, none behind one that changed the
        number `until`.
        """
        if not self.replay:
            run()
            return 1
        if memory() != self._memory_of_plans or self._changes.count != self._seen:
            self._kept.clear()
            self._last, self._memory_of_plans, self._seen = None, memory(), self._changes.count
        if self._last is not None and self._last[0] == key:
            return _run_again(self._last[1], times, until)
        kept = self._kept.get(key)
        if kept is None or kept.watched:
            with self.memory.recording(owned()) as plan:
                run()
            now = memory()
            self._kept[key] = self._settled(key, plan, kept, now if now == self._memory_of_plans else None)
            self._memory_of_plans, self._seen, self._last = now, self._changes.count, None
            return 1
        if kept.mode is not None and kept.mode.how == "op by op":
            run()
            done = 1
        else:
            self._find_replay(key, kept)
            self._last = key, kept
            done = _run_again(kept, times, until)
        self._seen = self._changes.count  # what a layer sets while it runs is no news
        return done

    def _settled(self, key: Hashable, plan: Plan, before: _Kept | None, memory: tuple[int, ...] | None) -> _Kept:
        kept, why = _Kept(plan, memory), ""
        if plan.reasons:
            why = _described(plan.reasons, {choice.op: choice.why for choice in self.memory.explain()})
        elif outside := self._outside():
            if before is None or memory is None or before.memory != memory:
                kept.watched = True
            elif other := difference(before.plan, plan):
                names = ", ".join(outside)
                why = f"{names}, not bnengine's own, did not ask for the same work in every step ({other})"
        if why:
            self._refuse(why)
            kept.mode = Mode(key, "op by op", 0, why)
        return kept

    def _find_replay(self, key: Hashable, kept: _Kept) -> None:
        """What replays it, made at the first replay: kernels of the recorded step are loaded by then."""
        if kept.again is not None:
            return
        found = self._replayer(kept.plan) if self.graph and self._replayer is not None else ""
        if isinstance(found, str):
            if found:
                self._refuse(found)
            kept.again, kept.mode = kept.plan.replay, Mode(key, "launches", len(kept.plan.launches), found)
        else:
            kept.again, kept.mode = found, Mode(key, self._replayed_as, len(kept.plan.launches), "")
            kept.many = getattr(found, "many", None)

    def _refuse(self, why: str) -> None:
        if self.graph is True:
            raise InputError(f"Step: graph=True, but {why}; take graph='auto'")


def _run_again(kept: _Kept, times: int, until: Array) -> int:
    if times > 1 and kept.many is not None:
        return kept.many(times, until)
    assert kept.again is not None
    kept.again()
    return 1


def described(mode: Mode) -> str:
    """A line of a log about steps that do not run in the best way; "" if they do."""
    if not mode.why:
        return ""
    how = {"op by op": "op by op", "launches": "launch by launch"}.get(mode.how, mode.how)
    return f"steps run {how}: {mode.why}"


def _described(obstacles: list[Obstacle], whys: dict[str, str]) -> str:
    """The ops without a fused version here, by reason, then what ran outside the ops."""
    by_reason: dict[str, list[str]] = {}
    for one in obstacles:
        if one.op:
            by_reason.setdefault(whys[one.op], []).append(one.op)
    missing = [f"no fused version of {', '.join(ops)} ({why})" for why, ops in by_reason.items()]
    return "; ".join([*missing, *(one.outside for one in obstacles if one.outside)])

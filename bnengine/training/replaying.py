"""ReplayCache: steps are recorded once and replayed: as one graph or native call, launch by launch, or op by op."""

from collections.abc import Callable, Hashable
from typing import Literal, NamedTuple

from .._typing import Array
from ..errors import InputError
from ..fused import backend_feature
from ..runtime.flat import Changes
from ..runtime.memory import Arena
from ..runtime.plan import CannotReplay, Obstacle, Plan
from ..validation import choice
from .confirmation import difference

How = Literal["graph", "one call", "launches", "op by op"]
Graph = Literal["auto"] | bool
GRAPHS: tuple[Graph, ...] = ("auto", True, False)


class ReplayInfo(NamedTuple):
    """How steps with this key run, the number of launches, and why a faster way was not possible ("" if it was)."""

    key: Hashable
    how: How
    launches: int
    why: str


class _Entry:
    """A recorded step.

    Attributes:
        memory: the version of the memory that the recording points to; None if memory grew during the recording, so
            that the next one points to other memory.
        needs_confirmation: whether a second recording must have the same launches first.
        info: how it runs; None until that is known, at the first replay.
        replay: runs the step again.
        replay_many: runs it several times in one call; None if that is impossible.
    """

    def __init__(self, plan: Plan, memory: tuple[int, ...] | None) -> None:
        self.plan, self.memory, self.needs_confirmation = plan, memory, False
        self.info: ReplayInfo | None = None
        self.replay: Callable[[], None] | None = None
        self.replay_many: Callable[[int, Array], int] | None = None


def has_graphs(backend: str) -> bool:
    """Whether a step on arrays of this backend can be replayed as one graph."""
    return bool(backend_feature(backend, "REPLAYED_AS") == "graph")


class ReplayCache:
    """Records the first step of each key while it runs, and replays later ones: the same launches, so the same bytes.

    Args:
        memory: where outputs of ops are allocated.
        backend: its name.
        changes: counts changes of the network's layers, after which every step is recorded again.
        replay: False runs every step op by op.
        graph: "auto" replays as one graph or native call if that is possible, False launch by launch; True raises if
            there is no graph.
        custom: returns the names of classes that bnengine does not define. If there are any, the second step of a key
            is recorded too, and a step whose launches differ runs op by op.
    """

    def __init__(
        self, memory: Arena, backend: str, changes: Changes, *, replay: bool, graph: Graph,
        custom: Callable[[], list[str]],
    ) -> None:  # fmt: skip
        choice("Step", "graph", graph, GRAPHS)
        self._replayer = backend_feature(backend, "replayer")
        self._replayed_as = backend_feature(backend, "REPLAYED_AS")
        if graph is True and not (replay and has_graphs(backend)):
            why = "replay=False runs op by op" if not replay else f"the backend {backend} has no graphs"
            raise _no_graph(why)
        self.memory, self.replay, self.graph, self._custom = memory, replay, graph, custom
        self._entries: dict[Hashable, _Entry] = {}
        self._memory_of_plans: tuple[int, ...] = ()
        self._changes, self._seen = changes, changes.count
        self._last: tuple[Hashable, _Entry] | None = None

    @property
    def plans(self) -> dict[Hashable, Plan]:
        """The recorded plans by key."""
        return {key: entry.plan for key, entry in self._entries.items()}

    def modes(self) -> list[ReplayInfo]:
        """Return how the steps of each key run, once that is known."""
        return [entry.info for entry in self._entries.values() if entry.info is not None]

    def __call__(
        self,
        key: Hashable,
        memory: Callable[[], tuple[int, ...]],
        owned: Callable[[], list[Array]],
        run: Callable[[], None],
        times: int = 1,
        until: Array = None,
    ) -> int:
        """Run a step.

        Args:
            key: everything that a plan of the step uses as a constant.
            memory: returns the version of the memory that plans point to; a new version invalidates them.
            owned: returns the memory outside the arena that the step reads.
            run: runs the step op by op.
            times: the most steps to run, if one call can run several.
            until: an int64 array; a call of several steps ends after one that changed its first number.

        Returns:
            How many steps ran.
        """
        if not self.replay:
            run()
            return 1
        if memory() != self._memory_of_plans or self._changes.count != self._seen:
            self._entries.clear()
            self._last, self._memory_of_plans, self._seen = None, memory(), self._changes.count
        if self._last is not None and self._last[0] == key:
            return _replayed(self._last[1], times, until)
        entry = self._entries.get(key)
        if entry is None or entry.needs_confirmation:
            with self.memory.recording(owned()) as plan:
                run()
            now = memory()
            self._entries[key] = self._recorded(key, plan, entry, now if now == self._memory_of_plans else None)
            self._memory_of_plans, self._seen, self._last = now, self._changes.count, None
            return 1
        if entry.info is not None and entry.info.how == "op by op":
            run()
            done = 1
        else:
            self._find_replay(key, entry)
            self._last = key, entry
            done = _replayed(entry, times, until)
        self._seen = self._changes.count  # a change that a layer makes while it runs invalidates nothing
        return done

    def _recorded(self, key: Hashable, plan: Plan, before: _Entry | None, memory: tuple[int, ...] | None) -> _Entry:
        entry, why = _Entry(plan, memory), ""
        if plan.reasons:
            why = _obstacles(plan.reasons, {choice.op: choice.why for choice in self.memory.explain()})
        elif custom := self._custom():
            if before is None or memory is None or before.memory != memory:
                entry.needs_confirmation = True
            elif differs := difference(before.plan, plan):
                why = f"custom class {', '.join(custom)} ran different operations in two steps ({differs})"
        if why:
            self._check_graph(why)
            entry.info = ReplayInfo(key, "op by op", 0, why)
        return entry

    def _find_replay(self, key: Hashable, entry: _Entry) -> None:
        """Create the replay, at the first one: by then the kernels of the recorded step are loaded."""
        if entry.replay is not None:
            return
        why, launches = "", len(entry.plan.launches)
        if self.graph and self._replayer is not None:
            try:
                entry.replay = self._replayer(entry.plan)
            except CannotReplay as reason:
                why = str(reason)
                self._check_graph(why)
            else:
                entry.info = ReplayInfo(key, self._replayed_as, launches, "")
                entry.replay_many = getattr(entry.replay, "many", None)
                return
        entry.replay, entry.info = entry.plan.replay, ReplayInfo(key, "launches", launches, why)

    def _check_graph(self, why: str) -> None:
        if self.graph is True:
            raise _no_graph(why)


def _no_graph(why: str) -> InputError:
    return InputError(f"Step: graph=True, but {why}. Take graph='auto'.")


def _replayed(entry: _Entry, times: int, until: Array) -> int:
    if times > 1 and entry.replay_many is not None:
        return entry.replay_many(times, until)
    assert entry.replay is not None
    entry.replay()
    return 1


def described(info: ReplayInfo) -> str:
    """Return a line for a log about steps that do not run in the fastest way; "" if they do."""
    if not info.why:
        return ""
    how = {"op by op": "op by op", "launches": "launch by launch"}.get(info.how, info.how)
    return f"steps run {how}: {info.why}"


def _obstacles(obstacles: list[Obstacle], whys: dict[str, str]) -> str:
    """Describe the ops without a fused version, by reason, then what ran outside the ops."""
    by_reason: dict[str, list[str]] = {}
    for obstacle in obstacles:
        if obstacle.op:
            by_reason.setdefault(whys[obstacle.op], []).append(obstacle.op)
    missing = [f"no fused version of {', '.join(ops)} ({why})" for why, ops in by_reason.items()]
    return "; ".join([*missing, *(obstacle.outside for obstacle in obstacles if obstacle.outside)])

"""Every mutant of the files that compute, each with an id that outlives changes elsewhere, and how some are drawn."""

import ast
import difflib
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from .kernel_operators import KERNEL_OPERATORS
from .kernel_source import KernelSource, source_of
from .launch_operators import LAUNCH_OPERATORS
from .operators import OPERATORS, Change
from .source import Source, Text

LAUNCHERS = "bnengine/fused/"


class Found(NamedTuple):
    """A change that an operator makes, and where."""

    change: Change
    operator: str
    scope: str


class Mutant(NamedTuple):
    """One change of one file: bytes [start, end) replaced by `after`."""

    id: str
    path: str
    line: int
    scope: str
    operator: str
    start: int
    end: int
    before: str
    after: str
    text: str  # the line that it starts in

    def source(self, text: str) -> str:
        """The text of the file with the change made."""
        data = text.encode()
        return (data[: self.start] + self.after.encode() + data[self.end :]).decode()

    def diff(self, text: str) -> list[str]:
        """The lines taken away and those put in their place."""
        lines = difflib.unified_diff(text.splitlines(), self.source(text).splitlines(), lineterm="", n=0)
        return [line for line in lines if not line.startswith(("---", "+++", "@@"))]

    @property
    def place(self) -> str:
        """Id, file, line, function and operator."""
        return f"{self.id}  {self.path}:{self.line} {self.scope}: {self.operator}"

    @property
    def key(self) -> tuple[str, ...]:
        """What stays of it when its function moves to another file."""
        parts = (self.text, self.before, self.after)
        return (self.scope, self.operator, *(" ".join(part.split()) for part in parts))

    def __str__(self) -> str:
        before, after = (" ".join(part.split()) for part in (self.before, self.after))
        return f"{self.place}: {before or 'nothing'} -> {after or 'nothing'}"


def mutants_of(path: str, text: str, members: Mapping[str, set[str]] | None = None) -> Iterator[Mutant]:
    """All mutants of one file, in the order of the text; `members` as in `KernelSource`.

    The id is a hash of file, scope, operator, line, change, and a number that distinguishes equal ones: it stays when
    other lines change, and goes when its own line does.
    """
    source = Source(path, text) if path.endswith(".py") else KernelSource(path, text, members)
    return _identified(source, _found(source))


def _found(source: Source | KernelSource) -> Iterator[Found]:
    if isinstance(source, KernelSource):
        for node in source.sites:
            for name, (types, change) in KERNEL_OPERATORS.items():
                if node.type in types:
                    yield from (Found(c, name, source.scope(node)) for c in change(source, node))
        return
    operators = OPERATORS | LAUNCH_OPERATORS if source.path.startswith(LAUNCHERS) else OPERATORS
    for site in source.sites:
        for name, (kinds, operator) in operators.items():
            if isinstance(site, kinds):
                yield from (Found(c, name, source.scope(site)) for c in operator(source, site))


def _identified(source: Text, found: Iterable[Found]) -> Iterator[Mutant]:
    seen: set[tuple[int, int, str]] = set()
    equal: Counter[str] = Counter()
    path = source.path
    for (start, end, after), name, scope in sorted(found, key=lambda f: (f.change[0], -f.change[1])):
        if (start, end, after) in seen or source.between(start, end) == after:
            continue
        seen.add((start, end, after))
        line, before = source.line_of(start), source.between(start, end)
        key = "|".join((path, scope, name, line.strip(), before, after))
        equal[key] += 1
        digest = hashlib.sha256(f"{key}|{equal[key]}".encode()).hexdigest()[:10]
        number = source.data.count(b"\n", 0, start) + 1
        yield Mutant(digest, path, number, scope, name, start, end, before, after, line.strip())


def read(root: Path, patterns: Iterable[str]) -> dict[str, str]:
    """The text of every file that is mutated, by its path from the root; those that match "!pattern" are left out."""
    left_out = {path for pattern in patterns if pattern[0] == "!" for path in root.glob(pattern[1:])}
    paths = sorted({path for pattern in patterns if pattern[0] != "!" for path in root.glob(pattern)} - left_out)
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def all_mutants(texts: Mapping[str, str]) -> list[Mutant]:
    members: dict[str, set[str]] = {}
    for path, text in texts.items():
        if not path.endswith(".py"):
            for name, others in source_of(path, text).own_members.items():
                members.setdefault(name, set()).update(others)
    return [mutant for path, text in texts.items() for mutant in mutants_of(path, text, members)]


def ranked(mutants: Iterable[Mutant], texts: Mapping[str, str], *, seed: int) -> Iterator[Mutant]:
    """Mutants that differ from the original, in the order of a hash of seed and id.

    Mutants keep their rank while the rest of the files changes, and a smaller draw is the beginning of a larger one.
    """
    for mutant in sorted(mutants, key=lambda m: hashlib.sha256(f"{seed}|{m.id}".encode()).digest()):
        if differs(mutant, texts[mutant.path]):
            yield mutant


def draw(mutants: Iterable[Mutant], texts: Mapping[str, str], *, seed: int, count: int) -> list[Mutant]:
    """The first `count` of them."""
    return list(islice(ranked(mutants, texts, seed=seed), count))


def differs(mutant: Mutant, text: str) -> bool:
    """Whether a mutant is Python and means something else to the parser: cheap, so not every equivalent one is seen.

    For a kernel only the compiler knows: see `Runner`.
    """
    if not mutant.path.endswith(".py"):
        return True
    try:
        tree = ast.parse(mutant.source(text))
    except SyntaxError:
        return False
    return ast.dump(tree) != _dump(text)


@lru_cache(maxsize=32)
def _dump(text: str) -> str:
    return ast.dump(ast.parse(text))

"""Every mutant of the files that compute, each with an id that outlives changes elsewhere, and how some are drawn."""

import ast
import difflib
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from .operators import OPERATORS
from .source import Source

FILES = ("bnengine/ops/*.py", "bnengine/layers/batch_norm.py", "bnengine/optimizers.py", "bnengine/training/step.py")


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

    def __str__(self) -> str:
        before, after = (" ".join(part.split()) for part in (self.before, self.after))
        return f"{self.place}: {before or 'nothing'} -> {after or 'nothing'}"


def mutants_of(path: str, text: str) -> Iterator[Mutant]:
    """All mutants of one file, in the order of the text.

    The id is a hash of file, scope, operator, line, change, and a number that tells equal ones apart: it stays when
    other lines change, and goes when its own line does.
    """
    source = Source(path, text)
    seen: set[tuple[int, int, str]] = set()
    equal: Counter[str] = Counter()
    found = []
    for node in source.sites:
        for name, (kinds, operator) in OPERATORS.items():
            if isinstance(node, kinds):
                found += [(change, name, node) for change in operator(source, node)]
    for (start, end, after), name, node in sorted(found, key=lambda f: (f[0][0], -f[0][1])):
        if (start, end, after) in seen or source.between(start, end) == after:
            continue
        seen.add((start, end, after))
        scope, line, before = source.scope(node), source.line_of(start), source.between(start, end)
        key = "|".join((path, scope, name, line.strip(), before, after))
        equal[key] += 1
        digest = hashlib.sha256(f"{key}|{equal[key]}".encode()).hexdigest()[:10]
        number = source.data.count(b"\n", 0, start) + 1
        yield Mutant(digest, path, number, scope, name, start, end, before, after)


def read(root: Path) -> dict[str, str]:
    """The text of every file that is mutated, by its path from the root."""
    paths = sorted(path for pattern in FILES for path in root.glob(pattern))
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def all_mutants(texts: dict[str, str]) -> list[Mutant]:
    return [mutant for path, text in texts.items() for mutant in mutants_of(path, text)]


def draw(mutants: Iterable[Mutant], texts: dict[str, str], *, seed: int, count: int) -> list[Mutant]:
    """`count` mutants that differ from the original: those that come first by a hash of seed and id.

    Mutants keep their rank while the rest of the files changes, and a smaller draw is the beginning of a larger one.
    """
    ranked = sorted(mutants, key=lambda m: hashlib.sha256(f"{seed}|{m.id}".encode()).digest())
    drawn: list[Mutant] = []
    for mutant in ranked:
        if len(drawn) == count:
            break
        if differs(mutant, texts[mutant.path]):
            drawn.append(mutant)
    return drawn


def differs(mutant: Mutant, text: str) -> bool:
    """Whether a mutant is Python and means something else to the parser: cheap, so not every equivalent one is seen."""
    try:
        tree = ast.parse(mutant.source(text))
    except SyntaxError:
        return False
    return ast.dump(tree) != _dump(text)


@lru_cache(maxsize=32)
def _dump(text: str) -> str:
    return ast.dump(ast.parse(text))

"""Verdicts on disk, so that a long run can be taken up again where it ended."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from .mutants import Mutant
from .runner import COPIED, Outcome


class Journal:
    """Outcomes by mutant in a file of JSON lines; those of other sources or tests are not read."""

    def __init__(self, path: Path | None, root: Path) -> None:
        self.path, self.state = path, state_of(root) if path else ""
        self._held: dict[str, dict[str, object]] = {}
        if path is not None and path.exists():
            lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            self._held = {line["id"]: line for line in lines if line.pop("state") == self.state}

    def outcomes(self, mutants: Iterable[Mutant]) -> list[Outcome]:
        """What is known of these mutants already."""
        known = [(m, self._held[m.id]) for m in mutants if m.id in self._held]
        return [Outcome(m, str(k["verdict"]), str(k["stage"]), float(str(k["seconds"])), "") for m, k in known]

    def add(self, outcome: Outcome) -> None:
        """Note an outcome at once."""
        if self.path is None:
            return
        entry = {"verdict": outcome.verdict, "stage": outcome.stage, "seconds": round(outcome.seconds, 2)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"id": outcome.mutant.id, "state": self.state, **entry}) + "\n")


def state_of(root: Path) -> str:
    """A digest of all that a verdict rests on: package, kernels and tests."""
    digest = hashlib.sha256()
    for name in COPIED:
        for path in [root / name, *sorted((root / name).rglob("*"))]:
            if path.suffix in (".py", ".h", ".cpp", ".cu", ".cuh", ".toml", ".txt") and path.name != "reasons.toml":
                digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()

"""Verdicts of an earlier version, and the counterparts of its mutants in today's tree.

A counterpart makes the same change to the same line of a function of the same name, in whichever file that is.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .mutants import Mutant
from .runner import Outcome

PATH = Path(__file__).with_name("baseline.json")


class Recorded(NamedTuple):
    """A mutant of the earlier version and how it ended; `line` and `mutated` are for the reader."""

    id: str
    file: str
    scope: str
    operator: str
    text: str
    before: str
    after: str
    mutated: str
    verdict: str
    stage: str
    seconds: float

    @property
    def key(self) -> tuple[str, ...]:
        return (self.scope, self.operator, self.text, self.before, self.after)

    @property
    def caught(self) -> bool:
        return self.verdict != "survived"


def recorded(outcome: Outcome, text: str) -> Recorded:
    """What a record keeps of an outcome; `text` is that of the file."""
    mutant = outcome.mutant
    mutated = [line[1:].strip() for line in mutant.diff(text) if line.startswith("+")]
    ended = (" ".join(mutated), outcome.verdict, outcome.stage, round(outcome.seconds, 1))
    return Recorded(mutant.id, mutant.path, *mutant.key, *ended)


def save(commit: str, entries: Iterable[Recorded], path: Path = PATH) -> None:
    """One mutant a line."""
    lines = ",\n".join(json.dumps(entry._asdict(), ensure_ascii=False) for entry in entries)
    path.write_text(f'{{"commit": {json.dumps(commit)}, "judged": [\n{lines}\n]}}\n', encoding="utf-8")


def load(path: Path = PATH) -> tuple[str, list[Recorded]]:
    """The commit and its mutants."""
    record = json.loads(path.read_text(encoding="utf-8"))
    return record["commit"], [Recorded(**entry) for entry in record["judged"]]


# Words of the earlier version and those that today's code has instead.
RENAMED = {
    "normaliser": "divisor", "proposal": "pending", "proposals": "pending", "Into": "Out", "Fresh": "Memory",
    "Pass": "Context", "Passes": "InferenceCache", "Replays": "ReplayCache", "offered": "backend_feature",
    "border": "decay_end", "hits": "correct", "tally": "add_epoch_sums", "shadow": "copy16", "judge": "check_step",
    "Verdict": "StepCheck", "advance": "count_step", "centred": "centered", "centre": "center",
}  # fmt: skip
_WORD = re.compile(rf"\b({'|'.join(RENAMED)})\b")


def counterparts(entries: Iterable[Recorded], mutants: Iterable[Mutant]) -> dict[str, Mutant]:
    """The mutant of today for the id of a recorded one; of several equal ones, that of the file with the same name."""
    by_key: dict[tuple[str, ...], list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        for key in _keys(mutant.key):
            by_key[key].append(mutant)
    found: dict[str, Mutant] = {}
    for entry in entries:
        today = tuple(_WORD.sub(lambda word: RENAMED[word[0]], part) for part in entry.key)
        candidates = next((by_key[key] for key in (*_keys(entry.key), *_keys(today)) if key in by_key), [])
        stem = PurePosixPath(entry.file).stem
        if candidates:
            found[entry.id] = min(candidates, key=lambda mutant: PurePosixPath(mutant.path).stem != stem)
    return found


def _keys(key: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The key itself, that of a function that moved to another class or out of one, and that of a renamed function."""
    return key, ("*." + key[0].rpartition(".")[2], *key[1:]), ("*", *key[1:])


def compare(entries: list[Recorded], found: dict[str, Mutant], outcomes: Iterable[Outcome]) -> bool:
    """Print how the counterparts ended then and now; whether at least as many are caught."""
    now = {outcome.mutant.id: outcome.verdict != "survived" for outcome in outcomes}
    words = {True: "caught", False: "survived"}
    counts: Counter[tuple[bool, bool]] = Counter()
    for entry in entries:
        if entry.id in found and found[entry.id].id in now:
            pair = (entry.caught, now[found[entry.id].id])
            counts[pair] += 1
            if pair[0] and not pair[1]:
                print(f"no longer caught: {found[entry.id]}  ({entry.stage}, {entry.file})")
    for (then, today), count in sorted(counts.items()):
        print(f"{count:4d}  {words[then]} then, {words[today]} now")
    missing = Counter(words[entry.caught] for entry in entries if entry.id not in found)
    print(
        f"{missing.total():4d}  without counterpart ({missing['caught']} caught then, {missing['survived']} survived)"
    )
    return counts[False, True] >= counts[True, False]

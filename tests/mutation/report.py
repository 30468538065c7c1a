"""What came out: the figures, the survivors with their reasons, results.json."""

import hashlib
import json
import subprocess
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from .populations import HERE, Population
from .runner import Outcome

REASONS = HERE / "reasons.toml"


def explain() -> dict[str, str]:
    """Why mutants may survive, by id: written by hand."""
    entries = tomllib.loads(REASONS.read_text(encoding="utf-8"))
    return {name: " ".join(entry["reason"].split()) for name, entry in entries.items()}


def figures(
    outcomes: list[Outcome], texts: dict[str, str], *, commit: str | None, seed: int, of: int, reasons: dict[str, str]
) -> dict[str, Any]:
    """The result as JSON values."""
    verdicts = Counter(o.verdict for o in outcomes)
    outcomes = [o for o in outcomes if o.lives]
    survivors = [o for o in outcomes if o.verdict == "survived"]
    caught = len(outcomes) - len(survivors)
    by_file: dict[str, dict[str, int]] = {}
    by_operator: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        for table, key in ((by_file, outcome.mutant.path), (by_operator, outcome.mutant.operator)):
            entry = table.setdefault(key, {"drawn": 0, "caught": 0})
            entry["drawn"] += 1
            entry["caught"] += outcome.verdict != "survived"
    return {
        "seed": seed,
        "commit": commit,
        "sources_sha256": digest(texts),
        "mutants": of,
        "drawn": len(outcomes),
        "caught": caught,
        "share": round(caught / len(outcomes), 4) if outcomes else 0.0,
        "stillborn": verdicts["stillborn"],
        "same_code": verdicts["same"],
        "timed_out": [o.mutant.id for o in outcomes if o.verdict == "timed out"],
        "caught_in_stage": dict(Counter(o.stage for o in outcomes if o.stage)),
        "by_file": dict(sorted(by_file.items())),
        "by_operator": dict(sorted(by_operator.items())),
        "survivors": [
            {
                "id": o.mutant.id,
                "file": o.mutant.path,
                "line": o.mutant.line,
                "scope": o.mutant.scope,
                "operator": o.mutant.operator,
                "diff": o.mutant.diff(texts[o.mutant.path]),
                "reason": reasons.get(o.mutant.id),
            }
            for o in survivors
        ],
        "unexplained": [o.mutant.id for o in survivors if o.mutant.id not in reasons],
    }


def digest(texts: dict[str, str]) -> str:
    """What tells whether a result is of these sources."""
    return hashlib.sha256("\0".join(texts[path] for path in sorted(texts)).encode()).hexdigest()


def commit_of(root: Path, population: Population) -> str | None:
    """The commit that is checked out, with + behind it where what counts differs from it; None outside of git."""
    what = ("status", "--porcelain", "--", "bnengine", "kernels", "tests", f":!{population.record}")
    try:
        head, changed = (
            subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), what)
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def note_on_record(texts: dict[str, str], population: Population) -> str:
    """What the committed result is of."""
    if not population.results.exists():
        return f"{population.record} is not there; --full makes it"
    recorded = json.loads(population.results.read_text(encoding="utf-8"))
    caught = f"{recorded['caught']} of {recorded['drawn']} caught at commit {str(recorded['commit'])[:12]}"
    stale = "" if recorded["sources_sha256"] == digest(texts) else "; the sources have changed since, see --full"
    return f"{population.record}: {caught}{stale}"


def save(result: dict[str, Any], population: Population) -> None:
    population.results.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def print_summary(result: dict[str, Any], population: Population) -> None:
    for survivor in result["survivors"]:
        print(f"survived: {survivor['id']}  {survivor['file']}:{survivor['line']} {survivor['scope']}")
        print(*("    " + line for line in survivor["diff"]), sep="\n")
        print(f"    reason: {survivor['reason'] or 'NONE: write the missing test, or a reason into reasons.toml'}")
    late = f", {len(result['timed_out'])} of them by the clock" if result["timed_out"] else ""
    others = f"; {result['stillborn']} more do not compile" if result["stillborn"] else ""
    others += f"; of {result['same_code']} g++ makes the same code" if result["same_code"] else ""
    caught = f"{result['caught']} of {result['drawn']} caught{late}: {result['share']:.1%}"
    print(f"{caught} ({population.share:.0%} required){others}")

"""The outcome of a part's process: of pytest, of a certificate, of compute-sanitizer."""

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.gpu.runner import FAILED, LATE, PASSED, REFUSED, Ended, Outcome, by_exit_status

NO_TESTS = 5  # pytest's exit status where nothing was selected
FOUND = 86  # compute-sanitizer's exit status where it found something
REFUSALS = ("device not supported", "not supported on this", "insufficient permission", "permission denied",
            "operation not permitted", "failed to initialize", "unable to find injection", "no cuda-capable device",
            "unable to launch", "target application terminated before first instrumented api call")  # fmt: skip
SUMMARY = re.compile(r"^=+ (?:ERROR|RACECHECK) SUMMARY: (.*)$", re.MULTILINE)


def of_tests(ended: Ended) -> Outcome:
    """Counts, the tests that failed, why some were skipped, and the one that was running at the deadline."""
    notes = _lines(ended)
    counts = Counter(note["outcome"] for note in notes if note["outcome"] != "started")
    done = {note["test"] for note in notes if note["outcome"] != "started"}
    running = [note["test"] for note in notes if note["outcome"] == "started" and note["test"] not in done]
    failed = {note["test"]: note["why"] for note in notes if note["outcome"] == "failed"}
    skipped = sorted({note["why"] for note in notes if note["outcome"] == "skipped"})
    result = {"counts": dict(counts), "failed": failed, "skipped": skipped}
    summary = ", ".join(f"{n} {what}" for what, n in sorted(counts.items())) or "no test ran"
    if ended.status is None:
        return Outcome(LATE, f"ended at its deadline in {running[-1] if running else 'no test'}; {summary}", result)
    if ended.status == NO_TESTS or (ended.status == 0 and not counts["passed"]):
        return Outcome(FAILED, f"no test ran: {'; '.join(skipped) or 'none was selected'}", result)
    if ended.status != 0:
        first = next(iter(failed), None)
        why = f"{first}: {failed[first]}" if first else by_exit_status(ended).why
        return Outcome(FAILED, f"{summary}; {why}", result)
    return Outcome(PASSED, summary, result)


def _lines(ended: Ended) -> list[dict[str, Any]]:
    """One JSON object a line; the last one may have been cut off."""
    text = ended.notes.read_text(encoding="utf-8") if ended.notes.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def of_json(ended: Ended, summed_up: Callable[[dict[str, Any]], str]) -> Outcome:
    """Passed if it exits with 0; what it wrote to {notes}, or printed, is the result, also of a part that is late."""
    plain = by_exit_status(ended)
    text = ended.notes.read_text(encoding="utf-8") if ended.notes.exists() else _last_object(ended.output)
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        why = plain.why if plain.status != PASSED else "it gave no JSON"
        return Outcome(plain.status if plain.status != PASSED else FAILED, why)
    return Outcome(plain.status, summed_up(found), found)


def _last_object(output: str) -> str:
    return next((line for line in reversed(output.splitlines()) if line.startswith("{")), "")


def of_certificate(ended: Ended) -> Outcome:
    """`bnengine verify`: how many comparisons, those that disagree, and of each kind the one nearest to its bound."""

    def summed_up(found: dict[str, Any]) -> str:
        wrong = [row["what"] for row in found["rows"] if not row["ok"]]
        summary = f"{len(found['rows'])} comparisons"
        return f"{summary}, {len(wrong)} disagree: {wrong[0]}" if wrong else f"{summary} agree"

    outcome = of_json(ended, summed_up)
    if outcome.result is None:
        return outcome
    rows, nearest = outcome.result["rows"], dict[tuple[str, ...], dict[str, Any]]()
    for row in rows:
        key = row["what"].partition(" ")[0], row["a"], row["b"]
        if row["ok"] and (key not in nearest or _share(row) > _share(nearest[key])):
            nearest[key] = row
    kept = {"rows": len(rows), "disagree": [row for row in rows if not row["ok"]], "nearest": list(nearest.values())}
    result = {**outcome.result, **kept}
    if not rows:
        return Outcome(FAILED, "nothing was compared", result)
    return Outcome(outcome.status, outcome.why, result)


def _share(row: dict[str, Any]) -> float:
    return float(row["error"] / row["bound"]) if row["bound"] else 0.0


def of_environment(ended: Ended) -> Outcome:
    """What the machine is; failed where CuPy cannot be used on it."""
    return of_json(ended, lambda found: found["summary"])


def of_benchmark(ended: Ended) -> Outcome:
    """`bnengine bench`: how many figures, and targets reached; what it has written is kept if it comes to no end."""

    def summed_up(found: dict[str, Any]) -> str:
        rows, targets = found["rows"], found["targets"]
        void = sum(bool(row["void"]) for row in rows)
        measured = [target["reached"] for target in targets if target["reached"] is not None]
        summary = f"{len(rows)} rows, {void} of them void; {sum(measured)} of {len(targets)} targets reached"
        return f"{summary}, {len(targets) - len(measured)} not measured"

    outcome = of_json(ended, summed_up)
    if outcome.status == PASSED and all(row["void"] for row in outcome.result["rows"]):
        return Outcome(FAILED, f"nothing was measured: {outcome.why}", outcome.result)
    return outcome


def of_sanitizer(ended: Ended) -> Outcome:
    """A pass needs the sanitizer's own summary without an error and the program's last line."""
    summaries = SUMMARY.findall(ended.output)
    summary = "; ".join(summaries)
    clean = bool(summaries) and all(re.match(r"0 (errors|hazards)", s) for s in summaries)
    ran = re.search(r"^\d+ of \d+ kernels were launched", ended.output, re.MULTILINE)
    result = {"summary": summary, "launched": ran[0] if ran else None}
    if ended.status is None:
        return Outcome(LATE, f"ended at its deadline; {summary or 'no summary'}", result)
    own = [line.strip("= ").strip() for line in ended.output.splitlines() if line.startswith("=====")]
    if not ran and (refused := [line for line in own if any(r in line.lower() for r in REFUSALS)]):
        return Outcome(REFUSED, refused[0], result)
    if summaries and not clean:
        return Outcome(FAILED, summary, result)
    if ended.status != 0 or not ran or not clean:
        return Outcome(FAILED, by_exit_status(ended).why if ended.status else "there is no summary of it", result)
    return Outcome(PASSED, f"{summary}; {ran[0]}", result)

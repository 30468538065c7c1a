"""The targets on a CPU and what was measured, as the guide on speed shows them.

python -m tests.benchmarks.table [--write]

Prints the section from the newest tests/benchmarks/results/*-cpu.json, or writes it into the guide.
"""

import argparse
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bnengine.cli.bench_tables import milliseconds

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
GUIDE = ROOT / "examples" / "guides" / "speed.md"
BEGIN, END = "<!-- from tests.benchmarks.table -->", "<!-- until here -->"
HEADER = ("{}", "ours", "best of the others", "ours / theirs", "at most", "ours / floor", "at most")
Row = dict[str, Any]


def newest(folder: Path = RESULTS) -> tuple[Path, list[Row]] | None:
    """Return the file and the rows of the newest run; None without any."""
    runs = [(path, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*-cpu.json"))]
    return max(runs, key=lambda run: run[1][0]["environment"]["date"]) if runs else None


def section(run: tuple[Path, list[Row]] | None) -> str:
    """Return the table in Markdown, and what it was measured on."""
    if run is None:
        return "Not measured yet: run `make bench`."
    _, rows = run
    has = rows[0]["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in has["peers"].items() if version)
    cpu = f"{has['processor'] or has['machine']}, {has['threads']} threads"
    lines = [tuple(cell.format(cpu) for cell in HEADER), ("---",) * len(HEADER), *table(rows)]
    cells = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text = (
        f"{cells}\n\nMeasured on {has['date'][:10]} by `make bench` at {has['commit'][:12] if has['commit'] else '?'}"
    )
    return text + f" ({versions}; instruction set {has['isa']}). {resting(rows)}. Bold: target missed."


def resting(rows: Iterable[Row]) -> str:
    """Return how idle the machine was."""
    again, kept = (sum(row[name] for row in rows) for name in ("disturbed", "disturbed_kept"))
    return f"{again} timings were repeated because of other load" + (f"; {kept} stayed noisy" if kept else "")


def table(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    """Return a line per row. The products of a network share a line; rows that only the plot needs have none."""
    lines, products = list[tuple[str, ...]](), dict[str, list[Row]]()
    for row in rows:
        if row["kind"] == "product":
            products.setdefault(row["given"]["workload"], []).append(row)
        elif row["kind"] != "sweep":
            lines.append(line(row))
    return [*lines, *(of_products(name, some) for name, some in products.items())]


def line(row: Row) -> tuple[str, ...]:
    best = row["best_peer"]
    why = next(iter(row["void"].values()), "not measured")
    ours = f"none ({why})" if row["ours_ms"] is None else milliseconds(row["ours_ms"])
    theirs = "" if best is None else f"{milliseconds(row['peers_ms'][best])} ({best})"
    cells = [figure(row, name) for name in ("ratio_to_best_peer", "ratio_to_floor")]
    return row["name"], ours, theirs, *(cell for pair in cells for cell in pair)


def figure(row: Row, name: str) -> tuple[str, str]:
    """Return a ratio, bold where it misses its target, and the target."""
    value, aim = row[name], row["target"].get(name)
    ratio = "" if value is None else f"{value:.2f}"
    return (f"**{ratio}**" if row["reached"].get(name) is False else ratio), "" if aim is None else f"{aim:.2f}"


def of_products(name: str, rows: list[Row]) -> tuple[str, ...]:
    """Return the range of the ratios of a network's products, and how many reach the target."""
    known = [row for row in rows if row["ratio_to_best_peer"] is not None]
    what = f"products of {name}, one thread, relative to {rows[0]['best_peer'] or 'OpenBLAS'}"
    if not known:
        return f"products of {name}, one thread", "none", "", "", "", "", ""
    ratios = [row["ratio_to_best_peer"] for row in known]
    within = sum(row["reached"]["ratio_to_best_peer"] for row in known)
    span = f"{min(ratios):.2f} to {max(ratios):.2f}"
    span = span if within == len(rows) else f"**{span}**"
    aim = rows[0]["target"]["ratio_to_best_peer"]
    return what, f"{within} of {len(rows)} within the aim", "", span, f"{aim:.2f}", "", ""


def placed(text: str, part: str) -> str:
    """Return the guide with the new section."""
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"table: {GUIDE.name} has no lines {BEGIN} and {END}")
    return pattern.sub(lambda _match: f"{BEGIN}\n\n{part}\n\n{END}", text)


def write() -> None:
    """Write the section into the guide."""
    GUIDE.write_text(placed(GUIDE.read_text(encoding="utf-8"), section(newest())), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put it into the guide")
    if parser.parse_args().write:
        write()
    else:
        print(section(newest()))

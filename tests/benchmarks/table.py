"""What is aimed at on a CPU and what was measured there, as the guide on speed has it.

python -m tests.benchmarks.table [--write]

Prints the section, or puts it in the guide's place, from the newest tests/benchmarks/results/*-cpu.json.
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
    """The file and the rows of the newest run; None if there was none."""
    found = [(path, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*-cpu.json"))]
    return max(found, key=lambda one: one[1][0]["environment"]["date"]) if found else None


def section(found: tuple[Path, list[Row]] | None) -> str:
    """The table in Markdown, and what it was measured on."""
    if found is None:
        return "Not yet measured: `make bench` does it."
    _, rows = found
    has = rows[0]["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in has["peers"].items() if version)
    cpu = f"{has['processor'] or has['machine']}, {has['threads']} threads"
    lines = [tuple(cell.format(cpu) for cell in HEADER), ("---",) * len(HEADER), *table(rows)]
    told = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text = f"{told}\n\nMeasured on {has['date'][:10]} by `make bench` at {has['commit'][:12] if has['commit'] else '?'}"
    return text + f" ({versions}; instruction set {has['isa']}). {resting(rows)}. Bold: target missed."


def resting(rows: Iterable[Row]) -> str:
    """How far the machine was at rest."""
    again, kept = (sum(row[name] for row in rows) for name in ("disturbed", "disturbed_kept"))
    return f"{again} timings were repeated because of other load" + (f"; {kept} stayed noisy" if kept else "")


def table(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    """A line a row, products of one network in one; those of the plot alone are left out."""
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
    """A ratio, bold where it is beyond what is aimed at, and this."""
    value, aim = row[name], row["target"].get(name)
    told = "" if value is None else f"{value:.2f}"
    return (f"**{told}**" if row["reached"].get(name) is False else told), "" if aim is None else f"{aim:.2f}"


def of_products(name: str, rows: list[Row]) -> tuple[str, ...]:
    """The least and the most of all products of a network, and how many are within what is aimed at."""
    known = [row for row in rows if row["ratio_to_best_peer"] is not None]
    what = f"products of {name}, one thread, relative to {rows[0]['best_peer'] or 'OpenBLAS'}"
    if not known:
        return f"products of {name}, one thread", "none", "", "", "", "", ""
    ratios = [row["ratio_to_best_peer"] for row in known]
    within = sum(row["reached"]["ratio_to_best_peer"] for row in known)
    told = f"{min(ratios):.2f} to {max(ratios):.2f}"
    told = told if within == len(rows) else f"**{told}**"
    aim = rows[0]["target"]["ratio_to_best_peer"]
    return what, f"{within} of {len(rows)} within the aim", "", told, f"{aim:.2f}", "", ""


def placed(text: str, part: str) -> str:
    """The guide with the section in its place."""
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"table: {GUIDE.name} has no lines {BEGIN} and {END}")
    return pattern.sub(lambda _found: f"{BEGIN}\n\n{part}\n\n{END}", text)


def write() -> None:
    """Put the section into the guide."""
    GUIDE.write_text(placed(GUIDE.read_text(encoding="utf-8"), section(newest())), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put it into the guide")
    if parser.parse_args().write:
        write()
    else:
        print(section(newest()))

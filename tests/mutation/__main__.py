"""Mutation testing: python -m tests.mutation --list | --draw 200 | --sample 20 | --full | --only ID | --baseline

Tests that find no fault in a mutant would find none in a mistake. Mutants are made of the Python sources, or with
`--population cuda` or `cpu` of kernels and their launchers, and judged by the tests in a copy of the package; the
checkout is never written to. A mutant that times out counts as caught. A survivor needs a reason in reasons.toml. A
kernel that g++ refuses, or makes the same native code of, is no mutant: the next one in the draw takes its place.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from . import baseline, native
from .journal import Journal, state_of
from .mutants import Mutant, all_mutants, ranked, read
from .populations import POPULATIONS
from .report import enough, explain, print_summary
from .runner import Outcome, Runner

ROOT = Path(__file__).resolve().parents[2]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="print every mutant")
    what.add_argument("--draw", type=int, metavar="N", help="print N drawn mutants")
    what.add_argument("--sample", type=int, metavar="N", help="judge N drawn mutants")
    what.add_argument("--full", action="store_true", help="judge as many as a full run has")
    what.add_argument(
        "--only", nargs="+", metavar="ID", help="judge these mutants and print their diff and the tests' last lines"
    )
    what.add_argument(
        "--baseline", action="store_true", help="judge the counterparts of the recorded mutants (baseline.py)"
    )
    parser.add_argument("--population", choices=POPULATIONS, default="package", help="what to mutate (%(default)s)")
    parser.add_argument("--seed", type=int, help="of the draw (default: the population's own)")
    parser.add_argument("--jobs", type=int, default=2, help="mutants judged at a time (default: %(default)s)")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="note verdicts there, and take known ones from it")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    population = POPULATIONS[args.population]
    seed = population.seed if args.seed is None else args.seed
    texts = read(ROOT, population.files)
    everything = all_mutants(texts)
    if args.list:
        print(*everything, f"{len(everything)} mutants", sep="\n")
        return 0
    if population.name in ("cuda", "cpu") and not args.draw and shutil.which("g++") is None:
        raise SystemExit("mutation: there is no g++ on the PATH to run the kernels with; install it")
    if population.name == "cpu" and not args.draw and not native.runs():
        raise SystemExit("mutation: this processor runs no instruction set that native kernels are judged in: v3, v4")
    if args.only:
        by_id = {mutant.id: mutant for mutant in everything}
        if unknown := [name for name in args.only if name not in by_id]:
            raise SystemExit(f"mutation: no mutant {', '.join(unknown)}; --list prints all")
        some = [by_id[name] for name in args.only]
        outcomes = judged(some, texts, args, count=len(some), output=True)
        return int(any(o.verdict == "survived" for o in outcomes))
    journal = Journal(args.journal, ROOT)
    if args.baseline:
        return compared(everything, texts, args, journal)
    count = args.draw or args.sample or population.full
    candidates = ranked(everything, texts, seed=seed)
    if args.draw:
        print(*islice(candidates, count), sep="\n")
        return 0
    print(f"{count} of {len(everything)} mutants, drawn with seed {seed}", flush=True)
    outcomes, reasons = judged(candidates, texts, args, count=count, journal=journal), explain()
    print_summary(outcomes, population, texts, reasons)
    return 0 if enough(outcomes, population, reasons) else 1


def compared(everything: list[Mutant], texts: dict[str, str], args: argparse.Namespace, journal: Journal) -> int:
    """Judge the counterparts of the baseline's mutants; 0 if at least as many are caught."""
    commit, entries = baseline.load()
    found = baseline.counterparts(entries, everything)
    print(f"{len(found)} of {len(entries)} mutants of {commit} have a counterpart", flush=True)
    some = list({mutant.id: mutant for mutant in found.values()}.values())
    outcomes = judged(some, texts, args, count=len(some), journal=journal)
    return 0 if baseline.compare(entries, found, outcomes) else 1


def judged(
    candidates: Iterable[Mutant], texts: dict[str, str], args: argparse.Namespace, *,
    count: int, journal: Journal | None = None, output: bool = False,
) -> list[Outcome]:  # fmt: skip
    """The outcomes of the first `count` candidates that live, and of those before them that do not."""
    waiting, began = iter(candidates), time.monotonic()
    drawn: list[Mutant] = []
    outcomes: list[Outcome] = []
    # A small sample is not worth the minutes in which the calls of all tests are recorded.
    recorded = calls_file() if args.population == "package" and not args.sample else None
    with Runner(ROOT, texts, jobs=args.jobs, recorded=recorded) as runner:
        while missing := count - sum(outcome.lives for outcome in outcomes):
            more = list(islice(waiting, missing))
            if not more:
                break
            drawn += more
            known = journal.outcomes(more) if journal else []
            outcomes += known
            left = [m for m in more if m not in {outcome.mutant for outcome in known}]
            print(runner.check(left), flush=True)
            for outcome in runner.judge(left):
                outcomes.append(outcome)
                if journal:
                    journal.add(outcome)
                show(outcome, len(outcomes), texts, output=output)
    print(f"{len(outcomes)} mutants in {time.monotonic() - began:.0f} s")
    order = {mutant.id: i for i, mutant in enumerate(drawn)}
    return sorted(outcomes, key=lambda outcome: order[outcome.mutant.id])


def calls_file() -> Path:
    """Where the calls of the tests of these sources are recorded."""
    (ROOT / "build").mkdir(exist_ok=True)
    return ROOT / "build" / f"calls-{state_of(ROOT)[:16]}.jsonl"


def show(outcome: Outcome, number: int, texts: dict[str, str], *, output: bool) -> None:
    print(f"{number:4d} {outcome.seconds:5.1f} s  {outcome.verdict:9s} {outcome.stage:8s} {outcome.mutant}")
    if output or outcome.verdict == "survived":
        print(*("      " + line for line in outcome.mutant.diff(texts[outcome.mutant.path])), sep="\n")
    if output:
        print(outcome.output)
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())

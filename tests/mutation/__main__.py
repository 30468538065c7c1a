"""Mutation testing: python -m tests.mutation --list | --draw 200 | --sample 20 | --full | --only ID

Tests that find no fault in a mutant would find none in a mistake. Mutants are made of the files that compute (FILES in
mutants.py) and judged by the tests in a copy of the package; the checkout is never written to, but for results.json.
A mutant that times out counts as caught. A survivor needs a reason in reasons.toml.
"""

import argparse
import sys
import time
from pathlib import Path

from .mutants import Mutant, all_mutants, draw, read
from .report import REASONS, SHARE, commit_of, explain, figures, note_on_record, print_summary, save
from .runner import Outcome, Runner

ROOT = Path(__file__).resolve().parents[2]
SEED = 2015
FULL = 200


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="print every mutant")
    what.add_argument("--draw", type=int, metavar="N", help="print N drawn mutants")
    what.add_argument("--sample", type=int, metavar="N", help="judge N drawn mutants")
    what.add_argument("--full", action="store_true", help=f"judge {FULL} drawn mutants and write results.json")
    what.add_argument(
        "--only", nargs="+", metavar="ID", help="judge these mutants and print their diff and the tests' last lines"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="of the draw (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="mutants judged at a time (default: %(default)s)")
    args = parser.parse_args()

    texts = read(ROOT)
    everything = all_mutants(texts)
    if args.list:
        print(*everything, f"{len(everything)} mutants", sep="\n")
        return 0
    if args.only:
        by_id = {mutant.id: mutant for mutant in everything}
        if unknown := [name for name in args.only if name not in by_id]:
            parser.error(f"no mutant {', '.join(unknown)}; --list prints all")
        outcomes = judged([by_id[name] for name in args.only], texts, args.jobs, output=True)
        return int(any(o.verdict == "survived" for o in outcomes))
    count = args.draw or args.sample or FULL
    drawn = draw(everything, texts, seed=args.seed, count=count)
    if args.draw:
        print(*drawn, sep="\n")
        return 0
    print(f"{len(drawn)} of {len(everything)} mutants, drawn with seed {args.seed}", flush=True)
    commit = commit_of(ROOT)
    outcomes = judged(drawn, texts, args.jobs)
    result = figures(outcomes, texts, commit=commit, seed=args.seed, of=len(everything), reasons=explain())
    if args.full:
        save(result)
    print_summary(result)
    print(note_on_record(texts))
    enough = result["share"] >= SHARE
    if args.full:
        return 0 if enough and not result["unexplained"] else 1
    # Of a small sample, survivors with a reason are known: only the others weigh.
    return 0 if len(drawn) - len(result["unexplained"]) >= SHARE * len(drawn) else 1


def judged(mutants: list[Mutant], texts: dict[str, str], jobs: int, *, output: bool = False) -> list[Outcome]:
    began = time.monotonic()
    outcomes = []
    with Runner(ROOT, texts, jobs=jobs) as runner:
        seconds = runner.check({mutant.path for mutant in mutants})
        print(f"the copy passes {len(seconds)} test files in {sum(seconds.values()):.0f} s", flush=True)
        for outcome in runner.judge(mutants):
            outcomes.append(outcome)
            print(
                f"{len(outcomes):4d} {outcome.seconds:5.1f} s  {outcome.verdict:9s} {outcome.stage:5s} {outcome.mutant}"
            )
            if output or outcome.verdict == "survived":
                print(*("      " + line for line in outcome.mutant.diff(texts[outcome.mutant.path])), sep="\n")
            if output:
                print(outcome.output)
            sys.stdout.flush()
    print(f"{len(outcomes)} mutants in {time.monotonic() - began:.0f} s")
    order = {mutant.id: i for i, mutant in enumerate(mutants)}
    return sorted(outcomes, key=lambda outcome: order[outcome.mutant.id])


if __name__ == "__main__":
    if not REASONS.exists():
        raise SystemExit(f"mutation: {REASONS.name} is missing")
    raise SystemExit(main())

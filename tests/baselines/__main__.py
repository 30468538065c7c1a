"""`python -m tests.baselines record` writes the records of this version; `check` compares it with them."""

import sys
from time import perf_counter

from .records import SECTIONS, Recorded, differences, native, record

USAGE = "usage: python -m tests.baselines record|check [operations|trainings|values ...]"


def main(arguments: list[str]) -> int:
    """The exit code: 1 where a digest differs, 2 for a mistake in the call."""
    command, *sections = arguments or [""]
    if command not in ("record", "check") or not set(sections) <= set(SECTIONS):
        print(USAGE, file=sys.stderr)
        return 2
    if reason := native():
        print(f"there are no native kernels: {reason}", file=sys.stderr)
        return 2
    wrong = 0
    for section in sections or SECTIONS:
        start = perf_counter()
        if command == "record":
            print(f"{section}: {record(section)} computations recorded", end="")
        else:
            wrong += check(section)
        print(f", {perf_counter() - start:.1f} s")
    return min(wrong, 1)


def check(section: str) -> int:
    """How many computations of a section differ, each printed."""
    recorded, runs = Recorded(section), list(SECTIONS[section]())
    lines = list(differences(section, recorded, iter(runs)))
    for line in lines:
        print(line)
    print(f"{section}: {len(runs)} computations, {len(lines)} differ", end="")
    if not recorded.same_numpy:
        print(f"; NumPy computes otherwise here than {recorded.made_by['numpy']} did: references by bounds", end="")
    return len(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

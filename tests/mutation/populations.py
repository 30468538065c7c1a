"""What is mutated: the Python sources, and CUDA and native kernels with their launchers."""

from typing import NamedTuple

SHARED = "bnengine/fused/_launch.py"  # by the launchers of both


class Population(NamedTuple):
    """Files by patterns from the root, "!" before those left out, and the seed that draws among their mutants."""

    name: str
    files: tuple[str, ...]
    seed: int
    full: int = 200  # mutants of a full run
    share: float = 0.9  # of them must be caught


POPULATIONS = {
    population.name: population
    for population in (
        Population(
            "package",
            ("bnengine/**/*.py", "!bnengine/lab/**/*.py", "!bnengine/contracts/**/*.py"),
            2018,
            full=400,
            share=0.75,
        ),
        Population(
            "cuda",
            ("kernels/rules.h", "kernels/cuda/*.cuh", "kernels/cuda/*.cu", "bnengine/fused/cuda/*.py", SHARED),
            2016,
        ),
        Population(
            "cpu",
            ("kernels/rules.h", "kernels/cpu/*.h", "kernels/cpu/*.cpp", "bnengine/fused/cpu/*.py", SHARED),
            2017,
        ),
    )
}

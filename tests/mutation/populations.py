"""What is mutated: the Python sources that compute, and CUDA and native kernels with their launchers."""

from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
SHARED = "bnengine/fused/_launch.py"  # by the launchers of both


LAB = ("lab", "bench", "explain", "report", "verify")


class Population(NamedTuple):
    """Files by patterns from the root, the seed that draws among their mutants, and where the full result goes."""

    name: str
    files: tuple[str, ...]
    seed: int
    results: Path
    full: int = 200  # mutants of a full result
    share: float = 0.9  # of them must be caught
    by_calls: bool = False  # judged by the tests that call the mutated function (calls.py)

    def covers(self, path: str, scope: str) -> bool:
        """Whether a function's mutants belong to it: the checks of ops are contracts."""
        return not (self.by_calls and path.startswith("bnengine/ops/") and scope.startswith("_check"))

    @property
    def record(self) -> str:
        """The result's path from the root."""
        return f"tests/mutation/{self.results.name}"


POPULATIONS = {
    population.name: population
    for population in (
        Population(
            "python",
            (
                "bnengine/ops/*.py",
                "bnengine/contracts/*.py",
                "bnengine/layers/norm/batch_norm.py",
                "bnengine/optim/optimizers.py",
                "bnengine/training/state.py",
                "bnengine/training/step.py",
                "bnengine/training/table.py",
            ),
            2015,
            HERE / "results.json",
        ),
        Population(
            "cuda",
            ("kernels/rules.h", "kernels/cuda/*.cuh", "kernels/cuda/*.cu", "bnengine/fused/cuda/*.py", SHARED),
            2016,
            HERE / "cuda_results.json",
        ),
        Population(
            "cpu",
            ("kernels/rules.h", "kernels/cpu/*.h", "kernels/cpu/*.cpp", "bnengine/fused/cpu/*.py", SHARED),
            2017,
            HERE / "cpu_results.json",
        ),
        Population(
            "package",
            ("bnengine/**/*.py", *(f"!bnengine/{name}/**/*.py" for name in LAB), "!bnengine/contracts/**/*.py"),
            2018,
            HERE / "package_results.json",
            full=400,
            share=0.75,
            by_calls=True,
        ),
    )
}

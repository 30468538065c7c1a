"""What is mutated: the Python sources that compute, and CUDA and native kernels with their launchers."""

from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
SHARED = "bnengine/fused/_launch.py"  # by the launchers of both


class Population(NamedTuple):
    """Files by patterns from the root, the seed that draws among their mutants, and where the full result goes."""

    name: str
    files: tuple[str, ...]
    seed: int
    results: Path

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
                "bnengine/training/step.py",
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
    )
}

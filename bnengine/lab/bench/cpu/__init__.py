"""The benchmarks of a CPU: each contender in a process of its own, in interleaved rounds that nobody disturbs."""

from .report import CpuReport
from .run import bench_cpu

__all__ = ["CpuReport", "bench_cpu"]

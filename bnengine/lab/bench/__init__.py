"""The benchmarks a user can run: kernels and whole training steps, beside PyTorch, with the floor of the machine."""

from .report import NotRun, Report
from .run import bench
from .workloads import WORKLOADS, Workload

__all__ = ["WORKLOADS", "NotRun", "Report", "Workload", "bench"]

"""The benchmarks: single ops and training steps beside other frameworks, with the floor of the machine."""

from .report import CpuReport, NotRun, Report
from .run import bench
from .workloads import WORKLOADS, Workload

__all__ = ["WORKLOADS", "CpuReport", "NotRun", "Report", "Workload", "bench"]

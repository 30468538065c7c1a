"""The benchmarks: single ops and training steps, compared with other frameworks and the machine's floor."""

from .report import CpuReport, NotRun, Report
from .run import bench
from .workloads import WORKLOADS, Workload

__all__ = ["WORKLOADS", "CpuReport", "NotRun", "Report", "Workload", "bench"]

"""Reports: an HTML page that holds its pictures, and its numbers as CSV files."""

from .claims import claims_report
from .folder import check_folder, write
from .page import Link, Mark, Page
from .runs import Inspected, run_report

__all__ = ["Inspected", "Link", "Mark", "Page", "check_folder", "claims_report", "run_report", "write"]

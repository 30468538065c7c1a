"""The result of a run, written after every case: rows, targets, what was not run."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...errors import InputError
from ...storage.atomic import replace_file
from ...storage.codec import dumps, plain
from .cases import V3, Case
from .measure import Measured
from .rows import cpu_rows
from .targets import judged

ENDED = "the run ended before it"


class NotRun(NamedTuple):
    """What was left out, and why."""

    what: str
    why: str


@dataclass
class Report:
    """All that was measured so far, of a run in one process.

    `pending`: cases still to run; `path`: where it is written after every case, None for nowhere.
    """

    environment: dict[str, Any] = field(default_factory=dict)
    path: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    pending: list[Case] = field(default_factory=list)
    not_run: list[NotRun] = field(default_factory=list)
    copy_bandwidth: dict[str, Any] | None = None
    gemm_rate: dict[str, Any] | None = None

    def skip(self, case: Case, why: str) -> None:
        """Note that a case is not measured."""
        self.not_run.append(NotRun(case.name, why))

    def to_json(self) -> Any:
        """Return JSON values; a number that is not finite is None."""
        left = [*self.not_run, *(NotRun(case.name, ENDED) for case in self.pending)]
        return plain(
            {
                "environment": self.environment,
                "copy_bandwidth": self.copy_bandwidth,
                "gemm_rate": self.gemm_rate,
                "rows": self.rows,
                "targets": judged(self.rows),
                "not_run": [entry._asdict() for entry in left],
            }
        )

    def write(self) -> None:
        """Replace the file by what there is so far. InputError if it cannot be written."""
        if self.path is None:
            return
        try:
            replace_file(self.path, [(dumps(self.to_json(), indent=1) + "\n").encode()])
        except OSError as error:
            raise InputError(
                f"bench: {self.path} cannot be written ({error.strerror}); give --json a file in a folder that exists"
            ) from error


@dataclass
class CpuReport(Report):
    """All that was measured so far, of a run in processes on a CPU: a list of rows, which name what is void and why."""

    def skip(self, case: Case, why: str) -> None:
        """Add void rows for a case that is not measured."""
        self.rows += self._void_rows(case, why)

    def to_json(self) -> Any:
        """Return the rows as JSON values, those of pending cases included."""
        return plain([*self.rows, *(row for case in self.pending for row in self._void_rows(case, ENDED))])

    def _void_rows(self, case: Case, why: str) -> list[dict[str, Any]]:
        void = {role: why for role in case.roles if role in (case.roles[0], V3)}
        return cpu_rows(case, Measured(void=void), self.environment)

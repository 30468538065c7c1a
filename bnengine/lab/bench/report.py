"""What a run of the benchmarks leaves: rows, targets, what was not run; written anew after every part."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...errors import InputError
from ...storage.atomic import replace_file
from ...storage.codec import dumps, plain
from .targets import judged


class NotRun(NamedTuple):
    """What was left out, and why."""

    what: str
    why: str


@dataclass
class Report:
    """All that was measured so far.

    `pending`: parts that are still to be run; `path`: where it is written after every part, None for nowhere.
    """

    environment: dict[str, Any] = field(default_factory=dict)
    copy_bandwidth: dict[str, Any] | None = None
    gemm_rate: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    not_run: list[NotRun] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    path: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values; a number that is not finite is None."""
        left = [*self.not_run, *(NotRun(what, "the run ended before it") for what in self.pending)]
        found: dict[str, Any] = plain(
            {
                "environment": self.environment,
                "copy_bandwidth": self.copy_bandwidth,
                "gemm_rate": self.gemm_rate,
                "rows": self.rows,
                "targets": judged(self.rows, self.environment.get("measured_on") == "GPU"),
                "not_run": [one._asdict() for one in left],
            }
        )
        return found

    def write(self) -> None:
        """Put what there is so far in the place of the file; InputError if it cannot be written."""
        if self.path is not None:
            put(self.path, self.to_json())


def put(path: str, found: Any) -> None:
    """JSON values in the place of a file; InputError if it cannot be written."""
    text = dumps(found, indent=1) + "\n"
    try:
        replace_file(path, [text.encode()])
    except OSError as error:
        raise InputError(
            f"bench: {path} cannot be written ({error.strerror}); give --json a file in a folder that exists"
        ) from error

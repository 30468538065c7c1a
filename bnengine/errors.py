"""The errors that bnengine raises."""

from typing import Any


class InputError(ValueError):
    """An argument cannot be used. The message is `where: what is wrong, got VALUE. What to do.`"""


class BackendError(InputError):
    """A backend cannot be used on this machine."""


class DataError(InputError):
    """Data are truncated, mislabeled, empty or of the wrong kind; the message names the file and the place."""


class TargetMissing(DataError):
    """A table needs a target column, and none is named.

    Args:
        path: of the table.
        columns: its columns, for a reader.
    """

    def __init__(self, path: Any, columns: str) -> None:
        self.path, self.columns = path, columns
        super().__init__(self.message("target='...'"))

    def message(self, option: str) -> str:
        """Return the error for a reader who names the column by `option`."""
        return f"{self.path}: name the target column ({option}); the columns are {self.columns}"

    def __reduce__(self) -> Any:
        return type(self), (self.path, self.columns)


class CheckpointError(InputError):
    """A checkpoint or run folder cannot be read or written."""


class TrainingFailed(RuntimeError):
    """Training cannot continue: too many steps in a row were not finite, or a batch does not fit into memory."""

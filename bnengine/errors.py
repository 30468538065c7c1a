"""What can go wrong by a user's hand, and what a run can fail of."""

from typing import Any


class InputError(ValueError):
    """What the user gave cannot be used: the message starts with the layer, op or command and names the cure."""


class BackendError(InputError):
    """The backend that was named cannot be used here."""


class DataError(InputError):
    """Data are truncated, mislabelled, empty or of the wrong kind: the message names the file and the place."""


class TargetMissing(DataError):
    """A table needs a target column, and none is named: its path, and its columns for a reader."""

    def __init__(self, path: Any, columns: str) -> None:
        self.path, self.columns = path, columns
        super().__init__(self.message("target='...'"))

    def message(self, option: str) -> str:
        """The error for a reader who names the column by `option`."""
        return f"{self.path}: name the target column ({option}); the columns are {self.columns}"

    def __reduce__(self) -> Any:
        return type(self), (self.path, self.columns)


class CheckpointError(InputError):
    """A checkpoint or run folder cannot be read or written."""


class TrainingFailed(RuntimeError):
    """Training cannot go on: too many steps in a row were not finite, or a batch does not fit into memory."""

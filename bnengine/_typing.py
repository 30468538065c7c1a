"""Names for types that no library shares: an array or dtype of whichever array library the user brought."""

from typing import Any

Array = Any
DType = Any

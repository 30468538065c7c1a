"""Names for types that array libraries do not share: an array or dtype of any of them."""

from typing import Any

Array = Any
DType = Any

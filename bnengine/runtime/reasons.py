"""Why a fused version of an op does not run: a kind for code, and words for a reader."""

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """The kinds of reasons why a fused version does not run."""

    MODE = "the mode asks for the reference"
    NONE = "there is no fused version for arrays of this library"
    ARRAY = "the kernels do not take this kind of array"
    MISSING = "the kernels do not run on this machine"


class Reason(NamedTuple):
    """The reason why a fused version does not run."""

    kind: Kind
    text: str

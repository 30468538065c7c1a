"""The math: the reference of each op, and its derivative right below it.

Every op is a pure function of arrays. `u` is the unit of rounding of the arithmetic's dtype: 2**-24 for float32, which
is also what arrays of 16 bits are computed in. Examples, error bounds and checks of arguments are in
`bnengine.contracts`: a user's call raises InputError for shapes, dtypes and options that do not fit; calls inside a
training step are not checked again.
"""

from ..runtime.modes import Out, onto, using
from ..runtime.op import REGISTRY, Contract, Example, Op, op
from . import update
from .batch_norm import batch_norm, normalize, normalize_backward
from .check_step import check_step
from .dense import affine, affine_backward
from .dropout import dropout, dropout_backward
from .gather import gather, gather_raw
from .loss import binary_cross_entropy, correct, mean_squared_error, softmax_cross_entropy
from .pointwise import activation, activation_backward, total
from .statistics import commit, merge, moments
from .tf_signature import batch_normalization
from .update import *  # noqa: F403 -- an op for each optimizer, and the counters

__all__ = [
    "REGISTRY",
    "Contract",
    "Example",
    "Op",
    "Out",
    "activation",
    "activation_backward",
    "affine",
    "affine_backward",
    "batch_norm",
    "batch_normalization",
    "binary_cross_entropy",
    "check_step",
    "commit",
    "correct",
    "dropout",
    "dropout_backward",
    "gather",
    "gather_raw",
    "mean_squared_error",
    "merge",
    "moments",
    "normalize",
    "normalize_backward",
    "onto",
    "op",
    "softmax_cross_entropy",
    "total",
    "using",
]
__all__ += update.__all__

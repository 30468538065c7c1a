"""gather: a micro-batch out of the data on the device, all its arrays in one launch."""

from math import prod

from ... import ops
from ...runtime.memory import Outputs
from .._arguments import Call
from ._launch import Kernel, flat_grid, target_name, vector_of, version

GATHER = Kernel(
    "gather", file="gather.cu", whole="x target:Y weights:wide samples:index divisors:wide order:index cursor:index",
    writes="x_out target_out:Y weights_out:wide samples_out:index divisor_out:wide",
    integers="rows features targets weighed offset",
)  # fmt: skip


@version(ops.gather)
def gather(to: Outputs, call: Call) -> None:
    """Rows of x by packs of 16 bytes, the rest one by one."""
    features, targets, weighed = (1 if a is None else prod(a.shape[1:]) for a in (call.x, call.target, call.weights))
    vector = vector_of(call.x, features, call.x, call.to_x)
    GATHER(
        to, call, vector, target_name(call.target), grid=flat_grid(call.x, call.rows * features, vector),
        x_out=call.to_x, target_out=call.to_target, weights_out=call.to_weights, samples_out=call.to_samples,
        divisor_out=call.to_divisor, features=features, targets=targets, weighed=weighed,
    )  # fmt: skip

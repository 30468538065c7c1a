"""What a launch of a CUDA kernel passes is what its source takes, by name and in order."""

import re

import pytest

from bnengine.fused.cuda import _launch, batch_norm, dense, dropout, gather, loss, pointwise, update
from tests.support import ROOT

MODULES = (_launch, batch_norm, dense, dropout, gather, loss, pointwise, update)
KERNELS = [
    found for module in MODULES for found in vars(module).values() if isinstance(found, _launch.Kernel)
]  # fmt: skip


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_a_launch_passes_what_the_source_takes(kernel):
    text = (ROOT / "kernels" / "cuda" / kernel.file).read_text(encoding="utf-8")
    parameters = re.search(rf"__global__[^{{;]*?\b{kernel.name}\(([^{{]*)\) {{", text)[1].split(",")
    taken = [parameter.split()[-1] for parameter in parameters]
    kinds = [parameter.split()[0] for parameter in parameters]
    of = kernel.sections
    arrays = [name for part in ("whole", "channels", "reads", "writes", "scratch") for name in of[part]]
    assert taken == [*arrays, *["arrivals"] * kernel.counts, *of["integers"], *of["reals"], *of["flags"]]
    scalars = ["index"] * len(of["integers"]) + ["double"] * len(of["reals"]) + ["bool"] * len(of["flags"])
    assert kinds[len(taken) - len(scalars) :] == scalars

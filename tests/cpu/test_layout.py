"""The arguments of kernels are declared once: headers of C++ and CUDA are written from the launchers."""

import re

import numpy as np
import pytest

from bnengine.fused.cpu import _launch
from bnengine.ops.update import RULES
from bnengine.runtime.memory import Memory
from tests.layouts import HEADERS, kernels, text
from tests.support import ROOT


@pytest.mark.parametrize("folder", HEADERS)
def test_a_header_is_what_the_declarations_say(folder):
    assert HEADERS[folder].read_text(encoding="utf-8") == text(folder), "run python -m tests.layouts"


def test_a_cuda_kernel_takes_the_parameters_of_its_declaration():
    declared = {kernel.name: kernel.file for kernel in kernels("cuda")}
    taken = dict[str, str]()
    for path in sorted((ROOT / "kernels" / "cuda").glob("*.cu")):
        for name, parameters in re.findall(r"__global__[^{;]*?\b(\w+)\(([^()]*)\) {", path.read_text(encoding="utf-8")):
            names = RULES if name == "OP" else [name]
            assert parameters == f"PARAMETERS_{'##OP' if name == 'OP' else name}"
            taken |= dict.fromkeys(names, path.name)
    assert taken == declared


def test_a_kernel_reads_its_arguments_by_name():
    places = re.compile(r"\b(arrays|integers|reals)\[")
    for path in sorted((ROOT / "kernels" / "cpu").glob("*.cpp")):
        if path.name != "replay.cpp":
            assert not places.search(path.read_text(encoding="utf-8")), path.name


@pytest.mark.parametrize("folder", HEADERS)
def test_a_name_is_declared_once(folder):
    names = [kernel.name for kernel in kernels(folder)]
    assert sorted(set(names)) == sorted(names)
    for kernel in kernels(folder):
        listed = [argument.name for arguments in kernel.arguments.values() for argument in arguments]
        assert sorted(set(listed)) == sorted(listed), kernel.name


def test_a_launch_gives_each_name_a_value():
    x = np.zeros(3, np.float32)
    for given in ({"out": x}, {"out": x, "value": 1.0, "values": 2.0}):
        with pytest.raises(TypeError, match=r"^fill: a launch passes \['out', 'value'\], got "):
            _launch.FILL(Memory().outputs({}), x, **given)
    _launch.FILL(Memory().outputs({}), x, out=x, value=1)
    assert x[0] == 1

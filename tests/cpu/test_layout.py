"""What launches pass is declared once: the header that kernels read it by is written from the launchers."""

import re

import numpy as np
import pytest

from bnengine.fused.cpu import _launch
from bnengine.runtime.memory import Memory
from tests.cpu.layout import HEADER, kernels, text
from tests.support import ROOT


def test_the_header_is_what_the_declarations_say():
    assert HEADER.read_text(encoding="utf-8") == text(), "run python -m tests.cpu.layout"


def test_a_kernel_reads_its_arguments_by_name():
    places = re.compile(r"\b(arrays|integers|reals)\[")
    for path in sorted((ROOT / "kernels" / "cpu").glob("*.cpp")):
        text = path.read_text(encoding="utf-8")
        if path.name == "update.cpp":  # a rule has as many slots, flags and settings as its row says: `Step` counts
            text = text[: text.index("struct Step {")] + text[text.index("// Elements [begin, end). `Set`") :]
        if path.name != "replay.cpp":
            assert not places.search(text), path.name


def test_a_name_is_declared_once():
    names = [kernel.name for kernel in kernels()]
    assert sorted(set(names)) == sorted(names)
    for kernel in kernels():
        listed = [name for names in kernel.sections.values() for name in names]
        assert sorted(set(listed)) == sorted(listed), kernel.name


def test_a_launch_gives_each_name_a_value():
    x = np.zeros(3, np.float32)
    for given in ({"out": x}, {"out": x, "value": 1.0, "values": 2.0}):
        with pytest.raises(TypeError, match=r"^fill: a launch passes \['out', 'value'\], got "):
            _launch.FILL(Memory().outputs({}), x, **given)
    _launch.FILL(Memory().outputs({}), x, out=x, value=1)
    assert x[0] == 1

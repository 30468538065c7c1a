"""The processor's floating-point mode: neither loading the library nor running it changes what the caller had."""

import platform
import subprocess
import sys

import pytest

from tests.cpu.driver import compiled
from tests.support import ROOT

# fegetenv of glibc: on x86-64 the control word of the x87 comes first and MXCSR last, whose upper bits are the mode and
# whose lower ones are flags; on aarch64 FPCR comes first.
SCRIPT = """
import ctypes, platform, sys, threading
import numpy as np
libm = ctypes.CDLL("libm.so.6")
env = (ctypes.c_uint32 * 8)()
arm = platform.machine() == "aarch64"
ZERO = 1 << 24 if arm else 0x8040  # subnormal numbers count as 0

def mode():
    assert libm.fegetenv(env) == 0
    return (env[0],) if arm else (env[0] & 0xFFFF, env[7] & 0xFFC0)

def zero():
    mode()
    env[0 if arm else 7] |= ZERO
    assert libm.fesetenv(env) == 0
    return mode()

modes = [mode()]
if len(sys.argv) > 1:
    ctypes.CDLL(sys.argv[1])
    modes.append(mode())

from bnengine import threads
from bnengine.fused.cpu import _load
from bnengine.fused.cpu.native import NativeKernel
assert _load.available() is None
modes.append(mode())
x, out = np.ones(4096, np.float32), np.zeros(4096, np.float32)
copy = NativeKernel("copy<float>", x.size, 16, 64)
for count in (1, 2):
    threads.set(count)
    copy(x, out)
    modes.append(mode())
other = threading.Thread(target=lambda: modes.append(mode()))
other.start()
other.join()
threads.release()
modes.append(mode())
print(len(modes), len(set(modes)))

changed = zero()
assert changed != modes[0]
kept = []
for count in (1, 2):
    threads.set(count)
    copy(x, out)
    kept.append(mode() == changed)
print(kept)
"""

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "aarch64"),
    reason="the place of the mode is known for Linux on x86-64 and aarch64",
)


def said(*arguments):
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.usefixtures("native")
def test_loading_and_running_leave_the_floating_point_mode_alone():
    assert said() == ["6 1", "[True, True]"]


@pytest.mark.usefixtures("native")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the library that is planted is written for x86-64")
def test_a_library_that_changes_the_mode_as_it_is_loaded_is_seen(tmp_path):
    source = tmp_path / "fast.cpp"
    source.write_text(
        "__attribute__((constructor)) static void loaded() {\n"
        "  __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040);\n}\n"
    )
    assert said(compiled(source, name="fast", shared=True))[0] == "7 2"

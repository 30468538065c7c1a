"""The native library found, or why not: each reason in its words, each mistake in the environment named."""

import ctypes
import os
import re
import shutil
import subprocess
import sys

import pytest

from bnengine.fused.cpu import _load
from tests.cpu.driver import compiled
from tests.support import ROOT

ASK = """
from bnengine import threads
from bnengine.errors import InputError
from bnengine.fused.cpu import _load
try:
    print(_load.available())
    print(_load.isa() if _load.available() is None else "-", threads.get())
except InputError as error:
    print("InputError:", error)
"""


def asked(**environment):
    """What a new process finds, a line each; it looks for the library where this one did."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BNENGINE_") or k == "BNENGINE_CPU_LIBRARY"}
    command = [sys.executable, "-W", "error", "-c", ASK]
    done = subprocess.run(command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def there(native):
    opened = native.library()
    return [name for name in native.sets(opened) if opened.bnengine_isa_runs(name.encode())]


def test_the_most_capable_instruction_set_runs_by_default(native):
    runs = there(native)
    assert asked()[1].split()[0] == runs[0]
    for name in runs:
        assert asked(BNENGINE_ISA=name)[1].split()[0] == name


def test_an_instruction_set_that_is_not_there_is_an_error(native):
    assert asked(BNENGINE_ISA="avx2") == [
        "InputError: BNENGINE_ISA: 'avx2' is not one of v4, v3, aarch64; unset it for the most capable one"
    ]
    absent = next(name for name in _load.SETS if name not in there(native))
    message = asked(BNENGINE_ISA=absent)[0]
    assert message == f"InputError: BNENGINE_ISA: this processor does not run {absent}, but {', '.join(there(native))}"


@pytest.mark.usefixtures("native")
def test_the_environment_says_the_number_of_threads():
    assert asked(BNENGINE_NUM_THREADS="3")[1].endswith(" 3")
    for wrong, got in (("0", "0"), ("257", "257"), ("two", "'two'"), ("1.5", "'1.5'")):
        assert asked(BNENGINE_NUM_THREADS=wrong) == [
            f"InputError: BNENGINE_NUM_THREADS: the number of threads must be an integer from 1 to 256, got {got}. "
            "Unset it for one thread per core."
        ]


def test_a_library_that_is_not_there_is_a_reason_and_one_thread(tmp_path):
    why, rest = asked(BNENGINE_CPU_LIBRARY=str(tmp_path / "_kernels.so"))
    assert why.startswith("no native kernels were built: ")
    assert rest == "- 1"


def test_a_file_that_is_no_library_is_a_reason(tmp_path):
    broken = tmp_path / "_kernels.so"
    broken.write_bytes(b"not a library")
    assert asked(BNENGINE_CPU_LIBRARY=str(broken))[0].startswith(f"{broken} cannot be loaded: ")


def test_a_library_of_another_interface_is_a_reason(tmp_path):
    source = tmp_path / "other.cpp"
    source.write_text('extern "C" int bnengine_interface() { return 0; }\n')
    other = compiled(source, name="other", shared=True)
    cure = "(run `make kernels`|install bnengine again)"
    assert re.search(rf"has interface 0, not \d+; {cure}", asked(BNENGINE_CPU_LIBRARY=str(other))[0])
    source.write_text("int nothing;\n")
    strange = compiled(source, name="strange", shared=True)
    assert "cannot be loaded" in asked(BNENGINE_CPU_LIBRARY=str(strange))[0]


def test_every_function_of_the_header_has_its_types():
    header = (ROOT / "kernels" / "cpu" / "replay.h").read_text()
    declared = re.findall(r"^BNENGINE_EXPORT .*?(bnengine_\w+)\(([^;]*)\);", header, re.MULTILINE | re.DOTALL)
    counts = {name: len(given.split(",")) if given.strip() else 0 for name, given in declared}
    assert counts.pop("bnengine_interface") == 0
    assert counts == {name: len(arguments) for name, (_, arguments) in _load._SIGNATURES.items()}
    number = re.search(r"kInterface = (\d+);", (ROOT / "kernels" / "cpu" / "tables.cpp").read_text())[1]
    assert int(number) == _load.INTERFACE


def test_every_instruction_set_has_the_same_kernels(native):
    opened = native.library()
    taken, names = native.isa(), dict[str, list[str]]()
    try:
        for name in there(native):
            native.done(opened.bnengine_choose_isa(name.encode()), name)
            assert native.isa() == name
            names[name] = native.kernels()
    finally:
        native.done(opened.bnengine_choose_isa(taken.encode()), taken)
    assert all(found == native.kernels() for found in names.values())
    assert len(set(native.kernels())) == len(native.kernels()) > 0


def test_no_weak_symbol_is_shared_by_instruction_sets(native):
    """An inline function compiled for several of them, and kept once, would run AVX-512 code where there is none."""
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    done = subprocess.run(["nm", "-C", native.path()], capture_output=True, text=True, check=True)
    weak = [line.split(maxsplit=2)[2] for line in done.stdout.splitlines() if re.match(r"[0-9a-f]+ [WVu] ", line)]
    assert not [name for name in weak if not re.search(r"\bbnengine_(v3|v4|aarch64)::", name)]


def test_the_library_needs_the_c_library_alone(native):
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed")
    done = subprocess.run(["objdump", "-p", native.path()], capture_output=True, text=True, check=True)
    needed = re.findall(r"NEEDED\s+(\S+)", done.stdout)
    assert needed
    assert all(re.match(r"lib(c|pthread)\.so|ld-linux", name) for name in needed)


def test_the_structures_are_as_large_as_in_c():
    assert ctypes.sizeof(_load.Group) == 32
    assert ctypes.sizeof(_load.Launch) == 40


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_the_library_needs_only_glibc_2_17(native):
    """kernels/cpu/glibc.h names the old versions: by them a wheel is for manylinux2014."""
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed")
    done = subprocess.run(["objdump", "-T", native.path()], capture_output=True, text=True, check=True)
    needed = re.findall(r"\*UND\*.*\(GLIBC_([\d.]+)\)\s+(\S+)", done.stdout)
    assert needed
    assert not [name for version, name in needed if tuple(map(int, version.split("."))) > (2, 17)]

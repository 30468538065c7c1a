"""Mutants of native kernels: where each is compiled, what is no mutant, and which tests judge it."""

import ctypes
import re
import shutil

import pytest

from tests.cpu.build import require_set
from tests.mutation.mutants import Mutant, all_mutants, read
from tests.mutation.native import LIBRARY, SAME, STILLBORN, Native
from tests.mutation.populations import POPULATIONS
from tests.mutation.relevant import FAMILIES, STEPS, stages
from tests.support import ROOT, missing

DECLARATIONS = tuple(f"kernels/cpu/{name}.h" for name in ("kernel", "replay", "blas", "glibc"))
SOURCE = """#include "tables.inc"
extern "C" __attribute__((visibility("default"))) int NAME() {
#if defined(__AVX512F__)
  return 4;
#else
  return 3;
#endif
}
"""


# -- compiled in a copy


@pytest.fixture
def native(tmp_path):
    """A library of two kernel files that are functions of no argument."""
    require_set("v3")
    if shutil.which("g++") is None:
        missing("g++", "g++ is not installed")
    cpu = tmp_path / "base" / "kernels" / "cpu"
    cpu.mkdir(parents=True)
    (tmp_path / "base" / LIBRARY).parent.mkdir(parents=True)
    (cpu.parent / "CMakeLists.txt").write_text("set(KERNELS one two)\n")
    for name in ("one", "two"):
        (cpu / f"{name}.cpp").write_text(SOURCE.partition("\n")[2].replace("NAME", name))
    (cpu / "tables.cpp").write_text('#define SET(set) int of_##set;\n#define TABLE(set, file)\n#include "tables.inc"\n')
    (cpu / "glibc.h").touch()
    built = Native(tmp_path / "base", tmp_path / "objects")
    built.build(2)
    return built


@pytest.fixture
def copy(native, tmp_path):
    return shutil.copytree(native.base, tmp_path / "copy")


def change(copy, before, after):
    file = copy / "kernels" / "cpu" / "one.cpp"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def answers(folder):
    """What the two functions of a library give."""
    opened = ctypes.CDLL(str(folder / LIBRARY))
    return opened.one(), opened.two()


def test_what_is_changed_is_linked_with_what_is_not(native, copy):
    change(copy, "return 3", "return 30")
    assert native.compile(copy, ["one.cpp"]) == 0
    assert answers(native.base) == (3, 3)
    assert answers(copy) == (30, 3)
    native.restore(copy)
    assert (copy / LIBRARY).read_bytes() == (native.base / LIBRARY).read_bytes()


def test_code_of_one_instruction_set_is_compiled_for_that(native, copy):
    require_set("v4")
    change(copy, "return 4", "return 40")
    assert native.compile(copy, ["one.cpp", "two.cpp"]) == 0
    assert answers(copy) == (40, 4)


def test_what_the_compiler_makes_the_same_code_of_is_no_mutant(native, copy):
    change(copy, "return 3", "return 3 + 0")
    assert native.compile(copy, ["one.cpp", "tables.cpp"]) == SAME
    assert answers(copy) == (3, 3)


def test_what_the_compiler_refuses_is_no_mutant(native, copy, capsys):
    change(copy, "return 3", "return three")
    assert native.compile(copy, ["one.cpp"]) == STILLBORN
    assert "three" in capsys.readouterr().out


# -- the population


@pytest.fixture(scope="module")
def population() -> tuple[dict[str, str], list[Mutant]]:
    texts = read(ROOT, POPULATIONS["cpu"].files)
    return texts, all_mutants(texts)


def test_every_native_kernel_has_distinct_mutants(population):
    texts, mutants = population
    assert {m.path for m in mutants} == {path for path in texts if path not in DECLARATIONS}
    assert len({m.id for m in mutants}) == len(mutants)
    assert all(texts[m.path].encode()[m.start : m.end].decode() == m.before for m in mutants)


def test_a_rule_has_the_same_mutants_for_cpu_and_cuda(population):
    texts = read(ROOT, POPULATIONS["cuda"].files)
    rules = {m.id for m in all_mutants(texts) if m.path == "kernels/rules.h" and m.operator != "other field"}
    assert rules == {m.id for m in population[1] if m.path == "kernels/rules.h" and m.operator != "other field"}


@pytest.mark.parametrize(
    ("path", "scope", "files"),
    [
        ("kernels/cpu/gemm.cpp", "multiply", {"gemm.cpp"}),
        ("kernels/cpu/pack.h", "transpose", {"gemm.cpp"}),
        ("kernels/cpu/sleep.h", "Signal.sleep", {"pool.cpp"}),
        ("kernels/rules.h", "philox", {"dropout.cpp"}),
        ("kernels/rules.h", "committed", {"batch_norm.cpp"}),
        ("kernels/cpu/batch_norm.h", "choose_pivot", {"batch_norm.cpp"}),
        ("kernels/cpu/functions.h", "hyperbolic_tangent", {"batch_norm.cpp", "pointwise.cpp"}),
    ],
)
def test_the_kernels_that_a_change_gets_into_are_compiled_first(population, path, scope, files):
    texts, mutants = population
    mutant = next(m for m in mutants if (m.path, m.scope) == (path, scope))
    first, *rest = stages(mutant, ROOT, texts)
    assert files <= set(first.compiled)
    assert path.endswith(("functions.h", "rules.h")) or files == set(first.compiled)
    assert not any(stage.compiled for stage in rest)


def test_every_kernel_file_has_a_family_of_ops(population):
    texts, mutants = population
    listed = re.search(r"set\(KERNELS ([\w\s]+)\)", (ROOT / "kernels" / "CMakeLists.txt").read_text())
    assert listed
    assert set(listed[1].split()) <= FAMILIES.keys()
    for mutant in {m.path: m for m in mutants}.values():
        found = [stage for stage in stages(mutant, ROOT, texts) if not stage.compiled]
        assert all(stage.tests for stage in found), mutant.path
        assert [stage.name for stage in found][-2:] == ["wide", "steps"]
        assert len(found[-1].tests) >= len(STEPS)

"""Mutants of kernels: what a text's tokens are taken for, what each operator makes of it, which tests judge it."""

import ast

import pytest

from tests.cuda_on_cpu.instances import INSTANCES
from tests.mutation.kernel_operators import KERNEL_OPERATORS
from tests.mutation.kernel_source import KernelSource, users
from tests.mutation.launch_operators import LAUNCH_OPERATORS
from tests.mutation.mutants import Mutant, all_mutants, mutants_of, read
from tests.mutation.populations import POPULATIONS
from tests.mutation.relevant import KERNELS, stages
from tests.support import ROOT

# (operator, a statement of a function's body, what it must become; code between the marks)
CASES = [
    ("barrier dropped", "__syncthreads();", {";"}),
    ("barrier dropped", "if (last) __threadfence();", {"if (last) ;"}),
    ("bound", "if (a < n && b >= 0) f();", {"if (a <= n && b >= 0) f();", "if (a < n && b > 0) f();"}),
    ("bound", "f(Pack<T, 4>{}, a);", set()),
    ("opposite", "ok = a == b;", {"ok = a != b;"}),
    ("opposite", "for (int k = 0; k < n; ++k) f(k);", {"for (int k = 0; k >= n; ++k) f(k);"}),
    ("sign", "a = b * c + -d;", {"a = b / c + -d;", "a = b * c - -d;", "a = b * c + d;"}),
    ("sign", "a = b << 2 | c >> 3;", {"a = b >> 2 | c >> 3;", "a = b << 2 | c << 3;"}),
    ("sign", "a += *p;", {"a -= *p;"}),
    ("sign", "for (; k < n; k += 2) f(&k);", set()),
    ("assignment", "a *= b;", {"a = b;"}),
    ("assignment", "for (; k < n; k += 2) f(k);", set()),
    ("logic", "if (!a && b) f();", {"if (a && b) f();", "if (!a || b) f();"}),
    ("logic", "c = a & 255;", {"c = a | 255;"}),
    ("off by one", "y[i] = *p;", {"y[i + 1] = *p;", "y[i - 1] = *p;"}),
    ("off by one", "store<N>(y + i, v);", {"store<N>(y + i + 1, v);", "store<N>(y + i - 1, v);"}),
    ("off by one", "x = y[a < b];", {"x = y[(a < b) + 1];", "x = y[(a < b) - 1];"}),
    ("off by one", "float d[n], e = x[0];", set()),
    ("smaller array", "__shared__ double of_warp[kWarps][3];", {
        "__shared__ double of_warp[kWarps - 1][3];", "__shared__ double of_warp[kWarps][3 - 1];",
    }),
    ("smaller array", "const float a = x[i];", set()),
    ("constant", "a = 0;", {"a = 1;"}),
    ("constant", "a = b[1];", {"a = b[2];", "a = b[0];"}),
    ("constant", "a = b / 2u;", {"a = b / 3u;", "a = b / 20u;"}),
    ("constant", "a = 0.5f * b;", {"a = 0.25f * b;", "a = 5.0f * b;"}),
    ("constant", "a = 0xD2511F53u;", {"a = 0xD2511F52u;"}),
    ("constant", "a = 0x1.8p1f + 0x1p-3;", {
        "a = 1.5f + 0x1p-3;", "a = 30.0f + 0x1p-3;", "a = 0x1.8p1f + 0.0625;", "a = 0x1.8p1f + 1.25;",
    }),
    ("named constant", "a = kLanes * b;", {"a = kWarps * b;"}),
    ("named constant", "a = b % Slice<VEC>::kChannels;", {"a = b % (Slice<VEC>::kChannels + 1);"}),
    ("named constant", "constexpr int kAhead = 2;", set()),
    ("named constant", "x = __shfl_xor_sync(kAllLanes, x, d);", {"x = __shfl_xor_sync(0x7fffffffu, x, d);"}),
    ("template argument", "v = load<VEC>(p);", {"v = load<1>(p);"}),
    ("template argument", "copy<A, B>(p);", {"copy<B, A>(p);"}),
    ("swapped arguments", "f(a, b[1], g(c));", {"f(b[1], a, g(c));", "f(a, g(c), b[1]);"}),
    ("swapped arguments", "return {a, b};", {"return {b, a};"}),
    ("swapped arguments", "each([&](int a, int b) { f(a); });", set()),
    ("swapped arguments", 'static const E t[] = {{"a", f}, {"b", g}};', {
        'static const E t[] = {{f, "a"}, {"b", g}};', 'static const E t[] = {{"a", f}, {g, "b"}};',
    }),
    ("dropped term", "a = b + c * d;", {"a = b;", "a = c * d;", "a = b + c;", "a = b + d;"}),
    ("dropped term", "a = b - c / 2;", {"a = b;", "a = b - c;"}),
    ("dropped term", "if (a < n && ok) f();", {"if (a < n) f();", "if (ok) f();"}),
    ("condition", "a = b < c ? d + 1 : e;", {"a = d + 1;", "a = e;"}),
    ("condition", "a = p ? p[i] : 0;", {"a = p[i];", "a = 0;", "a = !p ? p[i] : 0;"}),
    ("condition", "if (adds) f();", {"if (!adds) f();"}),
    ("condition", "if (a < b) f();", set()),
    ("dropped statement", "store(p, v);", {";"}),
    ("dropped statement", "a = b, c = d;", {"c = d;", "a = b;"}),
    ("dropped statement", "if (!inside) return;", {"if (!inside) ;"}),
    ("dropped statement", "return a;", set()),
    ("dropped statement", "const int a = f(b);", set()),
    ("dropped statement", "Pack<T, N> out;", set()),
    ("other field", "a = threadIdx.x;", {"a = threadIdx.y;"}),
    ("other field", "a = m.count;", {"a = m.mean;"}),
    ("flag", "return false;", {"return true;"}),
    ("other function", "x = block_sum(x);", {"x = warp_sum(x);"}),
    ("other function", "x = square_root(a + b);", {"x = (a + b);"}),
]  # fmt: skip
MEMBERS = "struct Moment {\n  double count, mean;\n};\n"


def kernel(statement: str) -> str:
    return f"{MEMBERS}template <class T, int VEC>\n__global__ void f(const T* x, int n) {{\n  {statement}\n}}\n"


def made(operator: str, statement: str) -> set[str]:
    """What an operator makes of the statement, with one space for many."""
    text = kernel(statement)
    sources = [m.source(text) for m in mutants_of("f.cu", text) if m.operator == operator and m.scope == "f"]
    return {" ".join(s.splitlines()[5].split()) for s in sources}


@pytest.mark.parametrize(("operator", "statement", "expected"), CASES)
def test_an_operator_changes_the_statement_as_its_name_says(operator, statement, expected):
    assert made(operator, statement) == {" ".join(text.split()) for text in expected}


def test_every_operator_has_a_case_here():
    assert {case[0] for case in CASES} == set(KERNEL_OPERATORS)


@pytest.mark.parametrize(
    "text",
    [
        "// a + 1\n/* b < 2 */\n",
        '#include "a.h"\n#if A < 2 && B\n#pragma unroll 4\n#endif\n',
        'static_assert(sizeof(A) == 4 + 1, "a < b");\n',
        "__global__ void __launch_bounds__(kThreads, 2) f(const A* x, A (&y)[2], int n) {}\n",
        "template <class T, int VEC>\nstruct A;\n",
        "using B = A<1, 2>;\nenum class Kind { one, two };\n",
        "const auto keep = [](int, const A&) {};\n",
        "constexpr int kAhead = 8;\ntemplate <class T>\nvoid ask_for(const T* x, int rows) {\n  x += rows * 2;\n}\n",
        "void f(const A* x, int n) {\n  if (n > 1 + kAhead) ask_for<A>(x + n, 2);\n}\n",
    ],
)
def test_what_computes_nothing_is_left_alone(text):
    assert not list(mutants_of("f.cu", text))


def test_names_of_functions_members_and_constants_are_the_scopes():
    text = """namespace n {
constexpr int kA = 1 + 2;
struct alignas(8) S {
  static constexpr int kB = 3 + 4;
  __device__ S(int a) : x(a), y(5 + a) { x = a + 6; }
  __device__ int operator()(int a) const { return a + 7; }
  int x, y;
};
template <int N>
__device__ __forceinline__ int g(int a) {
  for (int k = 0; k < N; ++k) a += 8;
  each([&](auto, int i) { a = i + 9; });
  return a;
}
}  // namespace n
"""
    source = KernelSource("f.cu", text)
    found = {source.text_of(n): source.scope(n) for n in source.sites if n.type == "number_literal"}
    expected = {"1": "kA", "2": "kA", "3": "S", "4": "S", "5": "S.S", "6": "S.S", "7": "S.operator", "8": "g", "9": "g"}
    assert {k: v for k, v in found.items() if k != "0"} == expected
    assert [d.name for d in source.definitions] == ["kA", "S", "g"]


def test_what_uses_a_definition_is_found_through_others():
    texts = {
        "a.h": "int one() { return 1; }\nint two() { return one() + one(); }\nint other() { return 3; }\n",
        "b.cu": "__global__ void f(int* y) { *y = two(); }\n",
        "c.cu": "__global__ void g(int* y) { *y = other(); }\n",
    }
    sources = {path: KernelSource(path, text) for path, text in texts.items()}
    assert users("one", sources) == {"a.h", "b.cu"}
    assert users("other", sources) == {"a.h", "c.cu"}


def test_shifts_comparisons_and_templates_are_distinguished():
    text = kernel("a = b >> 2 > c && d < e, f<g>(h) < i;")
    marks = [m.before for m in sorted(mutants_of("f.cu", text), key=lambda m: m.start) if m.operator == "opposite"]
    assert marks == [">", "<", "<"]


def test_an_id_changes_only_with_its_own_line():
    before = {m.id for m in mutants_of("f.cu", kernel("y[n] = 1;"))}
    assert {m.id for m in mutants_of("f.cu", "// more\n\n" + kernel("y[n] = 1;"))} == before
    own = {m.id for m in mutants_of("f.cu", kernel("y[n] = 1;")) if m.scope == "f"}
    assert own
    assert not {m.id for m in mutants_of("f.cu", kernel("y[n] = 1 ;"))} & own


# -- launchers

LAUNCHES = [
    ("swapped groups", "s = (*indices(a), *reals(b))", {"s = (*reals(b), *indices(a))"}),
    ("dropped setting", "r = kernel(x, 'f', grid=g, shared=n)", {
        "r = kernel(x, 'f', shared=n)", "r = kernel(x, 'f', grid=g)",
    }),
    ("dropped condition", "v = vector_of(x, n, x, y)", {
        "v = vector_of(x, x, y)", "v = vector_of(x, n, y)", "v = vector_of(x, n, x)",
    }),
    ("never adds", "s = flags(to.adds('out'))", {"s = flags(False)"}),
    ("wrong layout", "b = ready(to, b, x.dtype)", {"b = b", "b = ready(to, b)"}),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "line", "expected"), LAUNCHES)
def test_an_operator_of_launchers_changes_the_line(operator, line, expected):
    text = f"def f(to, x):\n    {line}\n"
    found = [m.source(text) for m in mutants_of("bnengine/fused/cuda/f.py", text) if m.operator == operator]
    assert {ast.dump(ast.parse(t)) for t in found} == {
        ast.dump(ast.parse(f"def f(to, x):\n    {e}\n")) for e in expected
    }
    assert not [m for m in mutants_of("bnengine/ops/f.py", text) if m.operator == operator]


def test_every_operator_of_launchers_has_a_case_here():
    assert {case[0] for case in LAUNCHES} == set(LAUNCH_OPERATORS)


# -- the population


@pytest.fixture(scope="module")
def population() -> tuple[dict[str, str], list[Mutant]]:
    texts = read(ROOT, POPULATIONS["cuda"].files)
    return texts, all_mutants(texts)


def test_every_kernel_and_launcher_has_distinct_mutants(population):
    texts, mutants = population
    without = ("__init__.py", "layout.cuh")  # nothing but imports, nothing but parameters
    assert {m.path for m in mutants} == {path for path in texts if not path.endswith(without)}
    assert len({m.id for m in mutants}) == len(mutants)
    assert len({(m.path, m.start, m.end, m.after) for m in mutants}) == len(mutants)
    assert all(texts[m.path].encode()[m.start : m.end].decode() == m.before for m in mutants)


def test_every_barrier_and_fence_of_the_kernels_is_dropped_once(population):
    texts, mutants = population
    code = [line.partition("//")[0] for text in texts.values() for line in text.splitlines()]
    written = sum(line.count("__syncthreads()") + line.count("__threadfence()") for line in code)
    assert written == sum(m.operator == "barrier dropped" for m in mutants) > 10


def test_nearly_all_of_the_kernels_is_parsed():
    """What a macro makes is unknown to the parser."""
    texts = read(ROOT, [path for name in ("cuda", "cpu") for path in POPULATIONS[name].files if "kernels" in path])
    unknown = sum(KernelSource(path, text).unparsed() for path, text in texts.items())
    assert unknown < sum(map(len, texts.values())) / 100


def test_a_kernel_is_compiled_then_judged_by_its_launches(population):
    texts, mutants = population
    assert KERNELS.keys() == INSTANCES.keys()
    by_path = {m.path: m for m in mutants}
    for file in INSTANCES:
        first, second, *_ = stages(by_path[f"kernels/cuda/{file}"], ROOT, texts)
        assert first.compiled == (file,)
        assert second.tests
    header = next(m for m in mutants if m.scope == "philox")
    assert [s.compiled for s in stages(header, ROOT, texts) if s.compiled] == [("dropout.cu",)]

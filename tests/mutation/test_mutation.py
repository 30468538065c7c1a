"""The mutations themselves: each changes what it names, the result is Python, drawing is the same every time."""

import ast

import pytest

from tests.mutation.mutants import all_mutants, differs, draw, mutants_of, read
from tests.mutation.operators import OPERATORS
from tests.mutation.populations import POPULATIONS
from tests.mutation.relevant import stages
from tests.mutation.report import enough, explain, unexplained
from tests.mutation.runner import Outcome
from tests.support import ROOT

# (operator, a line of a function's body, lines that it must become)
CASES = [
    ("sign", "y = a + b", {"y = a - b"}),
    ("sign", "y = (a * b) / c", {"y = (a / b) / c", "y = (a * b) * c"}),
    ("sign", "y = a**2", {"y = a*2"}),
    ("sign", "y = -a", {"y = a"}),
    ("sign", "y = f(x, axis=-1)", {"y = f(x, axis=1)"}),
    ("sign", "a += b", {"a -= b"}),
    ("logic", "y = a and b", {"y = a or b"}),
    ("logic", "y = a & (b > 0)", {"y = a | (b > 0)"}),
    ("bound", "y = 0 <= a < 1", {"y = 0 < a < 1", "y = 0 <= a <= 1"}),
    ("opposite", "y = a is not b", {"y = a is b"}),
    ("opposite", "y = a > b", {"y = a <= b"}),
    ("opposite", "y = a in b", {"y = a not in b"}),
    ("not dropped", "y = a & ~(b | c)", {"y = a & (b | c)"}),
    ("condition", "y = a if b else c + d", {"y = a if not b else c + d", "y = a", "y = (c + d)"}),
    ("constant", "y = a * 0.5 + 1", {"y = a * 0.25 + 1", "y = a * 0.5 + 2", "y = a * 0.5 + 0"}),
    ("constant", "y = 1e-5", {"y = 0.0001"}),
    ("constant", "y = a - 2", {"y = a - 3"}),
    ("flag", "y = f(x, keepdims=True)", {"y = f(x, keepdims=False)"}),
    ("dropped term", "y = (a + b) * c", {"y = (a + b)", "y = c", "y = (a) * c", "y = (b) * c"}),
    ("dropped term", "y = a or b or c", {"y = b or c", "y = a or c", "y = a or b"}),
    ("dropped statement", "commit(x)", {"pass"}),
    ("dropped statement", "x[0] = 0", {"pass"}),
    ("dropped statement", "x = f(x)", {"pass"}),
    ("dropped statement", "y = f(x)", set()),
    ("dropped statement", "raise InputError('no')", {"pass"}),
    ("swapped arguments", "y = f(a, b, c)", {"y = f(b, a, c)", "y = f(a, c, b)"}),
    ("swapped arguments", "y = xp.where(a, b, c)", {"y = xp.where(a, c, b)"}),
    ("swapped elements", "return a, b", {"return b, a"}),
    ("swapped elements", "y = x in (1, 2)", set()),
    ("slice", "y = x[1:n]", {"y = x[2:n]", "y = x[1:n + 1]", "y = x[1:n - 1]"}),
    ("other function", "y = xp.zeros_like(x)", {"y = xp.ones_like(x)"}),
    ("other function", "y = xp.sqrt(a + b)", {"y = (a + b)"}),
    ("dropped keyword", "y = f(x, axis=0, dtype=d)", {"y = f(x, dtype=d)", "y = f(x, axis=0)"}),
    ("dropped entry", "y = {'a': 1, 'b': 2}", {"y = {'b': 2}", "y = {'a': 1}"}),
]


def body(text: str) -> str:
    return f"def f(x):\n    {text}\n"


def normal(line: str) -> str:
    """The line as the parser sees it, without its parentheses and spaces."""
    return ast.dump(ast.parse(body(line)))


def changed(operator: str, text: str) -> set[str]:
    """What an operator makes of the last line of a text."""
    made = {m.source(text) for m in mutants_of("f.py", text) if m.operator == operator}
    return {source.rstrip().splitlines()[-1].strip() for source in made}


@pytest.mark.parametrize(("operator", "line", "expected"), CASES)
def test_an_operator_changes_the_line_as_its_name_says(operator, line, expected):
    assert {normal(text) for text in changed(operator, body(line))} == {normal(text) for text in expected}


def test_every_operator_has_a_case_here():
    others = {"default", "other field"}  # tested below: they need a class or a signature around the line
    assert {case[0] for case in CASES} | others == set(OPERATORS)


def test_a_default_becomes_the_next_of_its_named_choices():
    text = "def f(kind: Literal['a', 'b'] = 'a', n: int = 3): ...\n"
    assert changed("default", text) == {"def f(kind: Literal['a', 'b'] = 'b', n: int = 3): ..."}


def test_another_field_of_the_same_named_tuple_is_read():
    text = "class P(NamedTuple):\n    a: int\n    b: int\ndef f(p): return p.a\n"
    assert changed("other field", text) == {"def f(p): return p.b"}


@pytest.mark.parametrize(
    "text",
    [
        '"""2 + 2"""\n',
        "def f(x: T[1] = None) -> T[2]: ...\n",
        "def _examples_f(rng): return 1 + 2\n",
        "def _bound_f(u): return 10 * u\n",
        "def _examples(rng): yield draw(rng)\ndef draw(rng): return helped(rng) + 1\ndef helped(rng): return 1 - rng\n",
        "def __repr__(self): return 1 + 2\n",
        "import a\nif TYPE_CHECKING:\n    import b\n",
        "__all__ = ['a', 'b']\nMode = Literal[1, 2]\n",
        "def f(x):\n    raise InputError(f'{x + 1}') from g(1, 2)\n",
    ],
)
def test_messages_types_and_contracts_are_left_alone(text):
    assert {m.operator for m in mutants_of("f.py", text)} <= {"dropped statement"}


def test_what_the_maths_and_a_contract_both_use_is_mutated():
    text = "def f(x): return g(x)\ndef _bound_f(x): return g(x)\ndef g(x): return x + 1\n"
    assert {m.scope for m in mutants_of("f.py", text)} == {"g"}
    text = "@op(bound=_bound_f)\ndef f(x): return x + 1\ndef _bound_f(x): return f(x) - 1\n"
    assert {m.scope for m in mutants_of("f.py", text)} == {"f"}


@pytest.fixture(scope="module")
def package():
    texts = read(ROOT, ("bnengine/ops/*.py", "bnengine/training/step.py"))
    return texts, all_mutants(texts)


def test_every_mutant_is_python_and_is_not_the_original(package):
    texts, mutants = package
    assert len(mutants) > 1000
    same = [str(m) for m in mutants[::7] if not differs(m, texts[m.path])]  # a seventh of them: each takes milliseconds
    assert not same


def test_no_two_mutants_have_one_id_or_one_text(package):
    texts, mutants = package
    assert len({m.id for m in mutants}) == len(mutants)
    assert len({(m.path, m.start, m.end, m.after) for m in mutants}) == len(mutants)
    assert all(texts[m.path].encode()[m.start : m.end].decode() == m.before for m in mutants)


def test_a_small_draw_begins_a_large_one(package):
    texts, mutants = package
    drawn = draw(mutants, texts, seed=1, count=30)
    assert drawn == draw(mutants[::-1], texts, seed=1, count=30)
    assert drawn[:10] == draw(mutants, texts, seed=1, count=10)
    assert drawn != draw(mutants, texts, seed=2, count=30)


def test_an_id_changes_only_with_its_own_line():
    line = "def f(x):\n    return x + 1\n"
    before = {m.id for m in mutants_of("f.py", line)}
    assert {m.id for m in mutants_of("f.py", "import a\n\n" + line)} == before
    assert not {m.id for m in mutants_of("f.py", line.replace("+ 1", "+ 1 + 0"))} & before


@pytest.mark.parametrize(
    ("path", "near", "wide"),
    [
        ("bnengine/training/step.py", "tests/training/test_step.py", "tests/training/test_trainer.py"),
        ("bnengine/layers/norm/batch_norm.py", "", "tests/layers/test_batch_norm.py"),
        ("bnengine/registry.py", "", "tests/test_validation.py"),
    ],
)
def test_tests_of_the_same_folder_judge_a_mutant(path, near, wide):
    mutant = next(iter(mutants_of(path, (ROOT / path).read_text(encoding="utf-8"))))
    found = {stage.name: stage.tests for stage in stages(mutant, ROOT, {path: ""})}
    assert near in found.get("near", ("",))
    assert wide in found["wide"]


def test_a_survivor_needs_a_reason():
    mutants = list(mutants_of("f.py", body("return x + 1")))[:3]
    verdicts = ["caught", "survived", "survived"]
    outcomes = [Outcome(m, v, "", 1.0, "") for m, v in zip(mutants, verdicts, strict=True)]
    outcomes.append(Outcome(mutants[0], "stillborn", "compiled", 1.0, ""))
    population = POPULATIONS["package"]._replace(share=2 / 3)
    assert [o.mutant.id for o in unexplained(outcomes, {mutants[1].id: "the same"})] == [mutants[2].id]
    assert enough(outcomes, population, {mutants[1].id: "the same"})
    assert not enough(outcomes, population, {})


def test_every_reason_says_something():
    assert all(len(reason.split()) > 4 for reason in explain().values())

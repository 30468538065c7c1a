"""Mutants of an earlier version are found again where their function has moved."""

import pytest

from tests.mutation import baseline
from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.runner import Outcome

THEN = """
class Box:
    def grow(self, by):
        return self.size + by
"""
MOVED = """
def shrink(size, by):
    return size - by


class Case:
    def grow(self, by):
        return self.size + by
"""


def mutants(path: str, text: str) -> list[Mutant]:
    return list(mutants_of(path, text))


def entries(verdict: str = "caught") -> list[baseline.Recorded]:
    return [baseline.recorded(Outcome(m, verdict, "near", 1.0, ""), THEN) for m in mutants("old/box.py", THEN)]


def test_the_record_keeps_what_identifies_a_mutant(tmp_path):
    baseline.save("abc", entries(), tmp_path / "record.json")
    commit, loaded = baseline.load(tmp_path / "record.json")
    assert (commit, loaded) == ("abc", entries())
    sign = next(entry for entry in loaded if entry.operator == "sign")
    assert (sign.scope, sign.text) == ("Box.grow", "return self.size + by")
    assert sign.mutated == "return self.size - by"


@pytest.mark.parametrize("text", [THEN, MOVED])
def test_a_counterpart_is_the_same_change_in_whichever_file(text):
    found = baseline.counterparts(entries(), mutants("new/boxes.py", text))
    assert found.keys() == {entry.id for entry in entries()}
    for entry in entries():
        assert found[entry.id].source(text).count(entry.mutated) == 1


def test_a_file_of_the_same_name_comes_first():
    both = mutants("new/boxes.py", THEN) + mutants("new/box.py", THEN)
    assert {m.path for m in baseline.counterparts(entries(), both).values()} == {"new/box.py"}


def test_a_changed_line_has_no_counterpart():
    assert not baseline.counterparts(entries(), mutants("old/box.py", THEN.replace("by", "amount")))


@pytest.mark.parametrize(("verdict", "enough"), [("caught", True), ("timed out", True), ("survived", False)])
def test_a_mutant_that_is_no_longer_caught_is_named(capsys, verdict, enough):
    today = mutants("new/box.py", THEN)
    found = baseline.counterparts(entries(), today)
    outcomes = [Outcome(m, verdict, "near", 1.0, "") for m in today]
    assert baseline.compare(entries(), found, outcomes) is enough
    assert ("no longer caught" in capsys.readouterr().out) is not enough
    assert baseline.compare(entries("survived"), found, outcomes)

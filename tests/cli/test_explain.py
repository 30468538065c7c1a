"""`bnengine explain` and `bnengine report`: the list, a claim, and its report."""

import builtins
import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bnengine.lab.explain import NAMES, shift
from bnengine.lab.explain.claim import Claim, Outcome, Part
from tests.cli.conftest import SMALL, Command

CHEAP = "shift"


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shift, "STEPS", 20)


def table(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines()))


def test_without_a_name_the_claims_are_listed(done: Command) -> None:
    out = done("explain").out
    assert [line.split()[0] for line in out.splitlines()[: len(NAMES)]] == list(NAMES)


def test_a_claim_has_its_verdict(done: Command) -> None:
    out = done("explain", CHEAP, "--seeds", "2").out
    for head in ("shift: Training statistics", "The claim.", "What was done.", "what the claim needs", "Verdict: "):
        assert head in out


def test_a_report_has_the_page_and_every_number(done: Command) -> None:
    pytest.importorskip("matplotlib")
    result = done("explain", CHEAP, "--seeds", "2", "--json", "--report", "page")
    assert "page/index.html" in result.err
    (found,) = json.loads(result.out)
    assert (found["name"], found["seeds"]) == (CHEAP, [0, 1])
    assert found["verdict"] in ("holds", "holds within limits", "does not hold", "undecided")
    page = Path("page/index.html").read_text(encoding="utf-8")
    assert found["verdict"] in page
    assert page.count("data:image/png;base64,") == 2
    rows = table("page/figures.csv")
    assert {row["claim"] for row in rows} == {CHEAP}
    read = {(row["figure"], int(row["seed"])): float(row["value"]) for row in rows}
    assert read == {(f, s): one["values"][s] for f, one in found["figures"].items() for s in (0, 1)}
    series = table("page/series.csv")
    assert len(series) == 2 * 8 * 3
    assert series[-1]["place"] == "7 2"


def test_without_matplotlib_a_report_is_refused(bnengine: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError("No module named 'matplotlib'")
        return load(name, *args, **options)

    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    result = bnengine("explain", "shift", "--report", "page")
    assert result.code == 2
    assert "matplotlib cannot be imported" in result.err
    assert "pip install 'bnengine[plot]'" in result.err
    assert result.out == ""
    assert not Path("page").exists()


def test_a_report_that_cannot_be_drawn_leaves_nothing(bnengine: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise KeyboardInterrupt

    part = Part("says", "otherwise", "figure", "<=", 1)
    claim = Claim("shift", "", "", "", "", (part,), lambda _, seed: Outcome({"figure": seed}, {}), fails, {})
    monkeypatch.setattr("bnengine.cli.explain.claim_of", lambda _: claim)
    assert bnengine("explain", "shift", "--report", "page").code == 130
    assert not Path("page").exists()


def test_a_run_has_a_report(done: Command, npz: str) -> None:
    pytest.importorskip("matplotlib")
    last = done("train", npz, *SMALL, "--json", "--out", "r").json
    assert done("report", "r").out == "r/report/index.html\n"
    page = Path("r/report/index.html").read_text(encoding="utf-8")
    for piece in (
        "blobs.npz",
        "BatchNorm(8)",
        f"{last['valid_loss']:.5g}",
        "one-cycle",
        "Dense(4, 8) (bias cancelled)",
    ):
        assert piece in page
    rows = table("r/report/figures.csv")
    assert [float(row["value"]) for row in rows if row["figure"] == "valid_loss"][-1] == last["valid_loss"]
    channels = table("r/report/statistics.csv")
    assert len(channels) == 4 * 8
    assert done("report", "r").code == 0, "a second report replaces the first"
    assert done("report", "r", "--out", "elsewhere").out == "elsewhere/index.html\n"

"""The verdicts of all ten claims at five seeds and in short settings, their report, and faults that change them."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bnengine import ops
from bnengine.fused.cpu import _load
from bnengine.lab.explain import (
    NAMES,
    ClaimResult,
    Setting,
    bias_cancels,
    claim_of,
    examine,
    explain,
    same_distribution,
    scale_invariance,
    story,
)
from bnengine.lab.report import claims_report, write
from tests.lab.explain.short import SHORT, short
from tests.lab.report.browser import browser, check
from tests.support import ROOT, missing

VERDICTS = {
    "bias-cancels": "holds within limits",
    "gamma-beta-redundant": "does not hold",
    "same-distribution": "holds within limits",
    "normalise-only": "does not hold",
    "inference-statistics": "holds within limits",
    "shift": "does not hold",
    "scale-invariance": "holds within limits",
    "recipe": "holds within limits",
    "figure-1": "holds within limits",
    "batch-size": "holds",
}


def found(name: str) -> ClaimResult:
    """In full, with kernels; the references take seven minutes for all and run in short settings."""
    if reason := _load.available():
        missing("kernels", reason)
    return _found(name)


@cache
def _found(name: str) -> ClaimResult:
    return examine(claim_of(name), Setting(backend="numpy"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_five_seeds_give_the_verdict_that_the_evidence_bears(name: str) -> None:
    assert found(name).verdict == VERDICTS[name], found(name).judged


@pytest.mark.parametrize("name", NAMES)
def test_a_short_setting_gives_its_verdict(name: str) -> None:
    result = examine(claim_of(name), short(name, "numpy"))
    assert result.verdict == SHORT[name].verdict, result.judged
    assert f"Every training took {SHORT[name].length:.0%} of these steps" in " ".join(story(result).split())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_figures_read_back_from_json(name: str) -> None:
    values = json.loads(json.dumps(found(name).to_json(), allow_nan=False))
    assert list(values) == ["name", "claim", "verdict", "figures", "seeds", "seconds"]
    assert values["verdict"] == VERDICTS[name]
    assert values["seeds"] == [0, 1, 2, 3, 4]
    assert values["seconds"] > 0
    judged = {each.part.figure: each.state for each in found(name).judged}
    assert {figure: one["state"] for figure, one in values["figures"].items() if "state" in one} == judged
    for figure, one in values["figures"].items():
        assert len(one["values"]) == 5, figure
        assert one["low"] <= one["mean"] <= one["high"], figure


def test_the_guide_has_these_verdicts() -> None:
    text = (ROOT / "examples" / "guides" / "verify_and_explain.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)`: .*? \| ([a-z ]+) \|", text, re.MULTILINE)
    assert dict(rows) == VERDICTS


@pytest.mark.slow
def test_every_claim_has_its_picture_on_a_page_without_fault(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    browser()
    setting = Setting(backend="numpy")
    write("test", tmp_path / "claims", claims_report([found(name) for name in NAMES], setting))
    check(tmp_path / "claims" / "index.html", tmp_path, pictures=len(NAMES))


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps, which leave the identities, since they hold at every step."""
    monkeypatch.setattr(bias_cancels, "STEPS", 4)
    monkeypatch.setattr(scale_invariance, "STEPS", 5)
    monkeypatch.setattr(scale_invariance, "_huge", lambda _setting, _seed, norm, *_, **__: float(norm == "batch"))
    monkeypatch.setattr(same_distribution, "STEPS", 20)
    monkeypatch.setattr(same_distribution, "EPOCHS", 2)
    monkeypatch.setattr(same_distribution, "EPS", 1e-3)  # twice as much then exceeds rounding


NORMALIZE, BACKWARD = ops.normalize.reference, ops.normalize_backward.reference


def no_mean(x: Any, statistics: Any, *args: Any, **options: Any) -> Any:
    """Divided by the standard deviation alone."""
    changed = statistics.copy()
    changed[1] = 0
    return NORMALIZE(x, changed, *args, **options)


def eps_twice(*args: Any, eps: float = 1e-5, **options: Any) -> Any:
    """1 / sqrt(var + 2 eps)."""
    return NORMALIZE(*args, eps=2 * eps, **options)


def mutating(x: Any, statistics: Any, *args: Any, **options: Any) -> Any:
    """A forward pass that mutates the statistics."""
    y = NORMALIZE(x, statistics, *args, **options)
    statistics.setflags(write=True)
    statistics[1:] = 0.9 * statistics[1:] + 0.1 * ops.moments.reference(x).batch[1:]
    return y


def wrong_sign(dy: Any, x: Any, y: Any, statistics: Any, *args: Any, **options: Any) -> Any:
    """dx = gamma inv_std (dz + dbeta/m - ...): the gradient through the mean with the wrong sign."""
    right = BACKWARD(dy, x, y, statistics, *args, **options)
    if not options.get("batch_statistics", True):
        return right
    inv_std = 1 / (statistics[2] + options.get("eps", 1e-5)) ** 0.5
    return right._replace(dx=(right.dx + 2 * args[0] * inv_std * right.dbeta / len(x)).astype(x.dtype))


FAULTS = [
    ("normalize", no_mean, "bias-cancels", "output_float32"),
    ("normalize_backward", wrong_sign, "bias-cancels", "gradient_float32"),
    ("normalize", mutating, "bias-cancels", "absorbed"),
    ("normalize", eps_twice, "same-distribution", "bn_identity"),
    ("normalize_backward", wrong_sign, "scale-invariance", "identity"),
]


@cache
def without_fault(name: str) -> ClaimResult:
    """The finding of few steps."""
    with ops.using("reference"):
        return explain(name, Setting(backend="numpy", seeds=3))[0]


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(("op", "fault", "name", "figure"), FAULTS)
def test_a_fault_in_batch_norm_flips_the_verdict(
    monkeypatch: pytest.MonkeyPatch, op: str, fault: Any, name: str, figure: str
) -> None:
    before = without_fault(name)
    monkeypatch.setattr(getattr(ops, op), "reference", fault)
    with ops.using("reference"):
        after = explain(name, Setting(backend="numpy", seeds=3))[0]
    states = [{each.part.figure: each.state for each in one.judged}[figure] for one in (before, after)]
    assert states == ["holds", "fails"]
    assert before.verdict != "does not hold"
    assert after.verdict == "does not hold"

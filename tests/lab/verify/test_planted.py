"""Mistakes planted in fused versions and in a library are found and named."""

import json
from typing import Any

import pytest

from bnengine.arrays.backend import get_backend
from bnengine.cli import main
from bnengine.lab.verify import operations, steps
from bnengine.lab.verify.certificate import Ledger, Row
from bnengine.lab.verify.layers import verify_layers
from bnengine.lab.verify.operations import verify_ops
from bnengine.lab.verify.steps import TrainingCase, make, verify_free, verify_steps
from bnengine.lab.verify.variants import Variant, fused_variants
from bnengine.layers import Activation, BatchNorm, Dense
from bnengine.ops import REGISTRY
from bnengine.optim.optimizers import Adam
from bnengine.runtime.reasons import Kind, Reason
from tests.lab.verify import planted
from tests.runtime import toy
from tests.support import give_versions


def plant(monkeypatch: Any, op: str, version: str, *, alone: bool = True) -> None:
    """Let an op have this fused version in float32, and the others none if it is to be alone."""
    give_versions(monkeypatch, {op: getattr(planted, version)}, alone=alone, refuses=planted.only_float32)


@pytest.fixture
def numpy():
    return Variant(get_backend("numpy"), "float64")


def wrong(ledger: Ledger) -> list[Row]:
    return [row for row in ledger.rows() if not row.ok]


def rows_of_ops(monkeypatch: Any, numpy: Variant, variants: list[Variant], *names: str) -> Ledger:
    """Of these ops alone: each must be named by itself, and all take seconds."""
    ledger = Ledger()
    monkeypatch.setattr(operations, "REGISTRY", {name: REGISTRY[name] for name in names})
    verify_ops(ledger, numpy, variants, 0)
    return ledger


def test_a_fused_version_that_is_right_agrees(monkeypatch, numpy):
    plant(monkeypatch, "affine", "right")
    found, without = fused_variants(numpy.backend)
    assert [v.label for v in found] == ["numpy float32 fused"]
    assert without["affine, float64"] == Reason(Kind.ARRAY, "float64 is not float32")
    ledger = rows_of_ops(monkeypatch, numpy, found, "affine", "total")
    assert wrong(ledger) == []
    fused = {(row.what, row.b) for row in ledger.rows() if row.a == "numpy float32 fused"}
    assert fused == {("op affine: out", "numpy float32"), ("op affine: out", "numpy float64")}


@pytest.mark.parametrize(
    ("op", "version", "output"),
    [
        ("affine", "off_by_a_little", "op affine: out"),
        ("affine", "without_bias", "op affine: out"),
        ("normalize_backward", "wrong_sign", "op normalize_backward: dx"),
        ("normalize_backward", "without_the_mean_of_dz", "op normalize_backward: dx"),
        ("affine_backward", "overwrites", "op affine_backward: dW added"),
        ("affine", "raises", "op affine ("),
    ],
)
def test_a_wrong_fused_version_is_found_and_named(monkeypatch, numpy, op, version, output):
    plant(monkeypatch, op, version)
    rows = wrong(rows_of_ops(monkeypatch, numpy, fused_variants(numpy.backend)[0], op, "total"))
    assert rows
    assert {row.a for row in rows} == {"numpy float32 fused"}
    assert all(row.what.startswith(f"op {op}") for row in rows)
    named = [row.what for row in rows if row.what.startswith(output)]
    assert named
    words = "raised MemoryError: the kernel ran out of registers)" if version == "raises" else " instead of "
    assert all(words in what for what in named)


def test_a_mistake_of_large_batches_is_found_in_layers(monkeypatch, numpy):
    plant(monkeypatch, "batch_norm", "large_batches_only")
    variants, _ = fused_variants(numpy.backend)
    few = [
        row
        for row in wrong(rows_of_ops(monkeypatch, numpy, variants, "batch_norm"))
        if "mean 1e6, std 1" not in row.what
    ]
    assert few == []  # that example alone has more than a hundred rows
    ledger = Ledger()
    verify_layers(ledger, numpy, variants, 0, quick=True)
    rows = wrong(ledger)
    assert {row.what.split(":")[0] for row in rows} == {
        "layer BatchNorm, 129 channels",
        "layer BatchNorm, 256 channels",
    }
    assert any(": output" in row.what for row in rows)
    assert any("pending of var" in row.what for row in rows)


def layers():
    return Dense(64, 8), BatchNorm(8), Activation("relu"), Dense(8, 10)


def test_a_replay_that_reads_an_older_batch_is_found(monkeypatch, numpy):
    toy.installed(monkeypatch)
    fused = Variant(numpy.backend, "float64", "auto")
    training = TrainingCase("training small", layers, Adam(), 3, (20,))
    ledger = Ledger()
    verify_steps(ledger, numpy.backend, [fused], training, 0)
    assert wrong(ledger) == []
    give_versions(monkeypatch, {"softmax_cross_entropy": planted.baked})
    ledger = Ledger()
    verify_steps(ledger, numpy.backend, [fused], training, 0)
    rows = wrong(ledger)
    assert {row.a for row in rows} == {"numpy float64 fused"}
    assert rows[0].what.startswith("training small: loss (step ")
    assert not any("(step 1," in row.what for row in rows)
    assert not any("update" in row.what for row in rows)  # the update from these gradients was right


def test_independent_trainings_end_in_the_same_network(monkeypatch, numpy):
    toy.installed(monkeypatch)
    training = TrainingCase("training small", layers, Adam(), 12, (20,))
    ledger = Ledger()
    verify_free(ledger, numpy.backend, [Variant(numpy.backend, "float64", "auto")], training, 0)
    assert wrong(ledger) == []
    assert all(0 < row.bound < 1e-10 for row in ledger.rows() if "count" not in row.what)
    other = TrainingCase("training small", layers, Adam(beta1=0.9 + 1e-7), 12, (20,))
    ledger = Ledger()
    monkeypatch.setattr(steps, "make", lambda given, variant, memory=None: make(
        other if variant.mode == "auto" else given, variant, memory
    ))  # fmt: skip
    verify_free(ledger, numpy.backend, [Variant(numpy.backend, "float64", "auto")], training, 0)
    assert {row.what.partition(", 12 steps: ")[2].split(" ")[0] for row in wrong(ledger)} >= {"0.W", "1.gamma", "3.b"}


# -- a library that is wrong


@pytest.fixture
def strict(require):
    return require("array_api_strict")


def test_a_library_whose_exp_is_off_is_found_and_named(monkeypatch, numpy, strict):
    exp = strict.exp
    monkeypatch.setattr(strict, "exp", lambda x: exp(x) * (1 + 1e-4))
    variants = [Variant(get_backend("array_api_strict"), dtype) for dtype in ("float32", "float64")]
    rows = wrong(rows_of_ops(monkeypatch, numpy, variants, "activation", "softmax_cross_entropy", "total"))
    assert {row.a.split()[0] for row in rows} == {"array_api_strict"}
    # A factor common to all cancels in the quotient of softmax, not in the logarithm of its sum.
    assert {"op activation: out", "op softmax_cross_entropy: value"} <= {row.what.split(" (")[0] for row in rows}
    assert {"numpy float32", "numpy float64"} <= {row.b for row in rows}


def test_a_library_that_raises_is_named(monkeypatch, numpy, strict):
    def tanh(x: Any) -> Any:
        raise NotImplementedError(f"tanh of {x.dtype}")

    monkeypatch.setattr(strict, "tanh", tanh)
    rows = wrong(
        rows_of_ops(
            monkeypatch, numpy, [Variant(get_backend("array_api_strict"), "float64")], "activation", "affine", "total"
        )
    )
    assert {row.what.split(" (")[0] for row in rows} == {"op activation", "op affine"}
    assert all("raised NotImplementedError: tanh of" in row.what for row in rows)


@pytest.mark.slow
def test_the_command_says_so_and_ends_with_1(monkeypatch, capsys, strict):
    take = strict.sqrt
    monkeypatch.setattr(strict, "sqrt", lambda x: take(x) * (1 + 1e-4))
    with pytest.raises(SystemExit) as end:
        main(["verify", "--quick", "--backend", "array_api_strict", "--json"])
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (end.value.code, err, found["agreed"]) == (1, "", False)
    named = {row["what"].split(":")[0] for row in found["rows"] if not row["ok"]}
    assert {"op normalize", "op adam", "layer BatchNorm", "optimizer Adam()", "training 64-32-32-10"} <= named
    assert "op affine" not in named
    assert "layer Dense" not in named

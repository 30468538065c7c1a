"""The certificate of a machine on which all agrees, and its errors, bounds and rows."""

import json
from math import inf

import numpy as np
import pytest

from bnengine.arrays.backend import available_backends, get_backend
from bnengine.errors import BackendError, InputError
from bnengine.fused.cpu._load import available
from bnengine.lab.verify import Certificate, NotRun, Row, layers, run, verify
from bnengine.lab.verify.certificate import Ledger, worst
from bnengine.lab.verify.variants import DTYPES, Variant, fused_variants, narrow_dtypes
from bnengine.ops import REGISTRY

USABLE = [report.name for report in available_backends() if report.usable]
NUMPY = get_backend("numpy")
NATIVE = fused_variants(NUMPY, (*DTYPES, *narrow_dtypes(NUMPY)[0]))[0]  # those with native kernels, if these were built


def test_everything_agrees_on_this_machine(certificate):
    assert [row for row in certificate.rows if not row.ok] == []
    assert certificate.agreed
    assert len(certificate.rows) > 400


def test_every_op_is_compared_in_every_dtype_on_every_library(certificate):
    seen = {(row.what.split(":")[0].removeprefix("op "), row.a) for row in certificate.rows if row.what[:3] == "op "}
    labels = {"numpy float32"} | {f"{n} {d}" for n in USABLE if n != "numpy" for d in ("float32", "float64")}
    assert "numpy float16" in narrow_labels(USABLE)
    fused = {(name, v.label) for v in NATIVE for name, op in REGISTRY.items() if v.fused(op) is None}
    assert seen == {(name, label) for name in REGISTRY for label in labels | narrow_labels(USABLE)} | fused


@pytest.mark.parametrize("kind", ["layer", "optimizer", "training"])
def test_layers_and_trainings_are_compared_on_every_library(certificate, kind):
    seen = {row.a for row in certificate.rows if row.part == f"{kind}s"}
    labels = {"numpy float32"} | {f"{n} {d}" for n in USABLE if n != "numpy" for d in ("float32", "float64")}
    fused = {v.label for v in NATIVE if kind == "training" or v.dtype in DTYPES}
    assert seen == labels | fused | (narrow_labels(USABLE) if kind == "training" else set())


def narrow_labels(names):
    """The variants in 16 bits of some libraries."""
    return {f"{name} {dtype}" for name in names for dtype in narrow_dtypes(get_backend(name))[0]}


def test_a_training_compares_gradients_update_and_statistics(certificate):
    own = {row.what.partition(": ")[2] for row in certificate.rows if row.what.startswith("training 64-32-32-10: ")}
    needed = {"loss", "gradient 0.W", "gradient 1.gamma", "pending 1 of 1.mean", "pending 1 of 4.var"}
    assert needed | {"verdict norm", "update of parameters", "update of m", "running statistics"} <= own


def test_bounds_are_narrow(certificate):
    """Float32 has 7 digits, float16 3, bfloat16 2; a bound is this rounding times the condition of the pass.

    A row has the bound of the element nearest to its bound; if all are equal, of any.
    """
    rows = [row for row in certificate.rows if row.what.startswith(("training", "optimizer")) and row.bound]
    differ = [row for row in rows if row.error]
    assert len(differ) > len(rows) / 3  # libraries that compute in the same way do not differ
    for row in differ:
        narrow = {"training in float16": 5e-3, "training in bfloat16": 4e-2}
        assert row.bound < narrow.get(row.what.partition(":")[0], 1e-3), row


def test_what_was_not_run_has_a_reason(certificate):
    reasons = {left.what: left.why for left in certificate.not_run}
    assert "training steps 4 to 50" in reasons
    for report in available_backends():
        if not report.usable:
            whys = [why for what, why in reasons.items() if what.startswith(report.name)]
            assert whys == [f"{report.reason}. {report.cure}"]


@pytest.mark.skipif("cupy" in USABLE, reason="CuPy can be used here")
def test_without_a_gpu_no_fused_version_is_reported_as_run(certificate):
    whats = [left.what for left in certificate.not_run]
    assert "cupy: references and fused versions on a GPU" in whats
    assert any(what.startswith("fused versions on numpy") for what in whats) == (available() is not None)


def test_json_has_the_documented_keys_and_finite_numbers(certificate):
    found = json.loads(json.dumps(certificate.to_json(), allow_nan=False))
    assert list(found) == ["agreed", "environment", "rows", "not_run"]
    assert {"platform", "python", "numpy", "backends", "device", "driver"} <= found["environment"].keys()
    assert {b["name"] for b in found["environment"]["backends"]} == {r.name for r in available_backends()}
    assert {tuple(row) for row in found["rows"]} == {("what", "a", "b", "error", "bound", "ok")}
    assert {tuple(left) for left in found["not_run"]} == {("what", "why")}


def test_an_infinite_error_is_null_in_json():
    row = Row("op x: out (raised OSError: gone)", "a", "b", inf, 0.0, False, "ops", "op x: out")
    found = Certificate(False, {}, (row,), (NotRun("y", "z"),)).to_json()
    assert list(found["rows"][0].values()) == [row.what, "a", "b", None, 0.0, False]
    assert found["not_run"] == [{"what": "y", "why": "z"}]


def test_a_seed_decides_the_inputs(monkeypatch):
    some = tuple(layers.cases())[:3]
    monkeypatch.setattr(layers, "cases", lambda: some)
    ledgers = [Ledger() for _ in range(3)]
    for ledger, seed in zip(ledgers, (0, 0, 1), strict=True):
        layers.verify_layers(ledger, Variant(NUMPY, "float64"), [Variant(NUMPY, "float32")], seed, quick=True)
    first, again, other = (ledger.rows() for ledger in ledgers)
    assert first == again
    assert [row.what for row in first] == [row.what for row in other]
    assert first != other


@pytest.mark.parametrize("name", [name for name in USABLE if name != "numpy"])
def test_a_library_that_was_not_named_is_listed_as_not_run(monkeypatch, name):
    monkeypatch.setattr(run, "_compare", lambda *_: ())
    not_run = verify([]).not_run
    assert [left.why for left in not_run if left.what.startswith(name)] == ["not among the named backends"]


def test_an_unknown_backend_is_an_error():
    with pytest.raises(BackendError, match=r"the backend must be one of .*, got 'numpi'"):
        verify(["numpi"])


def test_a_seed_below_zero_is_an_error():
    with pytest.raises(InputError, match=r"^verify: seed must be an integer of at least 0, got -1"):
        verify(seed=-1)


# -- errors and rows


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("got", "expected", "bound", "result"),
    [
        ([1.0, 2.0, 3.0], [1.5, 2.25, 3.0], [10.0, 0.5, 0.0], (0.25, 0.5, "")),  # the element nearest to its bound
        ([1.0, 2.5], [1.0, 2.0], 0.25, (0.5, 0.25, ", element 1: 2.5 instead of 2")),
        ([NAN], [NAN], 0.0, (0.0, 0.0, "")),
        ([NAN], [1.0], 1e300, ", element 0: nan instead of 1"),
        ([1.0], [NAN], INF, ", element 0: 1 instead of nan"),
        ([1.0], [2.0], NAN, ", element 0: 1 instead of 2"),
        ([INF], [-INF], 1.0, ", element 0: inf instead of -inf"),
        ([INF], [INF], 0.0, ""),
        (np.ones((3, 1)), np.ones(3), 1e9, (inf, 0.0, ": shape (3, 1) instead of (3,)")),
        ([1.0, 1.0], [1.0, 1.0], 0.0, ""),  # a bound of 0 means exactly
        ([1.0], [1 + 2.0**-52], 0.0, ", element 0: 1 instead of 1"),
    ],
)
def test_the_worst_element_is_named(got, expected, bound, result):
    found = worst(np.asarray(got), np.asarray(expected), np.asarray(bound))
    assert (found if isinstance(result, tuple) else found[2]) == result


def test_a_row_is_the_worst_of_its_comparisons():
    ledger = Ledger()
    one, two = np.ones(1), np.asarray([2.0])
    ledger.compare("x", "first", "a", "b", one, one, 1.0)
    ledger.compare("x", "second", "a", "b", one, two, 0.5)
    ledger.compare("x", "third", "a", "b", one, two, 1.5)
    ledger.compare("x", "third", "a", "c", one, two, 1.5)
    worst_row, other = ledger.rows()
    assert worst_row[:6] == ("x (second, element 0: 1 instead of 2)", "a", "b", 1.0, 0.5, False)
    assert other[:6] == ("x", "a", "c", 1.0, 1.5, True)


def test_an_exception_is_a_disagreement_with_its_message():
    ledger = Ledger()
    with ledger.guard("op affine", "ordinary", "torch float32", "numpy float32"):
        raise TypeError("no such thing\nmore")
    (row,) = ledger.rows()
    assert row.what == "op affine (ordinary: raised TypeError: no such thing)"
    assert (row.ok, row.error) == (False, inf)

"""The examples of the contracts have adversarial inputs and every option."""

from typing import Any

import numpy as np
import pytest

from bnengine.ops import REGISTRY
from bnengine.ops.activations import ACTIVATIONS
from bnengine.ops.update import RULES

DTYPES = ("float32", "float64")


def examples(name: str, dtype: str = "float32") -> dict[str, Any]:
    made = list(REGISTRY[name].contract.examples(np.random.default_rng(0), dtype))
    found = {e.label: e for e in made}
    assert len(found) == len(made), "two examples have one label"
    return found


def floating(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_examples_have_their_dtype_and_repeat(name, dtype):
    for label, one in examples(name, dtype).items():
        again = examples(name, dtype)[label]
        for a, b in zip(one.args, again.args, strict=True):
            assert (a is None) == (b is None)
            assert a is None or a.tobytes() == b.tobytes()
        if name in ("merge", "commit"):  # statistics are float64 throughout
            assert one.args[0].dtype == np.float64
        elif name == "add_epoch_sums":
            assert [a.dtype for a in one.args[1:3]] == [dtype] * 2
        elif name == "gather_raw":  # of data of any dtype, for a network of this one
            assert one.args[4].dtype == dtype
        elif name != "count_step":
            assert one.args[0].dtype == dtype


# Where arrays of a dtype of 16 bits stand among the arguments; all other floating arrays are float32, or float64 where
# they are statistics or sums.
STORED = {
    "activation": {0}, "activation_backward": {0, 1, 2}, "total": {0, 1}, "affine": {0, 1}, "dropout": {0},
    "affine_backward": {0, 1, 2, 3}, "dropout_backward": {0}, "moments": {0}, "normalize": {0, 4}, "batch_norm": {0, 3},
    "normalize_backward": {0, 1, 2, 6}, "softmax_cross_entropy": {0}, "binary_cross_entropy": {0},
    "mean_squared_error": {0}, "correct": {0}, **{name: {6 + len(rule.slots)} for name, rule in RULES.items()},
}  # fmt: skip
WIDEST = {"normalize": 1, "normalize_backward": 3}  # statistics


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", sorted(STORED))
def test_in_16_bits_only_stored_arrays_have_them(name, dtype, require):
    if dtype == "bfloat16":
        require("ml_dtypes")
    met = set()
    for label, one in examples(name, dtype).items():
        for i, a in enumerate(one.args):
            if not isinstance(a, np.ndarray) or a.dtype.kind in "iub":
                continue
            kind = "float64" if i == WIDEST.get(name) else dtype if i in STORED[name] else "float32"
            assert a.dtype.name == kind, (label, i)
            met |= {i} & STORED[name]
        for option, a in one.options.items():
            assert not isinstance(a, np.ndarray) or a.dtype == np.float32, (label, option)
    assert met == STORED[name]


def check_batches(found: dict[str, Any], dtype: str) -> None:
    """The batches of `moments`, which `normalize` and its gradient meet too."""
    tiny = np.finfo(dtype).tiny
    x = {label: e.args[0].astype(np.float64) for label, e in found.items()}
    assert np.all(np.abs(x["ordinary"].mean(0)) > 5 * x["ordinary"].std(0))
    assert x["image"].ndim == 4
    far = x["mean 1e6, std 1"]
    assert np.all((far.mean(0) / far.std(0) > 8e5) & (far.mean(0) / far.std(0) < 1.2e6))
    assert len(far) > 64
    outlier = x["first row an outlier"]
    assert np.all(outlier[0] == 1e6)
    assert np.all(np.abs(outlier[1:]) < 10)
    assert len(np.unique(x["constant"])) == 1
    assert x["constant"][0, 0] == np.asarray(0.1, dtype)
    assert np.all((np.abs(x["subnormal"]) < tiny) & (x["subnormal"] != 0))
    assert len(np.unique(x["subnormal"])) == x["subnormal"].size
    assert x["two rows"].shape[0] == 2
    for label in ("ordinary", "constant", "subnormal", "first row an outlier"):
        assert x[label].shape[0] > 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_batches_meet_means_outliers_constants_subnormals(dtype):
    check_batches(examples("moments", dtype), dtype)
    found = examples("normalize", dtype)
    check_batches(found, dtype)
    assert {e.options.get("activation") for e in found.values()} >= set(ACTIVATIONS)
    for kind in ACTIVATIONS:
        example = found[f"{kind}, add"]
        assert example.options == {"activation": kind, "slope": 0.2}
        x, statistics, gamma, beta, add = example.args
        assert add.shape == x.shape
        assert len(gamma) == len(beta) == x.shape[1]
        np.testing.assert_allclose(statistics[1], x.astype(np.float64).mean(0), rtol=1e-12)
        # Both branches of the kinked activations are met.
        y = REGISTRY["normalize"](*example.args, **{**example.options, "activation": "identity"})
        assert (y > 0).any()
        assert (y < 0).any()
    assert found["neither gamma nor beta"].args[2:] == (None, None)
    bare = found["no beta, other eps"]
    assert (bare.args[2] is None, bare.args[3] is None, bare.options) == (False, True, {"eps": 0.1})


def test_merging_meets_empty_samples_on_either_side():
    ((a, b, *_),) = (e.args for e in examples("merge").values())
    empty = set(zip((a[0] == 0).tolist(), (b[0] == 0).tolist(), strict=True))
    assert empty == {(True, False), (False, True), (True, True), (False, False)}
    assert np.all(a[2] > 0)
    assert np.all(b[2] > 0)


def test_committing_meets_every_rule_and_empty_sides():
    found = examples("commit")
    assert sorted(e.args[2].tolist() for e in found.values()) == [[False], [True]]
    for running, pending, _, decay, unbiased in (e.args for e in found.values()):
        assert set(zip((decay < 0).tolist(), unbiased.tolist(), strict=True)) == {
            (x, y) for x in (0, 1) for y in (0, 1)
        }
        assert {0.9, 0.5, 0.0, -1.0} == set(decay.tolist())
        assert 0 in pending[0]
        assert 1 in pending[0]
        assert 0 in running[0]
        assert np.sum(pending[0] > 1) >= 4


@pytest.mark.parametrize("name", ["activation", "activation_backward"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_meet_signed_zeros_far_values_subnormals(name, dtype):
    found = examples(name, dtype)
    assert set(found) == set(ACTIVATIONS)
    for kind, example in found.items():
        assert example.options == {"kind": kind, "slope": 0.2}
        x = example.args[-2 if name == "activation_backward" else 0]
        zeros = np.signbit(x[x == 0])
        assert (zeros.any(), zeros.all()) == (True, False)
        assert (x.min() <= -30, x.max() >= 30) == (True, True)
        assert np.any((x != 0) & (np.abs(x) < np.finfo(dtype).tiny))
        assert np.sum(x < 0) > 5
        assert np.sum(x > 0) > 5


def test_affine_meets_every_activation_and_layout():
    there, back = examples("affine"), examples("affine_backward")
    for kind in ACTIVATIONS:
        assert there[kind].options == {"activation": kind, "slope": 0.2}
        assert (kind in back) == (ACTIVATIONS[kind].reads != "z")
        z = REGISTRY["affine"](*there[kind].args)
        assert (z > 0).any()
        assert (z < 0).any()
    assert len(there["no bias"].args) == 2
    assert there["leading axes"].args[0].ndim == 3
    assert [a.shape for a in there["one row, one column"].args] == [(1, 5), (5, 1), (1,)]
    fortran = there["Fortran order"].args[:2]
    assert all(a.flags.f_contiguous and not a.flags.c_contiguous for a in fortran)
    of_z = {kind for kind, rule in ACTIVATIONS.items() if rule.reads == "z"}
    assert set(back) == set(there) - of_z | {"no dx", "no db", "no db, sigmoid"}
    assert back["no dx"].options == {"input_gradient": False}


def test_dropout_meets_images_large_keys_and_rate_0():
    found = examples("dropout")
    assert found["image"].args[0].ndim == 4
    for example in found.values():
        assert example.options["seed"] > 2**32
        assert example.options["layer"] > 0
        assert example.args[1][0] > 0
        assert max(example.args[2]) >= 2**31
        assert len(np.unique(example.args[2])) == len(example.args[0])
    assert sorted({e.options["rate"] for e in found.values()}) == [0.0, 0.3]
    dy, keep = examples("dropout_backward")["plain"].args
    assert dy.shape == keep.shape
    assert (keep.any(), keep.all()) == (True, False)
    assert 0 < examples("dropout_backward")["plain"].options["rate"] < 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_meet_weights_smoothing_and_far_logits(dtype):
    found = examples("softmax_cross_entropy", dtype)
    for example in found.values():
        logits, target = example.args[:2]
        assert target.shape == (logits.shape if target.dtype.kind == "f" else logits.shape[:-1])
        assert target.dtype.kind == "i" or np.allclose(target.sum(-1), 1, atol=1e-6)
        assert target.dtype.kind == "f" or set(target.ravel()) <= set(range(logits.shape[-1]))
    assert np.abs(found["large logits"].args[0]).max() > 300
    assert found["leading axes"].args[0].ndim == 3
    for label, kind in (("weighted, smoothed", "i"), ("weighted probabilities", "f")):
        example = found[label]
        assert example.args[1].dtype.kind == kind
        assert [a.shape for a in example.args[2:]] == [(4,), (7,)]
        assert 0 < example.options["label_smoothing"] < 1
        assert example.options["divisor"].shape == (1,)
        assert example.options["divisor"].dtype == dtype
    binary, squared = examples("binary_cross_entropy", dtype), examples("mean_squared_error", dtype)
    logits, target = binary["plain"].args
    assert (logits.max() >= 90, logits.min() <= -90, set(target.ravel())) == (True, True, {0.0, 1.0})
    for found in (binary, squared):
        assert set(found) == {"plain", "weighted", "scaled"}
        assert found["weighted"].args[2].shape == (7,)
        assert found["weighted"].options["divisor"].shape == (1,)
        assert found["plain"].args[0].shape == found["plain"].args[1].shape


def test_correct_meets_nan_ties_and_a_single_logit():
    found = examples("correct")
    for label, example in found.items():
        output, target = example.args
        right = REGISTRY["correct"](output, target)[0]
        assert 0 < right < len(output), label
    assert np.isnan(found["classes"].args[0]).any()
    assert found["yes or no"].args[0].shape[1] == 1
    assert set(found["yes or no"].args[1].ravel()) == {0.0, 1.0}


def test_check_step_meets_norms_around_the_clip():
    found = examples("check_step")
    for label, above in (("clipped", True), ("below the clip", False)):
        _, gradients, pending = found[label].args
        assert (np.linalg.norm(gradients) > found[label].options["clip"]) == above
        assert pending.size
    assert found["not clipped"].options == {}
    assert found["no statistics"].args[2].size == 0


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_optimizers_meet_typical_states_and_a_skipped_step(name, dtype):
    rule, found = RULES[name], examples(name, dtype)
    for label, example in found.items():
        call = rule.call(*example.args)
        arrays = [a for a in (call.parameters, call.gradients, *call.slots) if a is not None]
        assert all(a.shape == (50,) and a.dtype == dtype for a in arrays)
        assert call.table.shape == (3, rule.columns)
        assert 0 < call.counters[1] < len(call.table) - 1
        assert call.table.dtype == call.factor.dtype == dtype
        assert np.all((call.table > 0.09) & (call.table < 1.01))
        assert len(np.unique(call.table)) == call.table.size
        assert 0 < call.factor[0] < 1
        assert call.ok.tolist() == [label != "skipped"]
        assert np.isnan(call.gradients).any() == (label == "skipped")
        assert np.isfinite(call.parameters).all()
        assert example.options["decay_end"] == 30
    options = [example.options for example in found.values()]
    assert any(o.get("weight_decay") for o in options)
    assert any(o.get("frozen") for o in options) or name == "rmsprop"


@pytest.mark.parametrize("name", RULES)
def test_optimizers_meet_every_flag_setting_and_slot(name):
    rule, found = RULES[name], examples(name)
    for setting, default in rule.settings.items():
        if type(default) is bool or default == 0:
            assert any(e.options.get(setting, default) != default for e in found.values()), setting
    for i, (slot, row) in enumerate(rule.slots.items()):
        there = {e.args[2 + i] is not None for e in found.values()}
        assert there == ({True, False} if row.on else {True}), slot


def test_the_largest_square_of_amsgrad_grows_in_some_places():
    example = examples("adam")["AMSGrad"]
    grown = REGISTRY["adam"](*example.args, **example.options).largest != example.args[4]
    assert (grown.any(), grown.all()) == (True, False)
    for one in examples("rmsprop").values():
        _, _, square, mean, *_ = one.args
        assert mean is None or np.all(square > 2 * mean**2)

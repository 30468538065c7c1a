"""The examples of the contracts have every option, adversarial inputs, and arrays of the dtypes that an op takes."""

import inspect
from typing import Any

import numpy as np
import pytest

from bnengine.ops import REGISTRY
from bnengine.ops.activations import ACTIVATIONS
from bnengine.ops.update import RULES

DTYPES = ("float32", "float64", "float16", "bfloat16")
NAMES = sorted(REGISTRY)


def examples(name: str, dtype: str = "float32") -> dict[str, Any]:
    made = list(REGISTRY[name].contract.examples(np.random.default_rng(0), dtype))
    found = {e.label: e for e in made}
    assert len(found) == len(made), "two examples have one label"
    return found


# Where arrays of a dtype of 16 bits stand among the arguments; all other floating arrays are float32, or float64 where
# they are statistics or sums.
STORED = {
    "activation": {0}, "activation_backward": {0, 1, 2}, "total": {0, 1}, "affine": {0, 1}, "dropout": {0},
    "affine_backward": {0, 1, 2, 3}, "dropout_backward": {0}, "moments": {0}, "normalize": {0, 4}, "batch_norm": {0, 3},
    "normalize_backward": {0, 1, 2, 6}, "softmax_cross_entropy": {0}, "binary_cross_entropy": {0},
    "mean_squared_error": {0}, "correct": {0}, "gather": {0},
    **{name: {6 + len(rule.slots)} for name, rule in RULES.items()},
}  # fmt: skip
WIDEST = {
    "normalize": {1}, "normalize_backward": {3}, "merge": {0, 1}, "commit": {0, 1, 3}, "check_step": {2},
    "add_epoch_sums": {0, 3}, "gather_raw": {7, 8},
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_arrays_have_the_dtypes_of_their_arguments_and_repeat(name, dtype, require):
    if dtype == "bfloat16":
        require("ml_dtypes")
    again, met = examples(name, dtype), set()
    for label, one in examples(name, dtype).items():
        for i, (a, b) in enumerate(zip(one.args, again[label].args, strict=True)):
            assert a is b is None or a.tobytes() == b.tobytes()
            if not isinstance(a, np.ndarray) or a.dtype.kind in "iub" or (name, i) == ("gather_raw", 0):
                continue
            wide = "float64" if i in WIDEST.get(name, ()) else dtype if dtype in DTYPES[:2] else "float32"
            assert a.dtype.name == (dtype if i in STORED.get(name, ()) else wide), (label, i)
            met |= {i} & STORED.get(name, set())
    assert met == STORED.get(name, set()) or (dtype in DTYPES[:2] and name in RULES)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_and_every_optional_argument_is_there_and_not(name):
    found = list(examples(name).values())
    for i, (key, parameter) in enumerate(inspect.signature(REGISTRY[name].reference).parameters.items()):
        if parameter.kind is parameter.KEYWORD_ONLY:
            values = [e.options.get(key, parameter.default) for e in found]
            other = any(isinstance(v, np.ndarray) or v != parameter.default for v in values)
            assert other or key == "precision" or (name in RULES and key in ("decoupled", "frozen")), key
        elif parameter.default is None or key in ("gamma", "beta"):
            assert {len(e.args) > i and e.args[i] is not None for e in found} == {True, False}, key
    kinds = {e.options.get("activation", e.options.get("kind", "identity")) for e in found}
    of_y = {kind for kind, rule in ACTIVATIONS.items() if rule.reads != "z"}
    if "slope" in inspect.signature(REGISTRY[name].reference).parameters:
        assert kinds == (of_y if name == "affine_backward" else set(ACTIVATIONS))


@pytest.mark.parametrize("name", ["moments", "normalize"])
@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_batches_meet_means_outliers_constants_subnormals(name, dtype):
    x = {label: e.args[0].astype(np.float64) for label, e in examples(name, dtype).items()}
    ratio = x["mean 1e6, std 1"].mean(0) / x["mean 1e6, std 1"].std(0)
    assert np.all((ratio > 8e5) & (ratio < 1.2e6))
    assert np.all(np.abs(x["ordinary"].mean(0)) > 5 * x["ordinary"].std(0))
    assert np.all(x["first row an outlier"][0] == 1e6)
    assert np.all(np.abs(x["first row an outlier"][1:]) < 10)
    assert np.all(x["constant"] == np.asarray(0.1, dtype))
    assert np.all((np.abs(x["subnormal"]) < np.finfo(dtype).tiny) & (x["subnormal"] != 0))
    assert (x["image"].ndim, len(x["two rows"]), len(x["mean 1e6, std 1"]) > 64) == (4, 2, True)


@pytest.mark.parametrize("name", ["activation", "activation_backward"])
@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_activations_meet_signed_zeros_far_values_subnormals(name, dtype):
    for example in examples(name, dtype).values():
        x = example.args[-2 if name == "activation_backward" else 0]
        zeros = np.signbit(x[x == 0])
        assert (zeros.any(), zeros.all(), x.min() <= -30, x.max() >= 30) == (True, False, True, True)
        assert np.any((x != 0) & (np.abs(x) < np.finfo(dtype).tiny))


def test_statistics_meet_empty_samples_and_every_rule():
    ((a, b, *_),) = (e.args for e in examples("merge").values())
    assert len(set(zip(a[0] == 0, b[0] == 0, strict=True))) == 4
    assert sorted(e.args[2].tolist() for e in examples("commit").values()) == [[False], [True]]
    for running, pending, _, decay, unbiased in (e.args for e in examples("commit").values()):
        assert len(set(zip(decay < 0, unbiased, strict=True))) == 4
        assert {0.9, 0.5, 0.0, -1.0} == set(decay.tolist())
        assert ({0, 1} <= set(pending[0]), 0 in running[0], np.sum(pending[0] > 1) >= 4) == (True, True, True)


@pytest.mark.parametrize("name", RULES)
def test_optimizers_meet_typical_states_and_a_skipped_step(name):
    rule, found = RULES[name], examples(name)
    for label, example in found.items():
        call = rule.call(*example.args)
        assert (call.ok.tolist(), np.isnan(call.gradients).any()) == ([label != "skipped"], label == "skipped")
        assert 0 < call.counters[1] < len(call.table) - 1
        assert (len(np.unique(call.table)) == call.table.size, 0 < call.factor[0] < 1) == (True, True)
        assert 0 < example.options["decay_end"] < call.parameters.size
    for i, (slot, row) in enumerate(rule.slots.items()):
        assert {e.args[2 + i] is not None for e in found.values()} == ({True, False} if row.on else {True}), slot


def test_examples_meet_large_keys_far_logits_ties_nan_and_norms_around_the_clip():
    for example in examples("dropout").values():
        assert (example.options["seed"] > 2**32, max(example.args[2]) >= 2**31) == (True, True)
    assert np.abs(examples("softmax_cross_entropy")["large logits"].args[0]).max() > 300
    logits, target = examples("binary_cross_entropy")["plain"].args
    assert (logits.max() >= 90, logits.min() <= -90, set(target.ravel())) == (True, True, {0.0, 1.0})
    assert all(0 < REGISTRY["correct"](*e.args)[0] < len(e.args[0]) for e in examples("correct").values())
    assert np.isnan(examples("correct")["classes"].args[0]).any()
    for label, above in (("clipped", True), ("below the clip", False)):
        _, args, options = examples("check_step")[label]
        assert (np.linalg.norm(args[1]) > options["clip"]) == above
    example = examples("adam")["AMSGrad"]
    grown = REGISTRY["adam"](*example.args, **example.options).largest != example.args[4]
    assert (grown.any(), grown.all()) == (True, False)

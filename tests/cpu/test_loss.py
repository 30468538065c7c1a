"""The native losses where the ops' examples do not reach: many classes and rows, weights, what is not finite."""

import numpy as np
import pytest

from bnengine.ops import REGISTRY, Example
from tests.cpu.large import LOSSES, outputs, softmax
from tests.cpu.launching import assert_exact, assert_same_bits, run
from tests.cuda_on_cpu.cases import assert_within
from tests.cuda_on_cpu.storage import DOUBLE, FLOAT

pytestmark = pytest.mark.usefixtures("native")
storages = pytest.mark.parametrize("storage", [FLOAT, DOUBLE], ids=lambda s: s.name)
NAME = "softmax_cross_entropy"


@storages
@pytest.mark.parametrize("classes", [1, 2, 15, 16, 17, 100, 1400])
@pytest.mark.parametrize("kind", ["numbers", "probabilities"])
def test_rows_of_few_and_many_classes_are_within_the_bound(kind, classes, storage, rng):
    for weighted, smoothing in ((False, 0.0), (False, 0.1), (True, 0.0), (True, 0.1)):
        assert_exact(NAME, softmax(rng, 19, classes, storage.dtype, kind, weighted, smoothing), storage)


@storages
def test_a_class_that_cannot_be_costs_nothing_where_it_is_not_the_target(storage, rng):
    for kind in ("numbers", "probabilities"):
        example = softmax(rng, 5, 40, storage.dtype, kind)
        logits, target = example.args
        logits[:, 7] = -np.inf
        if kind == "numbers":
            target[:] = 3
        else:
            target[:, 7] = 0
        got = run(NAME, example)
        with np.errstate(all="ignore"):
            expected = REGISTRY[NAME].reference(logits.astype("f8"), *as_doubles(target), **example.options)
        assert_within(got["value"], expected.value, 100 * storage.unit, "value")
        assert_within(got["dlogits"], expected.dlogits, 100 * storage.unit, "dlogits")
        assert (got["dlogits"][:, 7] == 0).all()


@storages
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_row_of_weight_0_costs_nothing_though_its_class_cannot_be(smoothing, storage, rng):
    logits, codes = softmax(rng, 6, 40, storage.dtype).args
    logits[2, codes[2]] = -np.inf
    weights = np.ones(6, storage.dtype)
    weights[2] = 0
    options = {"divisor": 5.0, "label_smoothing": smoothing}
    got = run(NAME, Example("", (logits, codes, None, weights), options))
    others = np.delete(np.arange(6), 2)
    plain = run(NAME, Example("", (logits[others], codes[others], None, weights[others]), options))
    np.testing.assert_allclose(got["value"], plain["value"], rtol=4 * storage.unit)
    assert got["dlogits"][others].tobytes() == plain["dlogits"].tobytes()
    assert (got["dlogits"][2] == 0).all()


def as_doubles(*arrays):
    return [a.astype("f8") if a.dtype.kind == "f" else a for a in arrays]


@pytest.mark.parametrize("classes", [8, 21, 400])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_spoils_its_row_and_the_value(bad, classes, rng):
    for kind, smoothing in (("numbers", 0.0), ("numbers", 0.1), ("probabilities", 0.0)):
        for place in (0, 6, classes - 1):
            example = softmax(rng, 9, classes, kind=kind, smoothing=smoothing)
            plain = run(NAME, example)["dlogits"]
            example.args[0][3, place] = bad
            got = run(NAME, example)
            assert np.isnan(got["value"]).all()
            assert np.isnan(got["dlogits"][3]).all()
            assert np.delete(got["dlogits"], 3, 0).tobytes() == np.delete(plain, 3, 0).tobytes()


@pytest.mark.parametrize("weight", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("which", ["class", "sample", "divisor", "scale"])
def test_weights_that_are_0_or_not_finite_do_what_they_do_in_the_reference(which, weight, rng):
    for smoothing in (0.0, 0.1):
        logits, codes, classes, samples = softmax(rng, 9, 20, weighted=True, smoothing=smoothing).args
        divisor, scale = np.full(1, 9.0, np.float32), np.ones(1, np.float32)
        {"class": classes[4:5], "sample": samples[4:5], "divisor": divisor, "scale": scale}[which][:] = weight
        options = {"divisor": divisor, "scale": scale, "label_smoothing": smoothing}
        for args in ((logits, codes, classes, samples), (logits, codes, None, samples)):
            got = run(NAME, Example("", args, options))
            with np.errstate(all="ignore"):
                expected = REGISTRY[NAME].reference(*args, **options)
                np.testing.assert_allclose(got["value"], expected.value, rtol=1e-5)
                np.testing.assert_allclose(got["dlogits"], expected.dlogits, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("classes", [5, 100])
def test_a_number_that_is_no_class_is_no_target_and_nothing_is_read_there(classes, rng):
    example = softmax(rng, 6, classes)
    example.args[1][[1, 4]] = -1, 2**40
    got, expected = run(NAME, example), REGISTRY[NAME].reference(*example.args, **example.options)
    np.testing.assert_allclose(got["value"], expected.value, rtol=1e-6)
    np.testing.assert_allclose(got["dlogits"], expected.dlogits, rtol=1e-4, atol=1e-8)
    assert (got["dlogits"][[1, 4]] == 0).all()
    assert run("correct", Example("", example.args))["out"] == REGISTRY["correct"].reference(*example.args)


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "u8"])
def test_class_numbers_may_have_any_integer_type(kind, rng):
    example = softmax(rng, 40, 12)
    other = example._replace(args=(example.args[0], example.args[1].astype(kind)))
    assert_same_bits(run(NAME, other), run(NAME, example), kind)


@storages
@pytest.mark.parametrize("name", LOSSES)
def test_a_sample_s_weight_counts_for_its_outputs_across_chunks(name, storage, rng):
    for rows, width in ((1, 1), (5, 300), (1500, 3), (3001, 1)):
        for weighted in (True, False):
            assert_exact(name, outputs(rng, rows, width, storage.dtype.type, weighted), storage)


@pytest.mark.parametrize("name", LOSSES)
def test_outputs_that_are_not_finite_do_what_they_do_in_the_reference(name, rng):
    p, t = rng.standard_normal((50, 4)).astype(np.float32), rng.integers(0, 2, (50, 4)).astype(np.float32)
    p[3], p[20] = [np.nan, np.inf, -np.inf, -0.0], [1e30, -1e30, 1e-40, 200]
    for rows in (slice(0, 3), slice(0, 4), slice(20, 21)):
        got = run(name, Example("", (p[rows], t[rows]), {"divisor": 4.0}))
        with np.errstate(all="ignore"):
            expected = REGISTRY[name].reference(p[rows], t[rows], divisor=4.0)
        np.testing.assert_allclose(got["dlogits"], expected.dlogits, rtol=1e-6)
        np.testing.assert_allclose(got["value"], expected.value, rtol=1e-6)


def test_the_mean_over_many_rows_is_summed_in_double(rng):
    x, t = (rng.standard_normal((30001, 1)).astype(np.float32) for _ in range(2))
    value = run("mean_squared_error", Example("", (x, t), {"divisor": 30001.0}))["value"]
    expected = REGISTRY["mean_squared_error"].reference(x.astype("f8"), t.astype("f8"), divisor=30001.0).value
    assert_within(value, expected, 4 * FLOAT.unit * expected, "value")


def test_hits_take_the_first_of_equals_and_no_row_with_a_nan(rng):
    output = rng.integers(0, 3, (200, 70)).astype(np.float32)
    output[::7, 69], output[5, :] = np.nan, -np.inf
    codes = np.argmax(output, axis=1)
    codes[::3] += 1
    likely = rng.integers(0, 3, (200, 70)).astype(np.float32)
    likely[::9, 4] = np.nan
    likely[1:60, 0] = 3
    output[1:60, 0] = 3
    for target in (codes, likely):
        assert run("correct", Example("", (output, target)))["out"] == REGISTRY["correct"].reference(output, target) > 0

"""Predicting from raw data: the user's rows in, the user's labels or values out."""

import numpy as np
import pytest

import bnengine as bn
from bnengine.errors import DataError, InputError
from bnengine.network.inference import softmax
from tests.support import require
from tests.training.support import blobs, net, trainer


def fitted(x, y, network, *, folder=None, loss="softmax_cross_entropy", task="classification", epochs=30, **options):
    """A network trained on raw data, which went through a file if a folder is given."""
    preprocessing = bn.Preprocessing.fit(bn.data.Dataset(x, y), task=task)
    t = trainer(network, loss=loss, learning_rate=0.02, **options)
    t.fit(bn.ArraySource(x, y, preprocessing=preprocessing, dtype=network.dtype), epochs=epochs, batch_size=30)
    if folder is None:
        return t.network
    t.save(folder)
    return bn.load(folder)


@pytest.mark.parametrize(
    "names",
    [np.array(["rot", "grün", "blau"]), np.array([40, -7, 1000]), np.array([2, 0, 1], np.uint8)],
    ids=["strings", "gaps", "bytes"],
)
def test_labels_come_back_as_they_were_in_the_training_data(names, tmp_path):
    x, y = blobs()
    network = fitted(1000 * x + 5, names[y], net(), folder=tmp_path)
    found = bn.predict(network, 1000 * x + 5)
    assert (found.labels == names[y]).mean() > 0.9
    assert found.labels.dtype == names.dtype
    assert found.values is None
    ready = network.preprocessing.inputs(1000 * x + 5)
    assert found.probabilities == pytest.approx(softmax(network.predict(ready).astype(np.float64)), rel=1e-6)
    assert found.probabilities.sum(axis=1) == pytest.approx(np.ones(90), rel=1e-14)
    order = np.sort(names)
    assert (order[found.probabilities.argmax(axis=1)] == found.labels).all()


def test_bytes_of_images_need_no_preparation(tmp_path):
    digits = bn.load_digits()
    rows = np.arange(300)
    network = fitted(digits.x[rows], digits.y[rows], net(64, 10), folder=tmp_path, epochs=8)
    found = bn.predict(network, digits.x[rows])
    assert (found.labels == digits.y[rows]).mean() > 0.95
    flat = bn.predict(network, np.asarray(digits.x[rows]).reshape(300, -1))
    assert flat.probabilities.tobytes() == found.probabilities.tobytes()


@pytest.mark.parametrize("names", [np.array([False, True]), np.array(["no", "yes"]), np.array([3, 5])], ids=str)
def test_one_logit_is_that_of_the_second_class(names, tmp_path):
    x, y = blobs(classes=2)
    network = fitted(x, names[y], net(outputs=1, dtype="float64"), folder=tmp_path, loss="binary_cross_entropy")
    found = bn.predict(network, x)
    logit = network.predict(network.preprocessing.inputs(x, "float64"))[:, 0]
    assert found.probabilities.shape == (90, 2)
    assert found.probabilities[:, 1] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-12)
    assert (found.labels == names[(logit > 0).astype(int)]).all()
    assert (found.labels == names[y]).mean() > 0.9


@pytest.mark.parametrize("shape", [(), (1,), (2,)])
def test_values_of_a_regression_have_the_users_units_and_shape(shape, tmp_path):
    x, _ = blobs()
    outputs = shape[0] if shape else 1
    y = 5000 + 300 * x[:, :outputs].reshape(90, *shape)
    network = fitted(
        x,
        y,
        net(outputs=outputs, dtype="float64"),
        folder=tmp_path,
        loss="mean_squared_error",
        task="regression",
        epochs=80,
    )
    found = bn.predict(network, x)
    assert found.labels is None
    assert found.probabilities is None
    assert found.values.shape == (90, *shape)
    assert np.abs(found.values - y).mean() < 0.3 * y.std()
    raw = network.predict(network.preprocessing.inputs(x, "float64"))
    expected = raw * y.reshape(90, -1).astype(np.float64).std(0) + y.reshape(90, -1).astype(np.float64).mean(0)
    assert found.values.reshape(90, -1) == pytest.approx(expected, rel=1e-9)


@pytest.fixture(scope="module")
def network():
    return fitted(*blobs(), net(dtype="float64"))


@pytest.mark.parametrize("batch_size", [1, 7, 89, 90, 91])
def test_the_size_of_the_batches_makes_no_difference(network, batch_size):
    x, _ = blobs()
    whole, parts = bn.predict(network, x), bn.predict(network, x, batch_size=batch_size)
    assert (whole.labels == parts.labels).all()
    assert parts.probabilities == pytest.approx(whole.probabilities, rel=1e-12, abs=1e-300)


def test_raw_data_may_be_of_any_real_kind(network, tmp_path):
    x = np.round(blobs()[0] * 8)
    expected = bn.predict(network, x).probabilities
    np.save(tmp_path / "x.npy", x)
    kinds = (
        x.astype(np.float16),
        x.astype(np.int64),
        np.asfortranarray(x),
        x.tolist(),
        np.load(tmp_path / "x.npy", mmap_mode="r"),
    )
    for raw in kinds:
        assert bn.predict(network, raw, batch_size=40).probabilities == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["array_api_strict", "torch"])
def test_predictions_are_numpy_arrays_on_every_backend(network, name, tmp_path):
    require(name)
    bn.save(tmp_path, network)
    found = bn.predict(bn.load(tmp_path, backend=name), blobs()[0])
    assert type(found.labels) is type(found.probabilities) is np.ndarray
    assert found.probabilities == pytest.approx(bn.predict(network, blobs()[0]).probabilities, rel=1e-12, abs=1e-300)


def test_predicting_changes_nothing(network):
    before = {name: a.tobytes() for name, a in network.state_dict().items()}
    bn.predict(network, blobs(seed=3)[0] * 100)
    assert {name: a.tobytes() for name, a in network.state_dict().items()} == before


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (blobs()[0], {"batch_size": 0}, InputError, "batch_size must be an integer of at least 1, got 0"),
        (blobs()[0][:0], {}, InputError, "the data has no rows. Pass at least one"),
        (blobs(features=5)[0], {}, DataError, r"predict: samples must have .*, got \(5,\)"),
        (np.full((1100, 6), np.nan), {}, DataError, "predict: x, row 0, feature 0 is nan"),
    ],
)
def test_data_that_cannot_be_predicted_say_why(network, x, options, error, message):
    with pytest.raises(error, match=message):
        bn.predict(network, x, **options)


def test_the_row_at_fault_is_counted_over_the_batches(network):
    x = blobs()[0].astype(np.float64)
    x[83, 2] = np.inf
    with pytest.raises(DataError, match="predict: x, row 83, feature 2 is inf"):
        bn.predict(network, x, batch_size=20)


def test_a_row_that_overflows_is_named_and_gets_no_label():
    x, y = blobs()
    network = fitted(x, y, net(), epochs=1)
    network.named_parameters()["0.W"][...] = 1e20
    x = x.astype(np.float64)
    x[83] = 1e30
    with pytest.raises(InputError, match=r"predict: row 83 gives \[(nan|inf|-inf), .*which is not finite"):
        bn.predict(network, x, batch_size=20)


def test_a_network_without_preprocessing_takes_ready_features():
    with pytest.raises(InputError, match=r"has no preprocessing. Pass ready features to network\.predict\(x\)"):
        bn.predict(net(), blobs()[0])


def test_softmax_of_large_logits_is_exact_where_it_can_be():
    found = softmax(np.array([[1000.0, 1000.0, -1000.0], [0.0, np.log(3.0), -np.inf]]))
    assert found[0].tolist() == [0.5, 0.5, 0.0]
    assert found[1] == pytest.approx([0.25, 0.75, 0.0], rel=1e-15)

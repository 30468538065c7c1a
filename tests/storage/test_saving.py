"""Saving and loading networks: what comes back is what was saved, bit for bit, with all that predicting needs."""

import numpy as np
import pytest

import bnengine as bn
from bnengine.errors import CheckpointError, InputError
from bnengine.storage import checkpoint
from bnengine.storage.saving import KIND, MODEL, file_of, read
from tests.support import require
from tests.training.support import blobs, net, network_bits, trainer


def many_layers(**options):
    """One of each layer, with options that are not the usual ones."""
    inner = bn.Residual(bn.Dense(5, 5, bias=True), bn.BatchNorm(5, decay=None, gamma=False), bn.Activation("tanh"))
    return bn.Sequential(
        bn.Dense(6, 5), bn.BatchNorm(5, decay=0.5, eps=1e-3, variance="biased"), bn.Activation("leaky_relu"), inner,
        bn.Dropout(0.3), bn.Dense(5, 3), **{"backend": "numpy", **options},
    )  # fmt: skip


def trained(network, **options):
    t = trainer(network, **options)
    t.fit(blobs(), epochs=1, batch_size=30)
    return t


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_comes_back_bit_for_bit(tmp_path, dtype):
    network = trained(many_layers(dtype=dtype, seed=5)).network
    file = tmp_path / "net.safetensors"
    bn.save(file, network)
    found = bn.load(file, backend="numpy")
    assert found.config() == network.config()
    assert (found.dtype, found.seed) == (dtype, 5)
    assert network_bits(found) == network_bits(network)
    x, _ = blobs()
    assert found.predict(x).tobytes() == network.predict(x).tobytes()
    again = tmp_path / "again.safetensors"
    bn.save(again, found)
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", ["array_api_strict", "torch"])
def test_a_network_of_one_library_is_loaded_into_another(tmp_path, name):
    require(name)
    network = trained(many_layers(dtype="float64")).network
    bn.save(tmp_path, network)
    other = bn.load(tmp_path, backend=name)
    assert other.backend.name == name
    assert network_bits(other) == network_bits(network)
    bn.save(tmp_path / "back", other)
    assert (tmp_path / "back").read_bytes() == (tmp_path / MODEL).read_bytes()


def test_a_folder_stands_for_the_model_file_in_it(tmp_path):
    network = trained(net()).network
    bn.save(tmp_path, network)
    assert [p.name for p in tmp_path.iterdir()] == [MODEL]
    for place in (tmp_path, str(tmp_path), tmp_path / MODEL, str(tmp_path / MODEL)):
        assert network_bits(bn.load(place)) == network_bits(network)
    assert file_of(tmp_path) == tmp_path / MODEL
    assert file_of(tmp_path / "other") == tmp_path / "other"


def test_an_untrained_network_can_be_saved(tmp_path):
    network = net()
    bn.save(tmp_path, network)
    found = bn.load(tmp_path)
    assert network_bits(found) == network_bits(network)
    assert found.preprocessing is None
    with pytest.raises(InputError, match="no statistics were collected yet"):
        found.predict(blobs()[0])


def test_what_is_frozen_comes_back_frozen(tmp_path):
    network = many_layers()
    network.freeze("parameters", "0.W")
    network.freeze("statistics", "1")
    network.freeze("normalization", "3")
    bn.save(tmp_path, network)
    assert bn.load(tmp_path).frozen() == network.frozen()
    assert network.frozen()["parameters"] == ["0.W"]


def test_the_preprocessing_comes_back_with_its_labels_and_split(tmp_path):
    x, y = blobs()
    data = bn.data.Dataset(x, np.array(["no", "yes", "perhaps"])[y])
    train, valid = bn.data.split_dataset(data, seed=0, task="classification")
    network = net()
    network.preprocessing = bn.Preprocessing.fit(data, train, valid=valid)
    bn.save(tmp_path, network)
    found = bn.load(tmp_path).preprocessing
    assert found.inputs(x).tobytes() == network.preprocessing.inputs(x).tobytes()
    assert found.labels(np.arange(3)).tolist() == ["no", "perhaps", "yes"]
    assert found.valid_indices.tolist() == np.sort(valid).tolist()


# -- averages ----------------------------------------------------------------------------------------------------------


def test_averaged_weights_are_loaded_unless_raw_are_requested(tmp_path):
    t = trained(net(), average=bn.Average(0.9))
    t.save(tmp_path)
    averages = {name: a.tobytes() for name, a in t.network.export(*t.step.state.averaged).items()}
    assert averages != network_bits(t.network)
    assert network_bits(bn.load(tmp_path)) == network_bits(bn.load(tmp_path, weights="average")) == averages
    assert network_bits(bn.load(tmp_path, weights="raw")) == network_bits(t.network)


def test_without_an_average_the_raw_weights_are_loaded(tmp_path):
    t = trained(net())
    t.save(tmp_path)
    for weights in ("auto", "raw"):
        assert network_bits(bn.load(tmp_path, weights=weights)) == network_bits(t.network)
    with pytest.raises(CheckpointError, match=r"no average of the weights was kept. Load it with weights='raw'"):
        bn.load(tmp_path, weights="average")
    with pytest.raises(InputError, match="load: weights must be 'auto', 'raw' or 'average', got 'averaged'"):
        bn.load(tmp_path, weights="averaged")


# -- what a file holds -------------------------------------------------------------------------------------------------


def test_parts_are_distinguished_by_their_first_word(tmp_path):
    t = trained(net(), average=bn.Average(0.9))
    t.network.preprocessing = bn.Preprocessing.fit(bn.data.Dataset(*blobs()))
    t.save(tmp_path)
    contents = checkpoint.read(tmp_path / MODEL)
    assert {name.split(".")[0] for name in contents.tensors} == {"network", "preprocessing", "training"}
    assert contents.metadata["kind"] == KIND
    assert contents.metadata["bnengine"] == bn.__version__
    saved = read(tmp_path)
    assert {name: a.tobytes() for name, a in saved.state.items()} == network_bits(t.network)
    assert saved.training["epoch"] == 1
    bn.save(tmp_path, t.network)
    assert read(tmp_path).training is None
    assert read(tmp_path).arrays == {}


def test_other_programs_read_the_tensors_as_plain_safetensors(tmp_path):
    load_file = require("safetensors.numpy").load_file
    network = trained(net()).network
    bn.save(tmp_path, network)
    found = load_file(tmp_path / MODEL)
    assert {name.removeprefix("network."): a.tobytes() for name, a in found.items()} == network_bits(network)


def test_files_that_hold_no_network_say_what_they_are(tmp_path):
    checkpoint.write(tmp_path / "other", {"a": np.zeros(3)}, {"kind": "a table"})
    with pytest.raises(
        CheckpointError, match=r"other: the checkpoint must be of a network, got 'a table'. Pass a model\.saf"
    ):
        bn.load(tmp_path / "other")
    checkpoint.write(tmp_path / "none", {"a": np.zeros(3)}, {})
    with pytest.raises(CheckpointError, match="must be of a network, got None"):
        bn.load(tmp_path / "none")
    (tmp_path / "text").write_text("no safetensors at all")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        bn.load(tmp_path / "text")
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*there is no such file"):
        bn.load(tmp_path)


def test_the_last_file_survives_a_failed_save(tmp_path):
    network = trained(net()).network
    bn.save(tmp_path, network)
    file = tmp_path / MODEL
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="damaged"):
        bn.load(tmp_path)
    file.write_bytes(whole)
    with pytest.raises(CheckpointError, match="does not exist"):
        bn.save(tmp_path / "missing" / "folder.safetensors", network)
    assert file.read_bytes() == whole


def test_a_state_goes_through_plain_numpy_dictionaries(tmp_path):
    network = trained(many_layers()).network
    np.savez(tmp_path / "state.npz", **network.state_dict())
    other = many_layers(seed=9)
    with np.load(tmp_path / "state.npz") as state:
        other.load_state_dict(dict(state))
    assert network_bits(other) == network_bits(network)

"""What a network makes of its layers: checks, widths, names, buffers, drawn weights, the reports about itself."""

import json

import numpy as np
import pytest

from bnengine.arrays.random import Stream
from bnengine.errors import BackendError, InputError
from bnengine.fused.cpu._load import available
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Residual
from bnengine.layers.initializers import Constant
from bnengine.network.sequential import Sequential
from bnengine.ops import using
from tests.network.support import slope_error


def network(*layers, **options):
    return Sequential(*layers, **{"backend": "numpy", "dtype": "float64", **options})


def everything():
    """A network with all that there is."""
    shared = Dense(6, 6)
    return (
        Dense(5, 6), BatchNorm(6), Activation("leaky_relu", slope=0.2), Dropout(0.2),
        Residual(Dense(6, 8), Activation("gelu"), Dense(8, 6), BatchNorm(6, gamma=False)), Activation("relu"),
        shared, Residual(BatchNorm(6), Residual(shared, Dropout(0.1)), Activation("tanh")),
        BatchNorm(6, beta=False, decay=None), Activation("sigmoid"), Dense(6, 3),
    )  # fmt: skip


# -- what does not fit -------------------------------------------------------------------------------------------------


def test_no_layers_and_what_is_no_layer_are_errors():
    with pytest.raises(InputError, match=r"^Sequential\(\): no layers. Pass at least one"):
        network()
    with pytest.raises(
        InputError, match=r"^Sequential: a part must be a layer, got 'relu'. Pass objects such as Dense\(64, 100\)"
    ):
        network(Dense(3, 4), "relu")
    with pytest.raises(InputError, match=r"^Sequential: a part must be a layer, got .*Dense'>"):
        network(Dense)


@pytest.mark.parametrize("dtype", ["float16", "int64", "double", None, np.float32])
def test_another_dtype_than_the_two_is_an_error(dtype):
    with pytest.raises(InputError, match=r"^Sequential: dtype must be 'float32' or 'float64', got "):
        network(Dense(3, 4), dtype=dtype)


def test_an_unknown_backend_is_an_error():
    with pytest.raises(BackendError, match=r"the backend must be .*got 'jax'"):
        network(Dense(3, 4), backend="jax")


@pytest.mark.parametrize("seed", [-1, "0", 1.5])
def test_a_seed_is_a_whole_number_from_zero_up(seed):
    with pytest.raises(InputError, match="seed"):
        network(Dense(3, 4), seed=seed)


def test_a_layer_belongs_to_one_network():
    dense = Dense(3, 4)
    first = network(dense)
    before = first.parameters.array.copy()
    with pytest.raises(InputError, match=r"^Sequential: 1\.W belongs to another network already. Make new layers"):
        network(Dense(5, 3), dense)
    np.testing.assert_array_equal(first.parameters.array, before)
    assert first.predict(np.ones((2, 3))).shape == (2, 4)


def test_a_network_that_cannot_be_built_leaves_its_layers_free():
    dense = Dense(3, 4)
    with pytest.raises(InputError, match=r"the input must have . features, got 4"):
        network(dense, Dense(5, 2))
    assert network(dense, Dense(4, 2)).outputs == 2


@pytest.mark.parametrize(
    ("layers", "inputs", "outputs"),
    [
        ([Dense(3, 4)], 3, 4),
        ([BatchNorm(3)], 3, 3),
        ([Dropout(0.1), Activation("relu"), Dense(3, 4)], 3, 4),
        ([Activation("relu")], None, None),
        ([Residual(Dense(3, 3)), Dense(3, 1)], 3, 1),
        ([Residual(Residual(Activation("tanh"), BatchNorm(3)))], 3, 3),
    ],
)
def test_the_widths_of_a_network(layers, inputs, outputs):
    net = network(*layers)
    assert (net.inputs, net.outputs) == (inputs, outputs)


# -- names, weights, buffers -------------------------------------------------------------------------------------------


def test_names_have_place_and_part():
    net = network(*everything())
    assert list(net.named_parameters()) == [
        "0.W", "1.gamma", "1.beta", "4.0.W", "4.0.b", "4.2.W", "4.3.beta", "6.W", "6.b", "7.0.gamma", "7.0.beta",
        "8.gamma", "10.W", "10.b",
    ]  # fmt: skip
    assert list(net.named_statistics()) == ["1.statistics", "4.3.statistics", "7.0.statistics", "8.statistics"]
    assert net.cancelled == ["0.b", "4.2.b"]
    assert net.cancelled_biases == 12
    assert net.named_parameters()["4.0.W"].shape == (6, 8)
    assert net.named_statistics()["8.statistics"].shape == (3, 6)
    assert net.parameter_count == sum(a.size for a in net.named_parameters().values())
    assert list(net.named_handles()) != []
    assert net.named_handles() is not net.named_handles()


def test_weights_are_drawn_by_seed_and_name_and_rounded():
    for dtype in ("float32", "float64"):
        net = network(Dense(5, 6), Dense(6, 2), dtype=dtype, seed=3)
        drawn = Stream(3, "parameters", "1.W").normal((6, 2)) * (2 / 6) ** 0.5
        np.testing.assert_array_equal(net.named_parameters()["1.W"], drawn.astype(dtype))
        np.testing.assert_array_equal(net.named_parameters()["0.b"], np.zeros(6))


def test_a_reset_draws_the_first_weights_again():
    net, other = network(Dense(5, 6), BatchNorm(6), seed=1), network(Dense(5, 6), BatchNorm(6), seed=2)
    first = net.parameters.array.copy()
    assert (first[:30] != other.parameters.array[:30]).all()
    net.named_parameters()["0.W"][...] = 0
    net.named_statistics()["1.statistics"][...] = 4
    net.reset()
    np.testing.assert_array_equal(net.parameters.array, first)
    np.testing.assert_array_equal(net.named_statistics()["1.statistics"], [[0] * 6, [0] * 6, [1] * 6])
    net.reset(seed=2)
    np.testing.assert_array_equal(net.parameters.array, other.parameters.array)
    assert net.seed == 2
    net.reset(seed=0)
    assert net.seed == 0
    np.testing.assert_array_equal(net.parameters.array, network(Dense(5, 6), BatchNorm(6)).parameters.array)


def test_an_initializer_of_ones_own_is_used():
    net = network(Dense(5, 6, weights=Constant(0.5)), Dense(6, 2, weights=lambda _, shape: np.ones(shape)))
    assert set(net.named_parameters()["0.W"].ravel()) == {0.5}
    assert set(net.named_parameters()["1.W"].ravel()) == {1.0}


@pytest.mark.parametrize(("dtype", "step"), [("float32", 16), ("float64", 8)])
def test_each_parameter_begins_on_a_cache_line(dtype, step):
    net = network(*everything(), dtype=dtype)
    handles = net.named_handles()
    for flat, each in ((net.parameters, step), (net.statistics, 8)):
        ends = 0
        for handle, offset in flat.offsets.items():
            assert offset % each == 0
            assert offset >= ends
            ends = offset + int(np.prod(handle.shape))
        assert flat.array.shape[-1] % each == 0
    for name in net.named_parameters():
        offset = net.parameters.offsets[handles[name]]
        assert (offset < net.decay_end) == name.endswith(".W")
    assert net.decay_end == min(
        net.parameters.offsets[handles[n]] for n in net.named_parameters() if not n.endswith(".W")
    )


def test_decay_end_is_the_end_where_all_parameters_decay():
    net = network(Dense(5, 6, bias=False))
    assert net.decay_end == net.parameters.array.shape[0] == 32


def test_a_network_without_parameters_runs(rng):
    net = network(Activation("relu"), Dropout(0.5))
    x = rng.standard_normal((3, 2))
    np.testing.assert_array_equal(net.predict(x), np.maximum(x, 0))
    assert (net.parameter_count, net.cancelled_biases, net.state_dict()) == (0, 0, {})
    assert "0 parameters" in net.summary()


# -- derivatives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(9, 5), (2, 3, 2, 5)])
def test_a_network_with_everything_has_the_slopes_of_its_output(rng, shape, training):
    net = network(*everything())
    for array in net.named_parameters().values():
        array[...] = array + rng.standard_normal(array.shape) * 0.3
    for array in net.named_statistics().values():
        array[...] = np.stack([np.full(6, 9.0), rng.standard_normal(6), rng.random(6) + 0.5])
    assert slope_error(net, rng.standard_normal(shape), rng, training=training) < 1e-7


# -- configuration -----------------------------------------------------------------------------------------------------


def test_config_is_json_and_builds_the_same_network(rng):
    net = network(*everything(), seed=7)
    net.freeze("statistics", "1")
    net.freeze("normalization", "4.3")
    net.freeze("affine", "7.0")
    net.freeze("parameters", "10.W")
    config = json.loads(json.dumps(net.config()))
    again = Sequential.from_config(config, backend="numpy")
    assert again.config() == net.config()
    assert (again.dtype, again.seed, repr(again)) == ("float64", 7, repr(net))
    np.testing.assert_array_equal(again.parameters.array, net.parameters.array)
    assert again.frozen() == {
        "parameters": ["7.0.gamma", "7.0.beta", "10.W"], "statistics": ["1.statistics"],
        "normalization": ["4.3.statistics"],
    }  # fmt: skip
    x = rng.standard_normal((6, 5))
    for other in (net, again):
        other.thaw("normalization")
    np.testing.assert_array_equal(again.forward(x, training=True).output, net.forward(x, training=True).output)


def test_a_configuration_may_lack_its_frozen_parts():
    config = network(Dense(3, 4), BatchNorm(4)).config()
    del config["frozen"]
    assert Sequential.from_config(config, backend="numpy").frozen() == {
        "parameters": [], "statistics": [], "normalization": [],
    }  # fmt: skip


# -- reports -----------------------------------------------------------------------------------------------------------


def test_the_summary_shows_every_layer_and_the_totals():
    net = Sequential(
        Dense(64, 100), BatchNorm(100), Activation("relu"), Residual(Dense(100, 100, bias=True), BatchNorm(100)),
        Dense(100, 10), backend="numpy",
    )  # fmt: skip
    assert net.summary().splitlines() == [
        "layer                                             outputs  parameters  statistics",
        "-" * 81,
        "0      Dense(64, 100) (bias cancelled)                100       6,400           -",
        "1      BatchNorm(100)                                 100         200     3 x 100",
        "2      Activation('relu')                             100           -           -",
        "3      Residual(Dense(100, 100), BatchNorm(100))      100           -           -",
        "3.0    Dense(100, 100)                                100      10,100           -",
        "3.1    BatchNorm(100)                                 100         200     3 x 100",
        "4      Dense(100, 10)                                  10       1,010           -",
        "-" * 81,
        "17,910 parameters in float32 on numpy, 76,928 bytes with statistics",
        "100 biases left out: the next BatchNorm subtracts them (0.b)",
        "kept although the next BatchNorm cancels it: 3.0.b (bias=True)",
    ]


def test_the_summary_reports_no_bias_that_nothing_cancels():
    shared = Dense(4, 4)
    text = network(shared, BatchNorm(4), shared, Residual(BatchNorm(4), Dense(4, 4, bias=True)), BatchNorm(4)).summary()
    assert "no biases cancelled" in text
    assert "kept although" not in text
    assert "? " in network(Activation("relu")).summary().splitlines()[2] + " "


def test_explain_dispatch_lists_each_op_and_changes_nothing():
    net = network(*everything())
    before = net.parameters.array.tobytes(), net.statistics.array.tobytes()
    with using("reference"):
        choices = net.explain_dispatch()
    ops = {choice.op for choice in choices}
    assert {"affine", "affine_backward", "batch_norm", "normalize_backward", "dropout", "total"} <= ops
    assert {(choice.version, choice.why) for choice in choices} == {("reference", "reference mode requested")}
    assert all(choice.library == "numpy" and choice.dtype == "float64" for choice in choices)
    here = net.explain_dispatch()
    assert {choice.op for choice in here} == ops
    if reason := available():
        assert all(choice.version == "reference" and choice.why.endswith(reason) for choice in here)
    else:
        assert all(choice.version.startswith("bnengine.fused.cpu.") and not choice.why for choice in here)
    assert (net.parameters.array.tobytes(), net.statistics.array.tobytes()) == before


def test_the_text_of_a_network_shows_its_layers():
    assert repr(network(Dense(3, 4), Activation("relu"))) == "Sequential(Dense(3, 4), Activation('relu'))"

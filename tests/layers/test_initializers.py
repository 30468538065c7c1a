"""Moments, bounds and orthogonality of initial weights, and that the same stream gives the same bits."""

import json
import math

import numpy as np
import pytest

from bnengine.arrays.random import Stream
from bnengine.layers.initializers import (
    Constant,
    Glorot,
    He,
    Normal,
    Ones,
    Orthogonal,
    Zeros,
    config_of,
    from_config,
    get_initializer,
)

DRAWING = [He(), Glorot(), Orthogonal(), Normal(0.1)]


def stream(*purpose):
    return Stream(17, "weights", *purpose)


def check_moments(values, std, fourth):
    """Mean 0 and the given std, within 5 standard errors; ``fourth`` is E x^4 / std^4 of the distribution."""
    n = values.size
    assert abs(np.mean(values)) < 5 * std / math.sqrt(n)
    assert abs(np.mean(values**2) / std**2 - 1) < 5 * math.sqrt((fourth - 1) / n)
    assert abs(np.mean(values**4) / std**4 - fourth) < 0.1 * fourth


@pytest.mark.parametrize(("shape", "fan_in"), [((300, 400), 300), ((400, 300), 400), ((3, 3, 64, 128), 576)])
def test_he_is_normal_with_variance_two_over_fan_in(shape, fan_in):
    check_moments(He()(stream(), shape), math.sqrt(2 / fan_in), 3.0)


@pytest.mark.parametrize(("shape", "fans"), [((300, 400), 700), ((3, 3, 64, 128), 9 * (64 + 128))])
def test_glorot_is_uniform_within_its_bound(shape, fans):
    values = Glorot()(stream(), shape)
    limit = math.sqrt(6 / fans)
    assert 0.999 * limit < np.max(np.abs(values)) < limit
    check_moments(values, limit / math.sqrt(3), 9 / 5)


def test_normal_and_constants_are_as_given():
    check_moments(Normal(0.02)(stream(), (1000, 100)), 0.02, 3.0)
    source = stream()
    for initializer, value in ((Normal(0.0), 0), (Zeros(), 0), (Ones(), 1), (Constant(-0.25), -0.25)):
        if initializer != Normal(0.0):
            np.testing.assert_array_equal(initializer(source, (2, 3)), np.full((2, 3), value))
        else:
            assert not np.any(initializer(stream(), (3,)))
    assert source.position == 0


@pytest.mark.parametrize("shape", [(50, 50), (80, 30), (30, 80), (3, 3, 4, 20), (1, 5), (5, 1)])
@pytest.mark.parametrize("gain", [1.0, -0.5])
def test_orthogonal_has_orthonormal_columns_or_rows(shape, gain):
    matrix = Orthogonal(gain)(stream(), shape).reshape(-1, shape[-1])
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    product = matrix.T @ matrix
    np.testing.assert_allclose(product, gain**2 * np.eye(matrix.shape[1]), rtol=0, atol=20 * 2.0**-53 * gain**2)


def test_orthogonal_prefers_no_sign():
    """The plain Q of a QR routine has a preferred sign on its diagonal; a uniform one has mean 0 and variance 1/n."""
    diagonals = np.stack([np.diagonal(Orthogonal()(stream(k), (8, 8))) for k in range(500)])
    assert abs(np.mean(diagonals)) < 5 / math.sqrt(8 * diagonals.size)
    assert abs(np.mean(diagonals**2) - 1 / 8) < 5 * math.sqrt(2 / 64 / diagonals.size)


@pytest.mark.parametrize("initializer", [*DRAWING, Orthogonal(0.5), Zeros(), Ones(), Constant(3)])
def test_values_are_of_the_stream_and_a_configuration_survives_json(initializer):
    config = json.loads(json.dumps(config_of(initializer)))
    assert from_config(config) == get_initializer(config) == initializer
    first = initializer(stream("a"), (20, 30))
    assert (first.dtype, first.shape, first.flags.c_contiguous, first.flags.writeable) == (
        np.float64, (20, 30), True, True,
    )  # fmt: skip
    assert first.tobytes() == get_initializer(config)(stream("a"), (20, 30)).tobytes()
    assert np.any(first == initializer(stream("b"), (20, 30))) == (initializer not in (*DRAWING, Orthogonal(0.5)))


def test_names_and_objects_are_found():
    names = {"he": He(), "glorot": Glorot(), "orthogonal": Orthogonal(1.0), "zeros": Zeros(), "ones": Ones()}
    assert {name: get_initializer(name) for name in names} == names
    for given in (Normal(0.5), lambda _stream, shape: np.zeros(shape)):
        assert get_initializer(given) is given

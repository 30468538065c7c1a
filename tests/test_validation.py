"""Checks of single arguments: what they accept, what they return, how their errors read."""

import re

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.layers import BatchNorm
from bnengine.optim.optimizers import SGD
from bnengine.validation import choice, integer, number


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.asarray(3)])
def test_integers_become_plain_ints(value):
    found = integer("f", "n", value, least=1)
    assert (type(found), found) == (int, 3)


@pytest.mark.parametrize("value", [0, 9, 2.0, "3", True, np.True_, None, float("nan")])
def test_other_values_are_no_integers_of_a_range(value):
    with pytest.raises(
        InputError, match=rf"^f: n must be an integer from 1 to 8, got {re.escape(repr(value))}\. Cure\.$"
    ):
        integer("f", "n", value, least=1, most=8, cure="Cure.")


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), np.asarray(0.5), np.float16(0.5)])
def test_numbers_become_plain_floats(value):
    found = number("f", "x", value, least=0, below=1)
    assert (type(found), found) == (float, 0.5)


@pytest.mark.parametrize(
    "value", [-0.1, 1, "0.5", b"0", True, np.False_, None, float("nan"), float("inf"), 1j, 10**400]
)
def test_other_values_are_no_numbers_of_a_range(value):
    with pytest.raises(InputError, match=r"^f: x must be a finite number of at least 0 and below 1, got "):
        number("f", "x", value, least=0, below=1)


def test_a_choice_is_one_of_the_choices_by_type_too():
    assert choice("f", "bias", "auto", ("auto", True, False)) == "auto"
    with pytest.raises(InputError, match=r"^f: bias must be 'auto', True or False, got 1\.$"):
        choice("f", "bias", 1, ("auto", True, False))


def test_scalars_of_numpy_are_stored_as_python_values():
    assert type(SGD(momentum=np.float32(0.5)).momentum) is float
    layer = BatchNorm(np.int64(3), decay=np.float32(0.5), eps=np.float64(1e-3))
    assert [type(value) for value in (layer.channels, layer.decay, layer.eps)] == [int, float, float]

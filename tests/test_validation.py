"""Checks of single arguments: what they accept, what they return, how their errors read, and who uses them."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import bnengine as bn
from bnengine.arrays.random import Stream
from bnengine.errors import InputError
from bnengine.layers.initializers import Constant, Normal, Orthogonal
from bnengine.losses import SoftmaxCrossEntropy
from bnengine.metrics import Accuracy, ConfusionMatrix, TopK
from bnengine.optim import schedules
from bnengine.optim.optimizers import SGD, Adam, AdamW, Lion, RMSprop
from bnengine.runtime import cores
from bnengine.validation import choice, flag, integer, number


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


def test_a_choice_is_one_of_the_choices():
    assert choice("f", "bias", "auto", ("auto", True, False)) == "auto"
    assert type(choice("f", "bias", np.str_("auto"), ("auto", True, False))) is str
    with pytest.raises(InputError, match=r"^f: bias must be 'auto', True or False, got 1\.$"):
        choice("f", "bias", 1, ("auto", True, False))


@pytest.mark.parametrize("value", [True, np.True_, np.asarray(True)])
def test_flags_become_plain_bools(value):
    assert flag("f", "x", value) is True


@pytest.mark.parametrize("value", [1, 0, None, "yes", np.ones(2, bool)])
def test_other_values_are_no_flags(value):
    with pytest.raises(InputError, match=r"^f: x must be True or False, got "):
        flag("f", "x", value)


# -- every setting uses these checks -----------------------------------------------------------------------------------

TEXT_AND_LISTS = ("1", b"1", [1])
NO_INTEGER = (True, 1.5, float("nan"), *TEXT_AND_LISTS)
NO_NUMBER = (True, np.True_, float("nan"), float("inf"), 1j, *TEXT_AND_LISTS)
NO_FLAG = (1, 0, 0.0, "yes")
NO_CHOICE = (True, 1, "nonesuch", ["nonesuch"])


class Setting(NamedTuple):
    """One argument: how it is set, a good value in NumPy's type, the type it is stored in, and bad values."""

    make: Callable[..., Any]
    name: str
    good: Any
    stored: type
    bad: tuple[Any, ...]

    def set(self, value: Any) -> Any:
        return self.make(**{self.name: value})


def whole(make: Callable[..., Any], name: str, *bad: Any, good: int = 3) -> Setting:
    return Setting(make, name, np.int64(good), int, (*NO_INTEGER, *bad))


def real(make: Callable[..., Any], name: str, *bad: Any, good: float = 0.5) -> Setting:
    return Setting(make, name, np.float32(good), float, (*NO_NUMBER, *bad))


def yes(make: Callable[..., Any], name: str) -> Setting:
    return Setting(make, name, np.True_, bool, NO_FLAG)


def one_of(make: Callable[..., Any], name: str, good: str) -> Setting:
    return Setting(make, name, np.str_(good), str, NO_CHOICE)


def dense(**options: Any) -> bn.Dense:
    return bn.Dense(**{"inputs": 3, "outputs": 4, **options})


def norm(**options: Any) -> bn.BatchNorm:
    return bn.BatchNorm(**{"channels": 3, **options})


def step_schedule(**options: Any) -> schedules.Step:
    return schedules.Step(**{"learning_rate": 0.1, "every": 3, **options})


def plateau(**options: Any) -> schedules.Plateau:
    return schedules.Plateau(**{"learning_rate": 0.1, **options})


def cosine(**options: Any) -> schedules.Cosine:
    return schedules.Cosine(**{"learning_rate": 0.75, **options})


def one_cycle(**options: Any) -> schedules.OneCycle:
    return schedules.OneCycle(**{"peak": 0.1, **options})


def warm_up(**options: Any) -> schedules.WarmUp:
    return schedules.WarmUp(schedules.Constant(0.1), **{"steps": 3, **options})


def stream(**options: Any) -> Stream:
    return Stream(0, **options)


SHARE, FROM_0, ABOVE_0 = (-0.1, 1.0), (-0.1,), (0.0, -0.1)
SETTINGS = [
    whole(dense, "inputs", 0), whole(dense, "outputs", 0), Setting(dense, "bias", "auto", str, (1, 0, None, "yes")),
    whole(norm, "channels", 0), real(norm, "decay", *SHARE), real(norm, "eps", *ABOVE_0),
    one_of(norm, "variance", "biased"), one_of(norm, "one_value", "running"),
    Setting(norm, "gamma", np.True_, object, NO_FLAG), Setting(norm, "beta", np.True_, object, NO_FLAG),
    one_of(bn.Activation, "kind", "tanh"),
    real(lambda **options: bn.Activation("leaky_relu", **options), "slope", *FROM_0),
    real(bn.Dropout, "rate", *SHARE),
    real(Orthogonal, "gain"), real(Normal, "std", *FROM_0), real(Constant, "value"),
    real(SoftmaxCrossEntropy, "label_smoothing", *SHARE),
    real(SGD, "momentum", *SHARE), yes(lambda **options: SGD(momentum=0.9, **options), "nesterov"),
    real(SGD, "weight_decay", *FROM_0),
    real(RMSprop, "rho", *SHARE), real(RMSprop, "eps", *ABOVE_0), one_of(RMSprop, "eps_placement", "inside"),
    yes(RMSprop, "centered"), real(RMSprop, "momentum", *SHARE), real(RMSprop, "weight_decay", *FROM_0),
    *(
        setting
        for make in (Adam, AdamW)
        for setting in (
            real(make, "beta1", *SHARE), real(make, "beta2", *SHARE), real(make, "eps", *ABOVE_0),
            yes(make, "amsgrad"), yes(make, "bias_correction"), real(make, "weight_decay", *FROM_0),
        )
    ),
    real(Lion, "beta1", *SHARE), real(Lion, "beta2", *SHARE), real(Lion, "weight_decay", *FROM_0),
    real(schedules.Constant, "learning_rate", *FROM_0),
    real(step_schedule, "learning_rate", *FROM_0), whole(step_schedule, "every", 0),
    real(step_schedule, "factor", -0.1, 1.5),
    real(cosine, "learning_rate", *FROM_0), whole(cosine, "total_steps", 0), real(cosine, "floor", *FROM_0),
    real(one_cycle, "peak", *FROM_0), whole(one_cycle, "total_steps", 0), real(one_cycle, "rise", *SHARE),
    real(one_cycle, "divisor", 0.5, good=1.5), real(one_cycle, "final_divisor", 0.5, good=1.5),
    one_of(one_cycle, "anneal", "linear"),
    whole(warm_up, "steps", 0), real(warm_up, "start", *FROM_0),
    real(plateau, "learning_rate", *FROM_0), real(plateau, "factor", *SHARE), whole(plateau, "patience", -1),
    real(plateau, "minimum", *FROM_0), real(plateau, "threshold", *FROM_0), one_of(plateau, "best", "highest"),
    real(bn.Average, "decay", *SHARE), one_of(bn.Average, "statistics", "recomputed"),
    real(bn.LossScale, "initial", 0.0, 2.0**65), real(bn.LossScale, "growth", 0.5, good=1.5),
    real(bn.LossScale, "backoff", 0.0, 1.5), whole(bn.LossScale, "every", 0, 2**25),
    whole(TopK, "k", 0), whole(ConfusionMatrix, "classes", 1), yes(Accuracy, "each_output"),
    whole(stream, "position", -1, 2**64),
    whole(bn.EarlyStopping, "patience", 0), real(bn.EarlyStopping, "margin", *FROM_0),
    yes(bn.EarlyStopping, "restore_best"),
]  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"{getattr(s.make, '__name__', s.make)}-{s.name}")
def test_a_setting_refuses_bad_values_and_stores_a_python_value(setting):
    for bad in setting.bad:
        with pytest.raises(InputError, match=rf"^[\w.(), ]+: {setting.name} must be .*, got {re.escape(repr(bad))}\."):
            setting.set(bad)
    stored = getattr(setting.set(setting.good), setting.name)
    if setting.stored is not object:
        assert type(stored) is setting.stored
        assert stored == setting.good


@pytest.mark.parametrize("bad", [*NO_INTEGER, 0, 257])
def test_a_number_of_threads_is_an_integer(bad):
    with pytest.raises(InputError, match=rf"^f: the number of threads must be .* got {re.escape(repr(bad))}"):
        cores.checked(bad, "f")
    assert type(cores.checked(np.int64(2), "f")) is int


@pytest.mark.parametrize("bad", [*NO_NUMBER, -0.1])
def test_each_class_weight_is_a_number(bad):
    with pytest.raises(InputError, match=r"^SoftmaxCrossEntropy: class_weights\[1\] must be .*, got "):
        SoftmaxCrossEntropy(class_weights=(1.0, bad))
    assert [type(w) for w in SoftmaxCrossEntropy(class_weights=np.ones(2, np.float32)).class_weights] == [float] * 2

"""What layers and initializers refuse, and in which words."""

import numpy as np
import pytest

from bnengine.arrays.random import Stream
from bnengine.errors import InputError
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Residual, build
from bnengine.layers.initializers import Glorot, He, Orthogonal, config_of, from_config, get_initializer
from bnengine.network.sequential import Sequential

SHARE, INTEGER = "must be a finite number of at least 0 and below 1, got", "must be an integer of at least 1, got "
CONVENTIONS = "'torch', 'keras', 'flax', 'tf' or 'chainer'"
EMPTY = r"the shape must be \(inputs, outputs\), .*got"


def norm(**options):
    return lambda: BatchNorm(3, **options)


def convention(name, momentum):
    return lambda: BatchNorm.from_convention(name, 3, momentum=momentum)


def network(layers):
    return lambda: Sequential(*layers(), backend="numpy", dtype="float64")


REFUSED = [
    (norm(decay=1.0), rf"BatchNorm\(3\): decay {SHARE} 1\.0"),
    (norm(decay=-0.1), rf"BatchNorm\(3\): decay {SHARE} -0\.1"),
    (norm(decay=float("nan")), rf"BatchNorm\(3\): decay {SHARE} nan"),
    (norm(eps=0.0), r"BatchNorm\(3\): eps must be a finite number above 0, got 0\.0"),
    (norm(eps=float("inf")), r"BatchNorm\(3\): eps must .* got inf"),
    (norm(variance="sample"), r"BatchNorm\(3\): variance must be 'unbiased' or 'biased', got 'sample'"),
    (norm(one_value="ignore"), r"BatchNorm\(3\): one_value must be 'raise' or 'running', got 'ignore'"),
    *((lambda n=n: BatchNorm(n), f"BatchNorm: channels {INTEGER}") for n in (0, -1, 2.0, "3", True, None)),
    (convention("caffe", 0.1), rf"BatchNorm\.from_convention: name must be {CONVENTIONS}, got 'caffe'"),
    (convention("keras", None), r"BatchNorm\.from_convention: momentum must be a finite number .* got None"),
    (convention("torch", 1.5), r"BatchNorm\.from_convention: momentum must .*, got 1\.5\. torch uses 0\.1 by default"),
    (convention("keras", -0.5), r"BatchNorm\.from_convention: momentum must .*, got -0\.5\. keras uses 0\.99"),
    (convention("torch", 0), r"BatchNorm\.from_convention: the momentum of torch must .* got 0\.0\. .*freeze"),
    (convention("keras", 1.0), r"BatchNorm\.from_convention: the momentum of keras must .* got 1\.0\. .*freeze"),
    (lambda: Dense(0, 3), f"Dense: inputs {INTEGER}"),
    (lambda: Dense(3, -1), f"Dense: outputs {INTEGER}"),
    (lambda: Dense(3.0, 3), f"Dense: inputs {INTEGER}"),
    *((lambda b=b: Dense(3, 4, bias=b), r"Dense\(3, 4\): bias must be 'auto', True or .* got ") for b in ("yes", 2)),
    (network(lambda: (Dense(3, 4), Dense(5, 2))), r"Dense\(5, 2\), layer 1: the input must have 5 features, got 4\. "),
    *((lambda r=r: Dropout(r), f"Dropout: rate {SHARE} {r}") for r in (-0.1, 1.0, float("nan"))),
    (lambda: Activation("swish"), "Activation: kind must be 'identity', 'relu', .* got 'swish'"),
    (lambda: Activation("relu", slope=-0.1), r"Activation: slope must be a finite number of at least 0, got -0\.1"),
    (lambda: build([{"type": "Conv"}]), "layers: no layer called 'Conv'. Import the module that registers it"),
    (network(lambda: (Dense(3, 4), Residual(Dense(5, 5)))), r"Dense\(5, 5\), layer 1\.0: the input must .*, got 4"),
    (lambda: Residual(), r"Residual\(\): the body is empty. Give it at least one layer"),
    (lambda: Residual(Dense(4, 4), "relu"), r"Residual: a part must be a layer, got 'relu'. Give .*Dense\(64, 64\)"),
    *((network(lambda before=before, body=body: (*before(), Residual(*body()))),
       r"Residual\(.*layer \d.*: the body must keep the width of 4 features, got \d")
      for before in (tuple, lambda: (Dense(2, 4),), lambda: (Dropout(0.1), Activation("relu")))
      for body in (lambda: (Dense(4, 3),), lambda: (Dense(4, 6), BatchNorm(6)), lambda: (Residual(Dense(4, 1)),))),
    (lambda: get_initializer("xavier"), ".*must be one of he, glorot.*, got 'xavier'"),
    (lambda: get_initializer("normal"), r".*'normal' needs std. Give an object, Normal\(std=...\)"),
    (lambda: get_initializer("constant"), ".*'constant' needs value. Give an object"),
    (lambda: get_initializer(He), r".*He is a class. Give an object of it, He\(...\)"),
    (lambda: get_initializer(3), ".*must be a name .*, got 3"),
    (lambda: config_of(lambda _, shape: shape), r".*cannot be saved by its config.* Save its state_dict\(\) instead"),
    (lambda: from_config({}), "initializer: type must be 'He', .* got None"),
    (lambda: from_config({"type": "Xavier"}), ".*got 'Xavier'"),
    (lambda: from_config({"type": "He", "std": 1.0}), ".*He has no option 'std'. It takes none"),
    (lambda: from_config({"type": "Normal"}), ".*Normal needs std"),
    *((lambda o=o, shape=shape: o(Stream(0), shape), f"{type(o).__name__}: {EMPTY}")
      for o in (He(), Glorot(), Orthogonal()) for shape in ((), (5,), (0, 5), (5, 0))),
    (lambda: network(lambda: (BatchNorm(3),))().forward(np.ones((1, 1, 3)), training=True),
     r"BatchNorm\(3\), layer 0: one value per channel .*\(1, 1, 3\).*a batch of two.*join.*one_value='running'"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "text"), REFUSED)
def test_what_cannot_be_used_is_an_error_that_echoes_it(call, text):
    with pytest.raises(InputError, match=f"^{text}"):
        call()

"""Which kernels a trainer's steps and evaluations run on."""

import numpy as np
import pytest

import bnengine as bn
from bnengine.errors import InputError
from bnengine.ops import using
from bnengine.training import Callback, Trainer
from tests.support import give_versions

from .support import blobs, net, trainer


class Modes(Callback):
    """Keeps which versions ran in a direct call at the end of each epoch."""

    def __init__(self) -> None:
        self.versions: set[str] = set()

    def epoch_ends(self, trainer: Trainer, _: object) -> None:
        self.versions |= {choice.version for choice in trainer.network.explain_dispatch()}


def weights(t: Trainer) -> bytes:
    t.fit(blobs(), epochs=2, batch_size=30)
    return t.network.parameters.array.tobytes()


def versions(t: Trainer) -> set[str]:
    return {choice.version for choice in t.step.memory.explain()}


def test_references_run_in_everything_that_fit_calls(capsys):
    modes = Modes()
    t = trainer(kernels="reference", callbacks=[modes], progress="plain")
    found = weights(t)
    assert versions(t) == modes.versions == {"reference"}
    assert "steps run" not in capsys.readouterr().err
    with using("reference"):
        assert weights(trainer()) == found
        expected = trainer(t.network).evaluate(blobs())
    assert t.evaluate(blobs()) == expected


def test_auto_takes_what_using_says_where_the_trainer_is_made():
    assert trainer().kernels == "auto"
    with using("reference"):
        assert trainer().kernels == "reference"
        assert trainer(kernels="fused" if fused() else "reference").kernels != "auto"


def fused() -> bool:
    return bn.ops.affine.resolve("auto", np.ones((1, 1), np.float32))[0] is not None


def test_fused_makes_a_fallback_an_error(monkeypatch):
    for name in ("affine", "check_step"):
        with monkeypatch.context() as patched:
            give_versions(patched, {name: None})
            with pytest.raises(InputError, match=r"kernels are to be 'fused', but .* Take 'auto' to allow"):
                trainer(kernels="fused").fit(blobs(), epochs=1)


def test_auto_reports_a_fallback(monkeypatch, capsys):
    give_versions(monkeypatch, {}, alone=True)
    trainer(progress="plain").fit(blobs(), epochs=1)
    assert "steps run op by op: no fused version of " in capsys.readouterr().err


def test_the_kernels_are_one_of_three():
    with pytest.raises(InputError, match="Trainer: kernels must be 'auto', 'fused' or 'reference', got 'fast'"):
        trainer(net(), kernels="fast")

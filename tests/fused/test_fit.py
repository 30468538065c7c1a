"""`Trainer.fit` on a device: what the host reads and when, what the log says, how much memory data may take."""

from typing import Any

import pytest

from bnengine import data
from bnengine.arrays.backend import Backend
from bnengine.fused.cuda import cublaslt_api
from bnengine.training import Callback, Trainer
from tests.fused.training import X, Y, network

READ_EVERY = 10  # steps between the host's reads


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bnengine.training.trainer.READ_EVERY", READ_EVERY)


class Reads(Callback):
    """How often the host had read the device after each step."""

    def __init__(self, state: Any) -> None:
        self.state, self.after = state, list[int]()

    def step_ends(self, _trainer: Trainer) -> None:
        self.after.append(self.state.reads)


def trainer(backend: Backend, **options: Any) -> Trainer:
    options = {"progress": "plain", **options}
    return Trainer(network(backend, small=True), "adam", learning_rate=1e-2, **options)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("resident", [True, False])
def test_within_an_epoch_only_progress_reads_the_device(simulated, resident):
    reads = Reads(simulated.streams.STATE)
    made = trainer(simulated.backend(), callbacks=[reads], resident=resident)
    made.fit((X[:50], Y[:50]), epochs=2, batch_size=2)
    between = [b - a for a, b in zip(reads.after, reads.after[1:], strict=False)]
    first, second = between[:24], between[25:]
    for epoch in (first, second):
        at = {i + 2 for i, n in enumerate(epoch) if n}  # the step before which there were none since the one before it
        assert at == {READ_EVERY, 2 * READ_EVERY}
    assert made.history[-1]["train_loss"] < made.history[0]["train_loss"]


@pytest.mark.usefixtures("often")
def test_an_iterable_of_unknown_length_is_read_for_no_more(simulated):
    reads = Reads(simulated.streams.STATE)
    made = trainer(simulated.backend(), callbacks=[reads])
    made.fit(lambda: ((X[i : i + 2], Y[i : i + 2]) for i in range(0, 50, 2)), epochs=1, batch_size=2)
    between = [b - a for a, b in zip(reads.after, reads.after[1:], strict=False)]
    at = {i + 2 for i, n in enumerate(between) if n}
    assert at == {READ_EVERY, READ_EVERY + 1, 2 * READ_EVERY, 2 * READ_EVERY + 1}  # the progress, then the step count


def test_data_that_fit_half_of_the_free_memory_are_held(simulated):
    rows, state = (X[:100], Y[:100]), simulated.streams.STATE
    taken = 100 * (64 * 4 + 8 + 8 + 8 + 8)
    for spare, held in ((0, True), (-64, False)):
        made = trainer(simulated.backend(), progress="quiet")
        state.memory = simulated.streams.POOL.total + 2 * taken + spare
        made.fit(rows, epochs=1, batch_size=50)
        assert (made.resident is not None) == held


def test_the_log_says_once_why_steps_are_no_graph(simulated, monkeypatch, capsys):
    monkeypatch.setattr(cublaslt_api, "load", lambda: cublaslt_api.Refusal("libcublasLt was not found"))
    trainer(simulated.backend()).fit((X[:100], Y[:100]), epochs=3, batch_size=25)
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if "launch by launch" in line]
    assert len(lines) == 1
    assert "libcublasLt was not found" in lines[0]


@pytest.mark.parametrize("options", [{"graph": False}, {"graph": True}, {}], ids=str)
def test_nothing_is_said_where_steps_run_as_was_asked_for(simulated, capsys, options):
    made = trainer(simulated.backend(), **options)
    made.fit((X[:100], Y[:100]), epochs=2, batch_size=25)
    said = capsys.readouterr()
    assert "steps run" not in said.out + said.err
    assert {mode.how for mode in made.step.modes()} == {"launches" if options == {"graph": False} else "graph"}


def test_a_validation_in_between_does_not_disturb_the_graph(simulated):
    made = [trainer(simulated.backend(), progress="quiet") for _ in range(2)]
    for one, valid in zip(made, (None, (X[100:160], Y[100:160])), strict=True):
        one.fit((X[:100], Y[:100]), epochs=3, batch_size=25, validation=valid)
    a, b = (one.network.state_dict() for one in made)
    assert {k: v.tobytes() for k, v in a.items()} == {k: v.tobytes() for k, v in b.items()}
    assert "valid_loss" in made[1].history[0]


def test_labels_and_weights_go_to_the_device_unchanged(simulated):
    source = data.ArraySource(X[:50], Y[:50], (Y[:50] + 1.0))
    made = trainer(simulated.backend(), progress="quiet", resident=True)
    made.fit(source, epochs=1, batch_size=25)
    held = made.resident.data
    assert held["target"].get().tolist() == Y[:50].tolist()
    assert held["weights"].get().tolist() == (Y[:50] + 1.0).tolist()
    assert held["samples"].get().tolist() == list(range(50))

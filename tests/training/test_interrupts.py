"""Ctrl-C: the running step is completed, what must be saved is saved, and the signal's handler comes back."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import bnengine as bn
from bnengine.training import Callback, Checkpointing
from bnengine.training.interrupts import deferred_interrupt
from tests.training.support import After, Notes, blobs, net, outcome, trainer


def ctrl_c(_=None):
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def handler():
    """Whatever happens in a test, the handler before it is the one after it."""
    before = signal.getsignal(signal.SIGINT)
    yield before
    after = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    assert after is before


def test_inside_the_first_is_noted_and_the_second_comes_at_once(handler):
    with deferred_interrupt() as asked:
        assert not asked()
        ctrl_c()
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            ctrl_c()
    assert signal.getsignal(signal.SIGINT) is handler
    with deferred_interrupt() as asked:
        assert not asked()


def test_an_interrupted_run_saves_its_step_and_goes_on_alike(tmp_path):
    whole = trainer(net(dropout=0.2), callbacks=[Checkpointing(tmp_path / "whole")])
    whole.fit(blobs(), epochs=2, batch_size=10)
    notes = Notes()
    file = tmp_path / "run.safetensors"
    first = trainer(net(dropout=0.2), callbacks=[Checkpointing(file), After(4, ctrl_c), notes])
    with pytest.raises(KeyboardInterrupt):
        first.fit(blobs(), epochs=2, batch_size=10)
    assert notes.events[-2:] == ["step 4", "interrupted after step 4"]
    second = trainer(net(dropout=0.2), callbacks=[Checkpointing(file)])
    second.resume(file)
    assert outcome(second) == outcome(first)
    second.fit(blobs(), epochs=2, batch_size=10)
    first.callbacks = []
    first.fit(blobs(), epochs=2, batch_size=10)
    assert outcome(second)["arrays"] == outcome(first)["arrays"] == outcome(whole)["arrays"]
    assert file.read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_second_one_ends_it_at_once():
    class Twice(Callback):
        def step_ends(self, trainer):
            ctrl_c()
            ctrl_c()
            pytest.fail(f"step {trainer.group} went on")

    notes = Notes()
    with pytest.raises(KeyboardInterrupt):
        trainer(callbacks=[notes, Twice()]).fit(blobs(), epochs=1, batch_size=10)
    assert notes.events[-1] == "step 1"


class DuringValidation(bn.metrics.Accuracy):
    def update(self, *args, **options):
        ctrl_c()
        super().update(*args, **options)


@pytest.mark.parametrize("epochs", [1, 3])
def test_an_interrupt_in_a_validation_counts_after_it(epochs):
    notes = Notes()
    t = trainer(callbacks=[notes])
    with pytest.raises(KeyboardInterrupt):
        t.fit(blobs(rows=20), epochs=epochs, batch_size=10, validation=blobs(), metrics=[DuringValidation()])
    assert notes.events[-2:] == ["epoch 0 ends", "interrupted after step 0"]
    assert len(t.history) == t.epoch == 1
    assert len(t.fit(blobs(rows=20), epochs=epochs, batch_size=10)) == epochs
    assert notes.events[-1] == "fit ends"


def test_one_that_comes_while_the_end_is_saved_is_not_swallowed():
    class AtTheEnd(Callback):
        def fit_ends(self, _):
            ctrl_c()

    notes = Notes()
    with pytest.raises(KeyboardInterrupt):
        trainer(callbacks=[AtTheEnd(), notes]).fit(blobs(), epochs=1)
    assert notes.events[-2:] == ["fit ends", "interrupted after step 0"]


def test_an_error_in_the_training_brings_the_handler_back_too(handler):
    def fail(_):
        raise RuntimeError("of the callback's own")

    with pytest.raises(RuntimeError):
        trainer(callbacks=[After(1, fail)]).fit(blobs(), epochs=1)
    assert signal.getsignal(signal.SIGINT) is handler


def test_in_a_thread_training_runs_and_touches_no_handler(handler):
    found = []

    def run():
        t = trainer(callbacks=[After(1, lambda _: found.append(signal.getsignal(signal.SIGINT)))])
        found.append(len(t.fit(blobs(), epochs=2)))
        with deferred_interrupt() as asked:
            found.append(asked())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [handler, 2, False]


def test_where_it_is_ignored_it_stays_ignored():
    """So it is for a job that a shell script runs in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        t = trainer(callbacks=[After(1, ctrl_c)])
        try:
            t.fit(blobs(), epochs=2)
        except KeyboardInterrupt:
            pytest.fail("training listened to what was to be ignored")
        assert t.epoch == 2
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


PROCESS = """
import sys
import bnengine as bn
from tests.training.support import blobs, net, trainer

class Speak(bn.Callback):
    def step_ends(self, trainer):
        if trainer.epoch == 1 and trainer.group == 2:
            print("running", flush=True)

t = trainer(net(), callbacks=[Speak(), bn.Checkpointing(sys.argv[1])])
try:
    t.fit(blobs(), epochs=1_000_000, batch_size=10)
except KeyboardInterrupt:
    print("interrupted", t.epoch, t.group, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to another process")
def test_a_process_that_gets_the_signal_leaves_a_checkpoint(tmp_path):
    file = tmp_path / "run.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(file)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    word, epoch, group = rest.split()
    assert (word, process.returncode) == ("interrupted", 0)
    resumed = trainer()
    resumed.resume(file)
    assert (resumed.epoch, resumed.group) == (int(epoch), int(group))
    assert resumed.epoch >= 1

"""Trainings where threads are hard to have: in a child, next to others, on one core, as the interpreter ends."""

import os
import subprocess
import sys
import threading

import pytest

from bnengine import threads
from bnengine.runtime import cores
from tests.support import ROOT
from tests.training.support import blobs, net, network_bits, trainer

pytestmark = pytest.mark.usefixtures("native")


def trained(seed, epochs=6):
    """The bits of a network after `epochs` epochs of ten steps, the last of them ragged."""
    network = net(seed=seed, dropout=0.1)
    trainer(network, clip_norm=0.5).fit(blobs(rows=146, seed=seed), epochs=epochs, batch_size=15)
    return network_bits(network)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_trains_on_while_its_parent_does():
    network = net(seed=1)
    t, data = trainer(network), blobs(rows=146, seed=1)
    t.fit(data, epochs=2, batch_size=15)
    read, write = os.pipe()
    child = os.fork()
    try:
        t.fit(data, epochs=6, batch_size=15)
    finally:
        if child == 0:  # whatever became of it, it is not to go on with the tests
            os.write(write, repr(network_bits(network)).encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        found = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    assert found.decode() == repr(network_bits(network))


def test_trainings_in_several_threads_give_what_each_gives_alone():
    alone = [trained(seed) for seed in range(3)]
    found = {}
    workers = [threading.Thread(target=lambda s=seed: found.update({s: trained(s)})) for seed in range(3)]
    for worker in workers:
        worker.start()
    for n in (3, 1, 2, 4, 2):
        threads.set(n)
        threads.release()
    for worker in workers:
        worker.join()
    assert [found[seed] for seed in range(3)] == alone


SCRIPT = """
import os, threading
{before}
from bnengine import threads
from tests.cpu.test_trainings_at_once import trained
{then}
"""


def said(before="", then=""):
    environment = {k: v for k, v in os.environ.items() if k != cores.VARIABLE}
    command = [sys.executable, "-W", "error", "-c", SCRIPT.format(before=before, then=then)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not say which cores a process has")
def test_one_core_means_one_thread_by_default():
    one = min(os.sched_getaffinity(0))
    output = said(
        f"os.sched_setaffinity(0, {{{one}}})",
        "print(threads.get())\nfirst = trained(0)\nthreads.set(3)\nprint(trained(0) == first)",
    )
    assert output == "1\nTrue\n"


def test_the_interpreter_ends_in_the_midst_of_a_training():
    then = (
        "threads.set(2)\ntrained(0, 1)\n"
        "threading.Thread(target=lambda: trained(0, 10**6), daemon=True).start()\nprint('leaves')"
    )
    assert [said(then=then) for _ in range(3)] == ["leaves\n"] * 3

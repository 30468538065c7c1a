"""Products of NumPy beside our steps: jobs of its OpenBLAS on our threads, but for those that could not run there."""

import ctypes
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from bnengine import threads
from bnengine.errors import InputError
from bnengine.fused.cpu import numpy_blas
from bnengine.fused.cpu.native import NativeKernel
from tests.support import ROOT, missing

SIZE = 300  # of matrices whose products OpenBLAS cuts into jobs
LINKED = ctypes.CDLL(np._core._multiarray_umath.__file__)


class Shared:
    """NumPy's BLAS with two threads, beside two of ours that run."""

    def __init__(self, native):
        self.library, rng = native.library(), np.random.default_rng(0)
        self.x = rng.integers(-9, 10, (SIZE, SIZE))
        self.exact = self.x @ self.x  # of integers, by no BLAS
        self.out = np.zeros(4096, np.float32)
        self.fill = NativeKernel("fill<float>", self.out.size, 16, 8)

    def step(self):
        """What starts our threads, and what they do between products."""
        self.fill(self.out, 1.0)

    def right(self, dtype=np.float32):
        """Whether a product, of numbers that are exact in any order, is right."""
        x = self.x.astype(dtype)
        return bool(np.array_equal(x @ x, self.exact))

    def calls(self):
        """How many calls ran on our threads, and how many on its own."""
        return [self.library.bnengine_blas_calls(own) for own in (0, 1)]

    @property
    def callback(self):
        return ctypes.c_void_p.in_dll(LINKED, "openblas_threads_callback_").value


@pytest.fixture
def shared(native):
    if why := numpy_blas.found().why:
        missing("openblas", f"NumPy's BLAS, {numpy_blas.found().name}, keeps to its own threads: {why}")
    own = numpy_blas.named(LINKED, "openblas_get_num_threads")()
    set_own = numpy_blas.named(LINKED, "openblas_set_num_threads")
    set_own(2)
    threads.release()
    yield Shared(native)
    set_own(own)


def test_its_jobs_run_on_our_threads_while_there_are_any(shared):
    ours, own = shared.calls()
    assert shared.callback is None
    assert shared.right()
    assert shared.calls() == [ours, own]
    for _ in range(2):
        shared.step()
        assert shared.callback is not None
        assert shared.right()
        assert shared.right(np.float64)
        ours += 2
        assert shared.calls() == [ours, own]
        threads.release()
        assert shared.callback is None
        assert shared.right()
    shared.step()
    threads.set(1)
    shared.step()
    assert shared.callback is None
    assert shared.right()
    assert shared.calls() == [ours, own]


def test_more_jobs_than_our_threads_run_on_its_own(shared):
    shared.step()
    ours, own = shared.calls()
    numpy_blas.named(LINKED, "openblas_set_num_threads")(5)
    assert shared.right()
    assert shared.calls() == [ours, own + 1]
    assert "its own threads: it has 5, the kernels 2" in numpy_blas.described(2)
    threads.set(5)
    shared.step()
    assert shared.right()
    assert shared.calls() == [ours + 1, own + 1]


def test_products_and_factors_in_several_threads_stay_right_whatever_becomes_of_ours(shared):
    found, over, rng = list[bool](), threading.Event(), np.random.default_rng(1)
    a, b = rng.standard_normal((400, 400)), rng.standard_normal((400, 3))
    solved = np.linalg.solve(a, b)

    def products():
        while not over.is_set():
            found.append(shared.right())

    def factors():
        while not over.is_set():
            found.append(bool(np.allclose(np.linalg.solve(a, b), solved, rtol=1e-6, atol=1e-9)))

    others = [threading.Thread(target=work) for work in (products, products, factors)]
    for other in others:
        other.start()
    for n in (2, 3, 1, 4) * 5:
        threads.set(n)
        for _ in range(5):
            shared.step()
        found.append(shared.right())
        if n == 3:
            threads.release()
    over.set()
    for other in others:
        other.join()
    assert all(found)
    assert len(found) > 20


def test_what_a_product_tells_of_its_numbers_is_still_told(shared):
    shared.step()
    huge = np.full((SIZE, SIZE), 1e30, np.float32)
    before = shared.calls()[0]
    with pytest.warns(RuntimeWarning, match="overflow encountered in matmul"):
        assert np.isinf(huge @ huge).all()
    assert shared.calls()[0] == before + 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_has_its_own_threads_and_then_ours(shared):
    shared.step()
    for _ in range(5):
        child = os.fork()
        if child == 0:
            alone = shared.callback is None and shared.right()
            shared.step()
            os._exit(0 if alone and shared.callback is not None and shared.right() else 1)
        assert shared.right()
        assert os.waitpid(child, 0)[1] == 0
        assert shared.right()


SCRIPT = """
import sys, threading
import numpy as np
from bnengine import threads
from bnengine.fused.cpu.native import NativeKernel
threads.set(2)
out, x = np.zeros(4096, np.float32), np.ones((300, 300), np.float32)
fill = NativeKernel("fill<float>", out.size, 16, 8)
fill(out, 1.0)
begun = threading.Event()
def forever():
    while True:
        fill(out, 1.0)
        x @ x
        begun.set()
threading.Thread(target=forever, daemon=True).start()
begun.wait()
print("leaves")
"""


@pytest.mark.usefixtures("shared")
def test_the_interpreter_ends_while_a_daemon_thread_multiplies_and_steps():
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "leaves\n", "")


def test_it_can_be_left_alone(shared, monkeypatch):
    monkeypatch.setenv("BNENGINE_NUMPY_BLAS", "apart")
    assert numpy_blas.described(2).endswith(", on its own threads: BNENGINE_NUMPY_BLAS says so")
    script = SCRIPT.partition("begun")[0] + (
        "import ctypes\n"
        "linked = ctypes.CDLL(np._core._multiarray_umath.__file__)\n"
        "print(ctypes.c_void_p.in_dll(linked, 'openblas_threads_callback_').value)\n"
    )
    for said, expected in (("apart", True), ("shared", False)):
        monkeypatch.setenv("BNENGINE_NUMPY_BLAS", said)
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
        assert (done.stdout == "None\n") == expected
    monkeypatch.setenv("BNENGINE_NUMPY_BLAS", "yes")
    message = "BNENGINE_NUMPY_BLAS: 'yes' is not shared or apart; unset it for shared"
    with pytest.raises(InputError, match=message):
        numpy_blas.share(shared.library)
    with pytest.raises(InputError, match=message):
        numpy_blas.described(2)


class Other:
    """A library that NumPy might be linked to, by the names that it has."""

    def __init__(self, config, parallel=1, **names):
        self.openblas_get_parallel = lambda: parallel
        if config is not None:
            self.openblas_get_config = lambda: config
        vars(self).update(names)


@pytest.mark.parametrize(
    ("library", "name", "why"),
    [
        (Other(None), "", "it is no OpenBLAS"),
        (Other(b"OpenBLAS 0.3.30 MAX_THREADS=64", 0), "OpenBLAS 0.3.30", "not built for POSIX threads"),
        (Other(b"OpenBLAS 0.3.30 USE_OPENMP MAX_THREADS=64", 2), "OpenBLAS 0.3.30", "not built for POSIX threads"),
        (Other(b"OpenBLAS 0.3.21 MAX_THREADS=64"), "OpenBLAS 0.3.21", "only from 0.3.28 on"),
        (Other(b"OpenBLAS 0.3.30 MAX_THREADS=64"), "OpenBLAS 0.3.30", "only from 0.3.28 on"),
        (
            Other(b"OpenBLAS 0.3.30 MAX_THREADS=64", openblas_set_threads_callback_function=1),
            "OpenBLAS 0.3.30",
            "does not show how many threads",
        ),
    ],
)
def test_why_another_blas_keeps_to_its_own_threads_is_said(monkeypatch, library, name, why):
    monkeypatch.setattr(numpy_blas.ctypes, "CDLL", lambda _: library)
    found = numpy_blas.found()
    assert found.functions is None
    assert found.name.startswith(name)
    assert found.name
    assert why in found.why
    assert numpy_blas.described(2) == f"{found.name}, on its own threads: {found.why}"


def test_a_build_without_room_for_both_keeps_to_its_own_threads(monkeypatch):
    own = ctypes.c_int(40)
    functions = numpy_blas.Functions(1, 1, 1, ctypes.addressof(own), 64)
    monkeypatch.setattr(numpy_blas, "found", lambda: numpy_blas.Blas("OpenBLAS 1", "", functions))
    assert numpy_blas.described(48) == "OpenBLAS 1, on its own threads: it was built for 64 in all"
    assert numpy_blas.described(1) == "OpenBLAS 1, on its own threads: the kernels have one"
    assert numpy_blas.described(0) == "OpenBLAS 1, on its own threads: there are no native kernels"
    own.value = 16
    assert numpy_blas.described(48) == "OpenBLAS 1, on the kernels' threads"


def test_the_first_release_that_lets_others_run_its_jobs_is_taken_and_none_before(monkeypatch):
    own = ctypes.CFUNCTYPE(None)(lambda: None)
    names = dict.fromkeys(("exec_blas_async", "exec_blas_async_wait", "blas_num_threads"), own)
    for release, why in (("0.3.27", "only from 0.3.28 on does it let others run its jobs"), ("0.3.28", "")):
        config = f"OpenBLAS {release} MAX_THREADS=64".encode()
        library = Other(config, openblas_set_threads_callback_function=own, **names)
        monkeypatch.setattr(numpy_blas.ctypes, "CDLL", lambda _, library=library: library)
        assert numpy_blas.found().why == why


# A library of two jobs a call, with 6 threads and room for so many numbers as are given: who runs the jobs?
ROOM = """
import ctypes, sys
from bnengine import threads
from bnengine.fused.cpu import _load, numpy_blas
from bnengine.fused.cpu.native import NativeKernel
import numpy as np

Job = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
Callback = ctypes.CFUNCTYPE(
    None, ctypes.c_int, Job, ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
)
held, ran, began = [], [], []
setter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(held.append)
begin = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_long, ctypes.c_void_p)(lambda at, _: began.append(at) or 0)
end = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_long, ctypes.c_void_p)(lambda count, _: began.append(-count) or 0)
job = Job(lambda number, where, more: ran.append(number))
own = ctypes.c_int(6)
library = _load.library()
places = (ctypes.cast(f, ctypes.c_void_p).value for f in (setter, begin, end))
functions = numpy_blas.Functions(*places, ctypes.addressof(own), int(sys.argv[1]))
assert library.bnengine_blas(ctypes.byref(functions)) == 0
threads.set(2)
NativeKernel("fill<float>", 4096, 16, 8)(np.zeros(4096, np.float32), 1.0)
jobs = ctypes.create_string_buffer(64)
Callback(held[-1])(1, job, 2, 32, ctypes.addressof(jobs), 0)
print([library.bnengine_blas_calls(own) for own in (0, 1)], sorted(ran), began)
"""


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(("room", "told"), [(8, "[1, 0] [5, 6] []"), (7, "[0, 1] [6] [1, -1]")])
def test_jobs_whose_numbers_have_no_room_run_on_the_library_s_own_threads(room, told):
    environment = {**os.environ, "BNENGINE_NUMPY_BLAS": "apart", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ROOM, str(room)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.stdout.strip() == told, ran.stderr

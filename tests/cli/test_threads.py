"""`--threads`: how many threads compute, which changes no bit, here or when a run goes on."""

from pathlib import Path

import pytest

from bnengine import fused, threads
from tests.cli.conftest import SMALL, Command, tensors

pytestmark = pytest.mark.usefixtures("as_many_as_before")


@pytest.fixture
def as_many_as_before():
    before = threads.get()
    yield
    threads.set(before)


@pytest.mark.skipif(fused.native().available() is not None, reason="without native kernels there is one thread")
def test_a_run_has_the_threads_that_it_asks_for_and_none_changes_a_bit(done: Command, npz: str) -> None:
    for n in (1, 3):
        done("train", npz, *SMALL, "--threads", str(n), "--out", f"on-{n}")
        assert threads.get() == n
        assert f"threads = {n}\n" in Path(f"on-{n}/config.toml").read_text()
    assert tensors(Path("on-1")) == tensors(Path("on-3"))
    done("train", "--resume", "on-3", "--threads", "2")
    assert threads.get() == 2
    done("train", npz, *SMALL, "--out", "as-it-is")
    assert threads.get() == 2
    assert "threads = " not in Path("as-it-is/config.toml").read_text()


@pytest.mark.parametrize("wrong", ["0", "257", "two", "1.5"])
def test_a_number_of_threads_that_cannot_be_is_refused(bnengine: Command, npz: str, wrong: str) -> None:
    result = bnengine("train", npz, *SMALL, "--threads", wrong)
    assert result.code == 2
    assert f"{wrong!r} is not a whole number from 1 to 256" in result.err
    assert not Path("runs").exists()


def test_without_native_kernels_more_than_one_thread_is_refused(
    bnengine: Command, npz: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused.native(), "available", lambda: "no native kernels were built")
    result = bnengine("train", npz, *SMALL, "--threads", "2", "--backend", "numpy")
    assert result.code == 2
    assert "2 threads have nothing to run: no native kernels were built" in result.err
    assert not Path("runs/blobs-1").exists()

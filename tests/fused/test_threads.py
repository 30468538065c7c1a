"""How many threads: affinity, the limits of control groups in both versions, and what a user may say."""

import os

import pytest

from bnengine import threads
from bnengine.errors import BackendError, InputError
from bnengine.fused.cpu import _load
from bnengine.runtime import cores as counting


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A process in control groups: `machine("0::/a/b", {"a/cpu.max": "150000 100000"})` gives its cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)

    def cores(groups, files):
        proc, root = tmp_path / "proc", tmp_path / "cgroup"
        proc.mkdir(exist_ok=True)
        (proc / "cgroup").write_text(groups + "\n")
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text + "\n")
        return counting.cores(proc, root)

    return cores


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, 16),
        ("0::/", {"cpu.max": "max 100000"}, 16),
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "250000 100000"}, 3),
        ("0::/", {"cpu.max": "1000 100000"}, 1),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4),
        ("0::/a/b", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "400000 100000"}, 3),
        ("0::/host/only", {"cpu.max": "500000 100000"}, 5),
        ("0::/", {"cpu.max": "6400000 100000"}, 16),
        ("0::/", {"cpu.max": "nonsense"}, 16),
        ("4:cpu,cpuacct:/x\n0::/", {"cpu,cpuacct/x/cpu.cfs_quota_us": "300000",
                                    "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}, 3),
        ("4:cpuacct,cpu:/x", {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ("4:cpu:/x", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, 16),
        ("4:cpuset:/x", {"cpuset/x/cpu.cfs_quota_us": "100000", "cpuset/x/cpu.cfs_period_us": "100000"}, 16),
    ],
)  # fmt: skip
def test_limits_of_a_container_count(machine, groups, files, expected):
    assert machine(groups, files) == expected


def test_affinity_counts(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert machine("", {}) == 2


def test_the_environment_goes_before_the_machine(monkeypatch):
    monkeypatch.setenv("BNENGINE_NUM_THREADS", " 7 ")
    assert counting.default() == 7
    monkeypatch.setenv("BNENGINE_NUM_THREADS", "")
    assert counting.default() == min(counting.cores(), counting.MOST)


@pytest.mark.parametrize("wrong", [0, -1, 257, 1.5, True, "2", None])
def test_a_number_of_threads_that_cannot_be_is_named(wrong):
    with pytest.raises(InputError, match=r"^threads\.set: the number of threads must be .* from 1 to 256, got "):
        threads.set(wrong)


def test_without_kernels_there_is_one_thread(monkeypatch):
    monkeypatch.setattr(_load, "available", lambda: "no native kernels were built")
    assert threads.get() == 1
    threads.set(1)
    threads.release()
    with pytest.raises(BackendError, match=r"threads\.set: 2 threads have nothing to run: no native kernels"):
        threads.set(2)

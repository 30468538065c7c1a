"""Memory: an epoch over a file larger than the process may hold, and what is said where a batch does not fit."""

import os
import re
import subprocess
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import bnengine as bn
from bnengine.errors import TrainingFailed
from bnengine.training.footprint import estimate
from tests.training.support import Rows, blobs, net, network_bits, trainer

ROWS, FEATURES = 32_000, 1024
FILE_BYTES = ROWS * FEATURES * 8
LIMIT_BYTES = FILE_BYTES * 3 // 4

# RLIMIT_DATA counts a process's own writable memory, not the pages of a file that is mapped for reading.
LIMITED = f"""
import resource, sys
import numpy as np
import bnengine as bn
resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT_BYTES}, {LIMIT_BYTES}))
path = sys.argv[1]
"""

CONTROL = """
try:
    np.load(path)
except MemoryError:
    print("the file does not fit")
"""

EPOCH = """
data = bn.data.load(path)
train, valid = bn.data.split_dataset(data, seed=0, task="classification")
preprocessing = bn.Preprocessing.fit(data, train, valid=valid)
parts = [bn.ArraySource(data.x, data.y, preprocessing=preprocessing, indices=rows) for rows in (train, valid)]
network = bn.Sequential(bn.Dense(1024, 4), bn.BatchNorm(4), bn.Activation("relu"), bn.Dense(4, 2), backend="numpy")
trainer = bn.Trainer(network, learning_rate=0.05, progress="quiet")
record, = trainer.fit(parts[0], epochs=1, batch_size=512, validation=parts[1])
print(record["steps"], record["valid_accuracy"])
"""

TOO_LARGE = """
data = bn.data.load(path)
network = bn.Sequential(bn.Dense(1024, 4), bn.Dense(4, 2), backend="numpy")
try:
    bn.Trainer(network, progress="quiet").fit((data.x, data.y), epochs=1, batch_size=len(data))
except bn.TrainingFailed as error:
    print(error)
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x.npy with holes where nothing was written, and y.npy: 262 MB that take a few on the disk. Feature 7 gives y."""
    folder = tmp_path_factory.mktemp("large")
    x = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=np.float64, shape=(ROWS, FEATURES))
    x[::64, 7] = 1.0
    x.flush()
    np.save(folder / "y.npy", (np.arange(ROWS) % 64 == 0).astype(np.int64))
    return folder / "x.npy"


def under_the_limit(code: str, path: Path) -> "subprocess.CompletedProcess[str]":
    """What a process of one thread prints that may have LIMIT_BYTES of private memory."""
    return subprocess.run(
        [sys.executable, "-c", LIMITED + code, str(path)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
    )


linux = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts mapped memory on Linux only")


@linux
def test_a_network_trains_on_a_file_larger_than_its_memory(pair: Path) -> None:
    assert pair.stat().st_size > FILE_BYTES > LIMIT_BYTES
    control = under_the_limit(CONTROL, pair)
    assert control.stdout == "the file does not fit\n", control.stderr
    epoch = under_the_limit(EPOCH, pair)
    assert epoch.returncode == 0, epoch.stderr
    steps, accuracy = epoch.stdout.split()
    assert steps == "50"
    assert float(accuracy) == 1.0


@linux
def test_a_batch_too_large_for_memory_says_its_size_and_the_cure(pair: Path) -> None:
    found = under_the_limit(TOO_LARGE, pair)
    assert found.returncode == 0, found.stderr
    assert re.match(
        r"fit: out of memory in a batch of 32000 rows, which needs about \d+\.\d MiB. Take a smaller batch size and "
        r"accumulate more micro-batches \(accumulate=2 halves it\)\.\n$",
        found.stdout,
    ), found.stdout


def test_a_step_without_memory_leaves_the_network_unchanged(monkeypatch):
    t = trainer(accumulate=3)
    before = network_bits(t.network)

    monkeypatch.setattr(t, "step", _Full(t.step))
    with pytest.raises(TrainingFailed, match=r"in a batch of 31 rows, .*\(accumulate=6 halves it\)") as failed:
        t.fit(blobs(rows=91), epochs=1, batch_size=30)
    assert isinstance(failed.value.__cause__, MemoryError)
    assert network_bits(t.network) == before


class _Full:
    """A step that never finds memory."""

    def __init__(self, step):
        self._step = step

    def __getattr__(self, name):
        return getattr(self._step, name)

    def next(self, rows, _times=1):
        raise MemoryError(f"Unable to allocate 1 GiB for {len(rows.sizes)} micro-batches")


def test_the_estimate_grows_with_rows_and_widths():
    """Each layer's output and its gradient, x once more in float64 and four buffers of parameters."""
    network = bn.Sequential(bn.Dense(10, 20), bn.BatchNorm(20), bn.Dense(20, 5), backend="numpy")
    parameters = 10 * 20 + 2 * 20 + 20 * 5 + 5
    values = 10 + 20 + 20 + 5
    assert network.parameter_count == parameters
    for rows, unit, name in ((1, 1, "bytes"), (100, 1024, "KiB"), (10_000, 1024**2, "MiB"), (10**8, 1024**3, "GiB")):
        size = rows * values * 8 + rows * 10 * 8 + 4 * parameters * 4
        number, text = estimate(network, rows).split()
        assert text == ("KiB" if name == "bytes" and size >= 1024 else name)
        assert float(number.replace(",", "")) == pytest.approx(size / (1024 if text == "KiB" else unit), rel=1e-2)
    wide = bn.Sequential(bn.Dense(10, 20), bn.BatchNorm(20), bn.Dense(20, 5), backend="numpy", dtype="float64")
    assert float(estimate(wide, 100).split()[0]) > 1.5 * float(estimate(network, 100).split()[0])


def test_the_estimate_of_a_small_network_is_in_bytes():
    assert estimate(bn.Sequential(bn.Dense(1, 1, bias=False), backend="numpy"), 2) == "64 bytes"
    assert trainer(net()).fit(Rows(*blobs()), epochs=1)


@pytest.mark.parametrize(("widths", "rows"), [((64, 100, 100, 10), 4096), ((784, 128, 10), 2048)])
def test_the_estimate_is_near_the_measured_memory(widths, rows):
    """Raw bytes are scaled by way of float64, as the estimate reckons; it may be up to twice too careful.

    What a trainer keeps from step to step counts as well: the memory of native kernels is taken in the first one.
    """
    layers = [part for a, b in pairwise(widths[:-1]) for part in (bn.Dense(a, b), bn.BatchNorm(b))]
    network = bn.Sequential(*layers, bn.Dense(*widths[-2:]), backend="numpy")
    rng = np.random.default_rng(0)
    data = bn.data.Dataset(rng.integers(0, 256, (rows, widths[0])).astype(np.uint8), np.arange(rows) % 10)
    source = bn.ArraySource(data.x, data.y, preprocessing=bn.Preprocessing.fit(data))
    trainer().fit(blobs(), epochs=1)  # what is imported on the way does not count
    tracemalloc.start()
    t = trainer(network, resident=False)  # batches are made on the host, as for any source
    t.fit(source, epochs=1, batch_size=rows)
    t.fit(source, epochs=2, batch_size=rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    number, unit = estimate(network, rows).split()
    assert unit == "MiB"
    assert 0.9 * peak <= float(number) * 2**20 <= 2 * peak

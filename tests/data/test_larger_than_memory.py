"""Data larger than the memory a process may have: a limit on its own memory below the size of the file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bnengine.data import load
from bnengine.errors import DataError

ROWS, FEATURES = 30_000, 1024
FILE_BYTES = ROWS * FEATURES * 8
LIMIT_BYTES = FILE_BYTES * 2 // 3

# RLIMIT_DATA counts a process's own writable memory, not the pages of a file that is mapped for reading.
LIMITED = f"""
import resource, sys
import numpy as np
from bnengine.data import ArraySource, Preprocessing, groups, load, order, split_dataset
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
data = load(path)
train, valid = split_dataset(data, seed=0, task="classification")
preprocessing = Preprocessing.fit(data, train, valid=valid)
source = ArraySource(data.x, data.y, preprocessing=preprocessing, indices=train)
epoch = order(source.rows, seed=0, epoch=0)
rows = total = 0
for part in groups(source.rows, 512):
    batch = source.take(epoch[part])
    rows += len(batch.x)
    total += float(batch.x[:, 7].sum(dtype=np.float64))
print(rows, preprocessing.scaling, round(preprocessing.mean[7], 6), abs(total) < 1e-2 * rows)
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x.npy with holes where nothing was written, and y.npy: 246 MB that take a few on the disk."""
    folder = tmp_path_factory.mktemp("large")
    x = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=np.float64, shape=(ROWS, FEATURES))
    x[::64, 7] = 64.0
    x.flush()
    np.save(folder / "y.npy", np.arange(ROWS) % 2)
    return folder / "x.npy"


def under_the_limit(code: str, path: Path) -> "subprocess.CompletedProcess[str]":
    """What a process of one thread prints that may have LIMIT_BYTES of private memory."""
    return subprocess.run(
        [sys.executable, "-c", LIMITED + code, str(path)],
        env={"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts mapped memory on Linux only")
def test_an_epoch_takes_less_memory_than_its_file(pair: Path) -> None:
    assert pair.stat().st_size > FILE_BYTES > LIMIT_BYTES
    control = under_the_limit(CONTROL, pair)
    assert control.stdout == "the file does not fit\n", control.stderr
    epoch = under_the_limit(EPOCH, pair)
    assert epoch.returncode == 0, epoch.stderr
    rows, scaling, mean, is_centered = epoch.stdout.split()
    assert (rows, scaling, is_centered) == ("24000", "standardize", "True")
    # One row in 64 holds 64; of 469 such rows some 375 are drawn, with a standard deviation of 9.
    assert abs(float(mean) - 1.0) < 0.1


def test_a_nan_at_the_end_of_a_large_file_is_found(pair: Path) -> None:
    x = np.load(pair, mmap_mode="r+")
    x[ROWS - 1, 3] = np.nan
    x.flush()
    try:
        with pytest.raises(DataError, match=f"x.npy: x, row {ROWS - 1}, feature 3 must be a finite number, got nan"):
            load(pair)
    finally:
        x[ROWS - 1, 3] = 0.0
        x.flush()

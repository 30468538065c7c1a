"""The data and the initial weights that all contenders of a workload take, in files that each reads for itself."""

from pathlib import Path
from typing import Any

import numpy as np

from ...._typing import Array
from ....arrays.backend import get_backend
from ..workloads import Data, Workload
from .cases import file_stem

SAMPLED = 1 << 16  # elements of a result that are compared
Weights = dict[str, Array]


def workload_of(given: dict[str, Any]) -> Workload:
    """The workload that `described` told."""
    return Workload(given["name"], tuple(given["widths"]), given["batch"], rows=given["rows"])


def write(kind: str, given: dict[str, Any], folder: Path) -> None:
    """What a workload's contenders read: nothing for single ops, which draw their numbers from seeds."""
    if kind in ("kernel", "product"):
        return
    workload = workload_of(given)
    network = workload.network(get_backend("numpy"))
    weights = {name: np.asarray(array) for name, array in network.state_dict().items()}
    if kind == "prediction":
        rng = np.random.default_rng(1)
        for name, array in weights.items():
            if name.endswith(".running_count"):
                array[...] = 1
            elif name.endswith(("running_mean", "running_var")):
                array[...] = rng.uniform(0.5, 1.5, array.shape)
        np.save(folder / "x.npy", rng.standard_normal((workload.rows, workload.widths[0]), dtype=np.float32))
    else:
        for name, array in workload.data()._asdict().items():
            np.save(folder / f"{name}.npy", array)
    named: dict[str, Any] = weights
    np.savez(folder / "weights.npz", **named)


def weights_of(folder: Path) -> Weights:
    """The initial weights, and the statistics, by the names of `Sequential.state_dict`."""
    with np.load(folder / "weights.npz") as found:
        return dict(found)


def data_of(folder: Path) -> Data:
    """The data, in memory."""
    return Data(*(np.load(folder / f"{name}.npy") for name in Data._fields))


def rows_of(folder: Path) -> Array:
    """What is predicted from."""
    return np.load(folder / "x.npy")


def sampled(result: Any, folder: Path, role: str) -> dict[str, Any]:
    """The answer of a contender whose result is compared element by element: the file with a part of it."""
    name = f"{file_stem(role)}.npy"
    np.save(folder / name, np.ravel(np.asarray(result))[:SAMPLED])
    return {"sample": name}

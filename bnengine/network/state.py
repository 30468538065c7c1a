"""What a network owns, by name: its parameters and statistics out of it, into it, and frozen."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from .._typing import Array
from ..arrays.backend import Backend
from ..errors import InputError
from ..layers import Fusion
from ..runtime.flat import Flat, Handle, Parameter, Statistics

Freezable = Literal["statistics", "affine", "normalization", "parameters"]


class Named:
    """Handles with names such as "0.W" or "1.statistics", in buffers of a backend."""

    backend: Backend
    parameters: Flat
    statistics: Flat
    changes: Fusion
    _names: dict[str, Handle]
    _collected: bool  # whether every layer has statistics to evaluate by

    def named_parameters(self) -> dict[str, Array]:
        """The parameters by name ("0.W", "1.gamma"), as views: writing into one changes the network."""
        return {name: h.value for name, h in self._names.items() if isinstance(h, Parameter)}

    def named_statistics(self) -> dict[str, Array]:
        """The running statistics by name ("1.statistics"), each (3, C) float64 = (count, mean, var), as views."""
        return {name: h.value for name, h in self._names.items() if isinstance(h, Statistics)}

    def named_handles(self) -> dict[str, Handle]:
        """The handles behind the names: what `Flat` is indexed by."""
        return dict(self._names)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Parameters and statistics as new NumPy arrays; statistics as "1.running_count", "1.running_mean",
        "1.running_var".
        """
        return self.export(self.parameters, self.statistics)

    def export(self, parameters: Flat, statistics: Flat) -> dict[str, np.ndarray]:
        """Buffers of this network's layout as named NumPy arrays."""
        state: dict[str, np.ndarray] = {}
        for name, handle in self._names.items():
            if isinstance(handle, Parameter):
                state[name] = self.backend.to_numpy(parameters[handle], copy=True)
            else:
                rows = self.backend.to_numpy(statistics[handle], copy=True)
                state.update({key: rows[i].copy() for i, key in enumerate(_running(name))})
        return state

    def refresh(self) -> None:
        """Bring up to date what is derived from the parameters."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; a missing, unknown or misshapen entry is an error, and nothing is changed
        then.
        """
        self.import_into(state, self.parameters, self.statistics)
        self.refresh()
        self._collected = not self.statistics.offsets

    def import_into(self, state: Mapping[str, Any], parameters: Flat, statistics: Flat) -> None:
        """Named arrays into buffers of this network's layout, all or nothing."""
        expected: dict[str, tuple[Array, tuple[int, ...]]] = {}
        for name, handle in self._names.items():
            if isinstance(handle, Parameter):
                expected[name] = (parameters[handle], handle.shape)
            else:
                expected.update({k: (statistics[handle][i, :], handle.shape) for i, k in enumerate(_running(name))})
        missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
        if missing or unknown:
            raise InputError(
                f"load_state_dict: missing {', '.join(missing) or 'nothing'}; unknown "
                f"{', '.join(unknown) or 'nothing'}; the network must have the layers of the one that was saved"
            )
        for name, (_, shape) in expected.items():
            if tuple(np.shape(state[name])) != shape:
                raise InputError(
                    f"load_state_dict: {name} has shape {tuple(np.shape(state[name]))}; this network needs {shape}"
                )
        arrays = {
            name: self.backend.asarray(state[name], str(np.dtype(_dtype(view)))) for name, (view, _) in expected.items()
        }
        for name, (view, _) in expected.items():
            view[...] = arrays[name]

    def freeze(self, what: Freezable, *names: str) -> None:
        """Freeze by name until `thaw`: "statistics" (running statistics stay), "affine" (gamma and beta stay),
        "normalization" (training normalises by running statistics too), or "parameters" (those named stay).

        `names`: of layers ("1", with the layers inside) or parameters ("0.W"); none for all.
        """
        self._freeze(what, names, True)

    def thaw(self, what: Freezable, *names: str) -> None:
        """Undo `freeze`."""
        self._freeze(what, names, False)

    def _freeze(self, what: Freezable, names: tuple[str, ...], frozen: bool) -> None:
        if what not in ("statistics", "affine", "normalization", "parameters"):
            raise InputError(
                f"freeze: no kind {what!r}; choose 'statistics', 'affine', 'normalization' or 'parameters'"
            )
        able = {n: h for n, h in self._names.items() if _can_freeze(what, n, h)}
        for given in names:
            if not any(_lies_in(name, given) for name in able):
                raise InputError(
                    f"freeze: no layer or parameter {given!r} that has {what}; there are {', '.join(able) or 'none'}"
                )
        for name, handle in able.items():
            if names and not any(_lies_in(name, given) for given in names):
                continue
            if isinstance(handle, Statistics) and what == "normalization":
                handle.use_running = frozen
            else:
                handle.frozen = frozen

    @property
    def freezes(self) -> tuple[tuple[bool, bool], ...]:
        """Of each handle whether it is frozen, and whether its running statistics normalize."""
        found = self.changes.freezes
        if found is None:
            found = tuple((h.frozen, getattr(h, "use_running", False)) for h in self._names.values())
            self.changes.freezes = found
        return found

    def frozen(self) -> dict[str, list[str]]:
        """What is frozen now: names of parameters and of statistics, by kind."""
        parameters = [n for n, h in self._names.items() if isinstance(h, Parameter) and h.frozen]
        statistics = [n for n, h in self._names.items() if isinstance(h, Statistics) and h.frozen]
        normalises = [n for n, h in self._names.items() if isinstance(h, Statistics) and h.use_running]
        return {"parameters": parameters, "statistics": statistics, "normalization": normalises}


def _can_freeze(what: Freezable, name: str, handle: Handle) -> bool:
    """Whether a freeze of that kind concerns the handle."""
    if isinstance(handle, Statistics):
        return what in ("statistics", "normalization")
    return what == "parameters" or (what == "affine" and name.rsplit(".", 1)[1] in ("gamma", "beta"))


def _lies_in(name: str, given: str) -> bool:
    """Whether `given` is the name of a handle or of a layer that it lies in, at any depth."""
    return name == given or name.startswith(f"{given}.")


def _running(name: str) -> tuple[str, str, str]:
    place = name.removesuffix("statistics")
    return f"{place}running_count", f"{place}running_mean", f"{place}running_var"


def _dtype(view: Array) -> str:
    return str(view.dtype).split(".")[-1]

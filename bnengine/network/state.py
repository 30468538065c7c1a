"""The state of a network by name: parameters and statistics as arrays, saved, loaded and frozen."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from .._typing import Array
from ..arrays.backend import Backend
from ..errors import InputError
from ..layers import Fusion
from ..runtime.flat import Flat, Handle, Parameter, Statistics
from ..validation import choice

Freezable = Literal["statistics", "affine", "normalization", "parameters"]


class Named:
    """State of a network by name: "0.W" is the weight of layer 0, "1.statistics" are the statistics of layer 1."""

    backend: Backend
    parameters: Flat
    statistics: Flat
    changes: Fusion
    _names: dict[str, Handle]
    _collected: bool  # whether every layer has running statistics

    def named_parameters(self) -> dict[str, Array]:
        """Return the parameters by name ("0.W", "1.gamma") as views: writing into one changes the network."""
        return {name: h.value for name, h in self._names.items() if isinstance(h, Parameter)}

    def named_statistics(self) -> dict[str, Array]:
        """Return the running statistics by name ("1.statistics") as views, each (3, C) float64: (count, mean, var)."""
        return {name: h.value for name, h in self._names.items() if isinstance(h, Statistics)}

    def named_handles(self) -> dict[str, Handle]:
        """Return the handles by name; they index the network's flat buffers."""
        return dict(self._names)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return parameters and statistics as new NumPy arrays by name.

        Statistics are three arrays each: "1.running_count", "1.running_mean", "1.running_var".
        """
        return self.export(self.parameters, self.statistics)

    def export(self, parameters: Flat, statistics: Flat) -> dict[str, np.ndarray]:
        """Return buffers with this network's layout as named NumPy arrays."""
        state: dict[str, np.ndarray] = {}
        for name, handle in self._names.items():
            if isinstance(handle, Parameter):
                state[name] = self.backend.to_numpy(parameters[handle], copy=True)
            else:
                rows = self.backend.to_numpy(statistics[handle], copy=True)
                state.update({key: rows[i].copy() for i, key in enumerate(_running(name))})
        return state

    def refresh(self) -> None:
        """Update what is derived from the parameters."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any], *, sound: bool = True) -> None:
        """Load what `state_dict` returned, all or nothing.

        Args:
            state: arrays by name, of any library.
            sound: whether to refuse numbers that no training leaves; a diagnosis takes them.

        Raises:
            InputError: an entry is missing, unknown, not finite or has another shape, or a count or variance is below
                0; the network is unchanged.
        """
        self.import_into(state, self.parameters, self.statistics, sound=sound)
        self.refresh()
        self._collected = not self.statistics.offsets

    def import_into(self, state: Mapping[str, Any], parameters: Flat, statistics: Flat, *, sound: bool = True) -> None:
        """Copy named arrays into buffers with this network's layout; raises as `load_state_dict` does."""
        expected: dict[str, tuple[Array, tuple[int, ...]]] = {}
        for name, handle in self._names.items():
            if isinstance(handle, Parameter):
                expected[name] = (parameters[handle], handle.shape)
            else:
                expected.update({k: (statistics[handle][i, :], handle.shape) for i, k in enumerate(_running(name))})
        missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
        if missing or unknown:
            raise InputError(
                f"load_state_dict: missing {', '.join(missing) or 'nothing'}, unknown "
                f"{', '.join(unknown) or 'nothing'}. Build the network from the layers of the one that was saved."
            )
        for name, (_, shape) in expected.items():
            if tuple(np.shape(state[name])) != shape:
                raise InputError(
                    f"load_state_dict: {name} must have shape {shape}, got {tuple(np.shape(state[name]))}."
                )
        arrays = {
            name: self.backend.asarray(state[name], str(np.dtype(_dtype(view)))) for name, (view, _) in expected.items()
        }
        for name, array in arrays.items() if sound else ():
            _check_values(name, self.backend.to_numpy(array))
        for name, (view, _) in expected.items():
            view[...] = arrays[name]

    def freeze(self, what: Freezable, *names: str) -> None:
        """Freeze a part of the state until `thaw`; it takes effect at the next step.

        Args:
            what: "parameters": these stay; "affine": gamma and beta stay; "statistics": running statistics stay;
                "normalization": training normalizes by the running statistics, as evaluation does.
            names: of layers ("1", with the layers inside) or of parameters ("0.W"); none for all.

        Raises:
            InputError: an unknown `what`, or a name that has none of it.
        """
        self._freeze(what, names, True)

    def thaw(self, what: Freezable, *names: str) -> None:
        """Undo `freeze`."""
        self._freeze(what, names, False)

    def _freeze(self, what: Freezable, names: tuple[str, ...], frozen: bool) -> None:
        choice("freeze", "what", what, get_args(Freezable))
        able = {n: h for n, h in self._names.items() if _can_freeze(what, n, h)}
        for place in names:
            if not any(_is_in(name, place) for name in able):
                raise InputError(
                    f"freeze: no layer or parameter {place!r} that has {what}. Choose of {', '.join(able) or 'none'}."
                )
        for name, handle in able.items():
            if names and not any(_is_in(name, place) for place in names):
                continue
            if isinstance(handle, Statistics) and what == "normalization":
                handle.use_running = frozen
            else:
                handle.frozen = frozen

    @property
    def freezes(self) -> tuple[tuple[bool, bool], ...]:
        """For each handle (is it frozen, does training normalize by its running statistics)."""
        freezes = self.changes.freezes
        if freezes is None:
            freezes = tuple((h.frozen, getattr(h, "use_running", False)) for h in self._names.values())
            self.changes.freezes = freezes
        return freezes

    def frozen(self) -> dict[str, list[str]]:
        """Return what is frozen now: names of parameters and of statistics, by kind."""
        parameters = [n for n, h in self._names.items() if isinstance(h, Parameter) and h.frozen]
        statistics = [n for n, h in self._names.items() if isinstance(h, Statistics) and h.frozen]
        normalization = [n for n, h in self._names.items() if isinstance(h, Statistics) and h.use_running]
        return {"parameters": parameters, "statistics": statistics, "normalization": normalization}


def _check_values(name: str, values: np.ndarray) -> None:
    least = 0.0 if name.endswith((".running_count", ".running_var")) else -np.inf
    wrong = ~(np.isfinite(values) & (values >= least))
    if wrong.any():
        needed = "finite numbers" if least < 0 else "finite numbers of at least 0"
        raise InputError(
            f"load_state_dict: {name} must hold {needed}, got {values[wrong][0]}. Load the state of a sound network."
        )


def _can_freeze(what: Freezable, name: str, handle: Handle) -> bool:
    """Whether a freeze of that kind applies to the handle."""
    if isinstance(handle, Statistics):
        return what in ("statistics", "normalization")
    return what == "parameters" or (what == "affine" and name.rsplit(".", 1)[1] in ("gamma", "beta"))


def _is_in(name: str, place: str) -> bool:
    """Whether `place` is the name of a handle or of a layer around it, at any depth."""
    parts = place.split(".")
    return name.split(".")[: len(parts)] == parts


def _running(name: str) -> tuple[str, str, str]:
    place, _ = name.rsplit(".", 1)
    return f"{place}.running_count", f"{place}.running_mean", f"{place}.running_var"


def _dtype(view: Array) -> str:
    return str(view.dtype).split(".")[-1]

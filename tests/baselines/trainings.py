"""How a small training runs, and digests of everything that it leaves."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import bnengine as bn
from bnengine.layers import Layer
from bnengine.training import Step

from . import allowed
from .digests import Digests, digest, of_arrays, of_value, tensors
from .draws import Array
from .sources import classes, inputs, spoiled

LAUNCHES = "layers", "accumulate"
NATIVE = "plan", "launches", "ops"  # the ways in which native kernels run a step


class Training(NamedTuple):
    """What is trained, how, and on what; `data` and `prepare` get the dtype and the trainer."""

    layers: Callable[[], list[Layer]]
    optimizer: str | dict[str, Any] = "adam"
    network: dict[str, Any] = {}  # noqa: RUF012 -- defaults of a tuple's fields, never written to
    options: dict[str, Any] = {}  # noqa: RUF012 -- of the Trainer; of Step and Trainer what is in OF_STEP
    data: Callable[[str], Any] = classes
    prepare: Callable[[bn.Trainer], None] = lambda trainer: None  # noqa: ARG005
    rate: Callable[[], Any] = lambda: 0.02
    batch: int = 16
    epochs: int = 2

    @property
    def dtype(self) -> str:
        """Of the network."""
        return str(self.network.get("dtype", "float32"))

    @property
    def has_kernels(self) -> bool:
        """Whether NumPy arrays of its dtypes have native kernels, so that the same bits come out everywhere."""
        return "precision" not in self.network and "backend" not in self.network


OF_STEP = "clip_norm", "statistics", "average", "loss_scale"


def modes(name: str, case: Training) -> tuple[str, ...]:
    """The ways in which a training runs; a few leave some out, for the sake of time."""
    if not case.has_kernels:
        return ("reference",)
    skipped = set() if name.startswith(LAUNCHES) else {"launches"}
    skipped |= {"ops"} if case.dtype == "float64" else set()
    return tuple(mode for mode in (*NATIVE, "reference") if mode not in skipped)


def outcome(case: Training, mode: str, *callbacks: bn.Callback, resume: Path | None = None) -> Digests:
    """Digests of the checkpoint, of its metadata and of predictions after a training in one of the modes.

    `callbacks` are more of them; `resume` is a checkpoint to go on from.
    """
    how = "reference" if mode == "reference" else "fused"
    if case.has_kernels:
        bn.threads.set(2 if mode == "launches" else 1)  # no bit depends on it, and one is quick on a busy machine
    with bn.ops.using(how), np.errstate(all="ignore"):
        trainer = made(case, mode)
        trainer.callbacks.extend(callbacks)
        if resume is not None:
            trainer.resume(resume)
        trainer.fit(case.data(case.dtype), epochs=case.epochs, batch_size=case.batch, validation=valid(case))
        trainer.callbacks[:] = [one for one in trainer.callbacks if one not in callbacks]
        return left(trainer, case)


def made(case: Training, mode: str) -> bn.Trainer:
    """The trainer before its first step."""
    network = bn.Sequential(*case.layers(), **{"backend": "numpy", "seed": 3, **case.network})
    options = {name: value() if callable(value) else value for name, value in case.options.items()}
    graph = False if mode == "launches" else "auto"
    trainer = bn.Trainer(
        network, case.optimizer, learning_rate=case.rate(), progress="quiet", graph=graph, **options
    )  # fmt: skip
    if mode == "ops":
        of_step = {name: options[name] for name in OF_STEP if name in options}
        trainer.step = Step(trainer.network, trainer.optimizer, trainer.loss, replay=False, **of_step)
    case.prepare(trainer)
    return trainer


def valid(case: Training) -> Any:
    """Validation data of the same kind; without NaN."""
    return inputs(case.dtype, " valid", 23) if case.data is spoiled else case.data(case.dtype)


def left(trainer: bn.Trainer, case: Training) -> Digests:
    """Everything that can be seen of a training."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        trainer.save(path)
        arrays, metadata = tensors(path)
        loaded = bn.load(path, backend="numpy")
    found = of_arrays({allowed.old_name(name): array for name, array in arrays.items()})
    found |= {f"metadata.{name}": of_value(value) for name, value in flat(allowed.old_words(metadata)).items()}
    x = features(case)
    found["predicted"] = digest(trainer.network.predict(x))
    found["predicted after loading"] = digest(loaded.predict(x))
    return found


def features(case: Training) -> Array:
    """Ready features for a prediction."""
    data = case.data(case.dtype)
    return data[0] if isinstance(data, tuple) else inputs(case.dtype)[0]


def flat(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a checkpoint, one value for each name."""
    found = dict[str, Any]()
    for name, value in metadata.items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            found[name] = value
    return found

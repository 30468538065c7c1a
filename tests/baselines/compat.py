"""The few calls of the recorder that are no stable public names: a new version is followed here and nowhere else."""

from typing import Any

import bnengine as bn

from .draws import Array


def added(array: Array) -> Any:
    """A destination that a result is added to."""
    return bn.ops.Out(array, True)


def one_by_one(trainer: bn.Trainer, **options: Any) -> None:
    """Let a trainer's steps run op by op, without a recorded plan."""
    from bnengine.training import Step

    trainer.step = Step(trainer.network, trainer.optimizer, trainer.loss, replay=False, **options)


def bound(name: str, u: float, args: Any, options: dict[str, Any]) -> Any:
    """How far each output of an op may be off, by its contract."""
    op = bn.ops.REGISTRY[name]
    return (op.contract if hasattr(op, "contract") else op).bound(u, *args, **options)

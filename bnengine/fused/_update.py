"""One launcher for each rule of `ops.update`: the arguments of all rules are prepared in the same way."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..ops import REGISTRY
from ..ops.update import RULES, Ranges, Rule
from ..runtime.memory import Outputs
from ..runtime.op import Launcher
from ._arguments import Call, Device, absent


def register_rules(device: Device, update: Callable[[Outputs, Call], None]) -> None:
    """Register `update(to, call)` with the op of each rule."""
    for rule in RULES.values():
        device.register(REGISTRY[rule.name], _launcher(device, rule, update), "int64")


def _launcher(device: Device, rule: Rule, update: Callable[[Outputs, Call], None]) -> Launcher:
    def launcher(to: Outputs, *args: Any, **options: Any) -> Any:
        call = _prepared(device, to, rule, args, options)
        update(to, call)
        return rule.state(call.new_parameters, *call.new_slots, call.new_copy16)

    return launcher


def _prepared(device: Device, to: Outputs, rule: Rule, args: tuple[Any, ...], options: dict[str, Any]) -> Call:
    """The arrays of an update, None for a slot or a 16-bit copy that is not there, and its options."""
    defaults = {"weight_decay": 0.0, "decoupled": False, "frozen": ()}
    settings = {name: value for name, value in options.items() if name not in ("decay_end", *defaults)}
    given, names = rule.call(*args), ("parameters", *rule.slots)
    rule.check(given, settings)
    call = Call(to, REGISTRY[rule.name], {**defaults, **options})
    p = given.parameters
    call.led_by(p)

    def output(name: str, x: Any) -> Any:
        if x is None:
            absent(to, name)
            return None
        return device.output(to, name, x.shape, x.dtype if name == "copy16" else p.dtype, p)

    call.table, call.factor = (device.ready(to, x, p.dtype) for x in (given.table, given.factor))
    call.counters, call.ok = device.ready(to, given.counters, np.int64), device.ready(to, given.ok, np.bool_)
    call.rows, call.columns = call.table.shape
    old = [device.ready(to, x, p.dtype) for x in (given.parameters, *given.slots)]
    new = [output(name, x) for name, x in zip(names, old, strict=True)]
    (call.parameters, *call.slots), (call.new_parameters, *call.new_slots) = old, new
    call.gradients = device.ready(to, given.gradients, p.dtype)
    call.copy16, call.new_copy16 = given.copy16, output("copy16", given.copy16)
    call.settings, call.flags = rule.numbers(settings), rule.flags(settings)
    call.frozen = _disjoint(call.frozen)
    return call


def _disjoint(ranges: Ranges) -> Ranges:
    """The ranges in order, those that touch joined, since kernels search them."""
    joined = list[tuple[int, int]]()
    for begin, end in sorted(ranges):
        if joined and begin <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((int(begin), int(end)))
    return tuple(joined)

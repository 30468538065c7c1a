"""TrainingCase steps by shadowing: every variant starts each step from the same state, and the results are compared.

Rounding alone drives deep networks apart, so two independent trainings cannot be compared for long. Here NumPy's
references in float64 lead. Before each step their state, rounded to float32, is loaded into every variant, network and
step alike. Then for each variant

- loss, gradients and pending statistics are compared with the leader's, within the bounds of perturbed runs of that
very
  step (see `bounds`);
- norm and clip factor, update (parameters and optimizer state) and running statistics are compared with the references
  of `check_step`, of the optimizer's op and of `commit` in float64, on the variant's own gradients and pending
  statistics, within the bounds of these ops. So a small gradient whose sign is rounding, which Adam turns into a whole
  step, is no disagreement, and cannot hide a wrong update.

The step runs as in any training: in its arena, recorded once and replayed if every op has a fused version. In float64
the trainings also run independently, and end in the same network within the deviation of perturbed runs.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..._typing import Array
from ...arrays.backend import Backend
from ...arrays.random import Stream
from ...data import Batch, load_digits
from ...layers import Layer
from ...losses import LossFunction, SoftmaxCrossEntropy
from ...network.sequential import Sequential
from ...ops import check_step, commit
from ...optim.optimizers import Optimizer
from ...runtime.flat import Parameter
from ...runtime.memory import Arena
from ...training.step import Step
from .bounds import Perturbed, bound_of, bounds_of_runs, fields
from .certificate import Ledger
from .layers import perturbations
from .variants import UNIT, Variant, representable, wide

FOLLOWED = "numpy float64 on its gradients"
State = tuple[dict[str, Array], dict[str, Array]]


class TrainingCase(NamedTuple):
    """A training: a network, an optimizer, options of the step, and the rows of each micro-batch."""

    label: str
    layers: Callable[[], tuple[Layer, ...]]
    optimizer: Optimizer
    steps: int
    rows: tuple[int, ...] = (64,)
    options: dict[str, Any] = {}  # noqa: RUF012 -- never mutated
    loss: LossFunction = SoftmaxCrossEntropy()
    frozen: tuple[str, ...] = ()
    dtype: str = "float32"  # of the parameters, and of NumPy's compared references
    batches: Callable[[int], list[Batch]] | None = None  # returns the micro-batches of step t; None: digits


def make(training: TrainingCase, variant: Variant, memory: Arena | None = None) -> Step:
    """The step of a training on a variant."""
    network = Sequential(*training.layers(), **variant.network, seed=1)
    if training.frozen:
        network.freeze("parameters", *training.frozen)
    options = {"memory": memory or Arena(variant.mode), "replay": memory is None, **training.options}
    return Step(network, training.optimizer, training.loss, **options)


def batches(training: TrainingCase, t: int, seed: int) -> list[Batch]:
    """The micro-batches of step t: digits, with pixels in sixteenths, which every dtype represents exactly."""
    if training.batches is not None:
        return training.batches(t)
    x, y = _digits()
    order = Stream(seed, "verify", "order", t).permutation(len(x))
    micro_batches, start = [], 0
    for rows in training.rows:
        chosen = order[start : start + rows]
        micro_batches.append(Batch(x[chosen], y[chosen], None, chosen))
        start += rows
    return micro_batches


@cache
def _digits() -> tuple[Array, Array]:
    digits = load_digits()
    x, y = np.asarray(digits.x, np.float64), np.asarray(digits.y)
    return x.reshape(len(x), -1) / 16, y


def rate(t: int) -> float:
    """The learning rate of step t, which float32 represents exactly."""
    return 2.0**-7 if t % 2 else 3 * 2.0**-9


def load(step: Step, state: State, t: int) -> None:
    """Load a state into a step, and the learning rate of step t."""
    step.network.load_state_dict(state[0])
    step.load_state_dict(state[1])
    step.schedule([rate(t)])


def start_of(leader: Step, dtype: str) -> State:
    """The leader's state rounded to float32, its parameters to `dtype`; statistics are float64 in every variant."""
    network = {k: a if ".running_" in k else representable(a, dtype) for k, a in leader.network.state_dict().items()}
    state = leader.state_dict()
    return network, {k: representable(a) if k.startswith("optimizer.") else a for k, a in state.items()}


def results_of(step: Step) -> dict[str, Array]:
    """Loss, gradients (without a loss scale) and pending statistics of the last step, as NumPy arrays by name."""
    network, fetch = step.network, step.backend.to_numpy
    scale = (step.state.scaling.read() or (1.0,))[0]
    results = {"loss": fetch(step.state.value, copy=True)}
    for i, pending in enumerate(step.state.pending):
        for name, array in network.export(step.state.gradients, pending).items():
            if ".running_" in name:
                results[f"pending {i + 1} of {name.replace('running_', '')}"] = array
            else:
                results[f"gradient {name}"] = array / scale
    return results


def verify_steps(
    ledger: Ledger,
    numpy: Backend,
    variants: Sequence[Variant],
    training: TrainingCase,
    seed: int,
    *,
    passes: bool = True,
) -> None:
    """Shadow a training; without `passes`, compare only the check, the update and the statistics."""
    exact = Variant(numpy, "float64")
    leader, compared = make(training, exact), [Variant(numpy, training.dtype), *variants]
    steps: dict[Variant, Step] = {}
    for variant in compared:
        with ledger.guard(training.label, "setup", variant.label, exact.label):
            steps[variant] = make(training, variant)
    probes = {dtype: _probes(training, exact, dtype, seed) for dtype in {v.dtype for v in steps}} if passes else {}
    for t in range(training.steps):
        state, micro_batches = start_of(leader, training.dtype), batches(training, t, seed)
        load(leader, state, t)
        leader(micro_batches)
        truth = {exact.label: results_of(leader)}
        bounds = {
            dtype: bounds_of_runs(truth[exact.label], _probe(p, state, micro_batches, t)) for dtype, p in probes.items()
        }
        for variant in [v for v in compared if v in steps]:
            with ledger.guard(training.label, f"step {t + 1}", variant.label, exact.label):
                _verify_one(ledger, training, steps[variant], variant, (state, micro_batches, t), truth, bounds)


Probe = tuple[Perturbed, Step]


def _probes(training: TrainingCase, exact: Variant, dtype: str, seed: int) -> list[Probe]:
    """Steps that err by the bounds of `dtype`."""
    return [(memory, make(training, exact, memory)) for memory in perturbations(UNIT[dtype], seed, dtype)]


def _probe(probes: list[Probe], state: State, micro_batches: list[Batch], t: int) -> list[dict[str, Array]]:
    """The results of step t with perturbations, with other signs in each step."""
    runs = []
    for memory, step in probes:
        memory.calls = 101 * t
        load(step, state, t)
        step(micro_batches)
        runs.append(results_of(step))
    return runs


def _verify_one(
    ledger: Ledger, training: TrainingCase, step: Step, variant: Variant, start: tuple[State, list[Batch], int],
    truth: dict[str, dict[str, Array]], bounds: dict[str, dict[str, Array]],
) -> None:  # fmt: skip
    """Compare one step of one variant; its results go into `truth`, for a fused version to compare with."""
    state, micro_batches, t = start
    load(step, state, t)
    before = _buffers(step)
    step(micro_batches)
    got = results_of(step)
    case, label = f"step {t + 1}", variant.label
    hop = Variant(step.backend, variant.dtype).label if variant.mode != "reference" else f"numpy {variant.dtype}"
    if bounds:
        for b in dict.fromkeys((hop, "numpy float64")):
            for name, array in got.items():
                if b in truth and b != label:
                    expected, bound = truth[b][name], bounds[variant.dtype][name]
                    ledger.compare(f"{training.label}: {name}", case, label, b, array, expected, bound)
    truth.setdefault(label, got)
    _verify_update(ledger, training, step, variant, before, case)


def _buffers(step: Step) -> dict[str, Any]:
    """The buffers of an update, as NumPy arrays in float64."""
    fetch, network = step.backend.to_numpy, step.network
    slots = {name: None if flat is None else fetch(flat.array, copy=True) for name, flat in step.state.slots.items()}
    fixed = {
        "parameters": network.parameters.array,
        "statistics": network.statistics.array,
        "counters": step.state.counters,
    }
    arrays = {name: fetch(array, copy=True) for name, array in fixed.items()}
    slots |= {} if network.copy16 is None else {"copy16": fetch(network.copy16.array, copy=True)}
    return {name: wide(a) for name, a in (arrays | {f"slot {k}": a for k, a in slots.items()}).items()}


def _verify_update(
    ledger: Ledger, training: TrainingCase, step: Step, variant: Variant, before: dict[str, Any], case: str
) -> None:
    """Compare check, update and statistics of a variant with the references of the three ops."""

    def read(array: Array) -> Array:
        return wide(step.backend.to_numpy(array, copy=True))

    def compare(name: str, got: Array, expected: Array, bound: Array) -> None:
        ledger.compare(f"{training.label}: {name}", case, variant.label, FOLLOWED, got, expected, bound)

    network, optimizer, u, after = step.network, step.state.optimizer, variant.unit, _buffers(step)
    value, gradients = read(step.state.value), read(step.state.gradients.array)
    used = step.state.pending_array.shape[0] if step.state.statistics == "per_micro_batch" else 1
    proposed = read(step.state.pending_array)[:used]
    verdict = {name: read(array) for name, array in step.state.checked._asdict().items() if array is not None}
    options: dict[str, Any] = {"clip": step.state.clip_norm}
    inputs = value, gradients, proposed, *(read(a) for a in step.state.scaling.memory())  # a scale that stays
    checked = check_step.reference(*inputs, **options)
    allowed = bound_of(check_step, u, inputs, options, checked)
    for name in verdict:
        compare(f"verdict {name}", verdict[name], getattr(checked, name), allowed[name])
    slots = [before[f"slot {name}"] for name in step.state.slots]
    ok, factor = verdict["ok"], verdict["factor"]
    copy16 = () if network.copy16 is None else (before["slot copy16"],)
    args = (
        before["parameters"],
        gradients,
        *slots,
        read(step.state.table.array),
        before["counters"],
        ok,
        factor,
        *copy16,
    )
    frozen = network.parameters.ranges(h for h in network.parameters if isinstance(h, Parameter) and h.frozen)
    options = {"decay_end": network.decay_end, "frozen": frozen, **optimizer.options()}
    with np.errstate(all="ignore"):
        new = optimizer.op.reference(*args, **options)
    allowed = bound_of(optimizer.op, u, args, options, new, variant.dtype)
    for name, array in fields(optimizer.op, new).items():
        if array is not None:
            got = after["parameters"] if name == "parameters" else after[f"slot {name}"]
            compare(f"update of {name}", got, array, allowed[name])
    running, rounding = before["statistics"], np.zeros(())
    decay, unbiased = map(read, network.commit_rules)
    for pending in proposed:
        args = (running, pending, ok, decay, unbiased)
        running = commit.reference(*args)
        rounding = rounding + bound_of(commit, u, args, {}, running)["out"]
    compare("running statistics", after["statistics"], running, rounding)


def verify_free(ledger: Ledger, numpy: Backend, variants: Sequence[Variant], training: TrainingCase, seed: int) -> None:
    """Run trainings in float64 independently and compare the final networks."""
    exact = Variant(numpy, "float64")

    def end(variant: Variant, memory: Arena | None = None) -> dict[str, Array]:
        step = make(training, variant, memory)
        step.schedule([rate(t) for t in range(training.steps)])
        for t in range(training.steps):
            step(batches(training, t, seed))
        return step.network.state_dict()

    truth = end(exact)
    runs = [end(exact, memory) for memory in perturbations(exact.unit, seed)]
    bounds = bounds_of_runs(truth, runs)
    for variant in variants:
        what = f"{training.label} independent, {training.steps} steps"
        with ledger.guard(what, "the whole run", variant.label, exact.label):
            for name, array in end(variant).items():
                ledger.compare(
                    f"{what}: {name}", "the end", variant.label, exact.label, array, truth[name], bounds[name]
                )

"""The bounds on small fixed inputs, as recorded: none may grow without being noticed.

`python -m tests.contracts.test_bounds` records them. A figure is the sum of a bound, in units of rounding, for u of
float32 and float64; the formulas are in bnengine/contracts.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnengine.contracts.update import RULE_CONTRACTS
from bnengine.ops import REGISTRY, Example
from bnengine.ops.activations import ACTIVATIONS
from bnengine.ops.update import RULES
from tests.contracts.cases import fields
from tests.contracts.examples import ACTIVATED, LOSSES, OF_ROWS, OTHERS, Draw, flat, of_rows, outputs, softmax

RECORD = Path(__file__).with_name("bounds.json")
UNITS = 2.0**-24, 2.0**-53
SLOPE: dict[str, Any] = {"slope": 3.0}
MORE: dict[str, list[dict[str, Any]]] = {
    "activation": [SLOPE],
    "activation_backward": [SLOPE],
    "normalize": [SLOPE],
    "normalize_backward": [SLOPE, {"batch_statistics": False}],
    "affine": [SLOPE, {"precision": "tf32"}, {"between": 2.0**-8}],
    "affine_backward": [SLOPE, {"precision": "tf32"}, {"between": 2.0**-8}, {"input_gradient": False}],
}
ABSENT = {"normalize": (2, 3, 4), "batch_norm": (1, 2, 3), "normalize_backward": (4, 5, 6), "affine": (2,)}


def examples(name: str) -> Iterator[Example]:
    """Small examples whose numbers do not depend on how many activations or optimizers there are."""
    draw, small = Draw("float64"), [np.full((4, 1), -3.0), np.eye(4)[:, :1], np.zeros((4, 1))]
    for kind in ACTIVATIONS if name in ACTIVATED else ("identity",):
        for example in of_rows(name, "float64", 3, 2, kind) if name in OF_ROWS else ():
            yield example
            for more in MORE.get(name, []) if kind in ("tanh", "leaky_relu") or name not in ACTIVATED else []:
                yield example._replace(label=f"{example.label}, {more}", options=example.options | more)
    if name in ABSENT:
        (example,) = of_rows(name, "float64", 3, 2)
        args = tuple(None if i in ABSENT[name] else a for i, a in enumerate(example.args))
        yield Example("bare", args)
    if name == "moments":
        yield from (Example(f"small {i}", (x,)) for i, x in enumerate(small))
    elif name == "add_epoch_sums":
        yield Example("sums", (*(draw.wide(n) for n in (4, 1, 1, 1)), np.asarray([True])), {"rows": 7})
    elif name == "softmax_cross_entropy":
        for kind in ("numbers", "probabilities"):
            for weighted, scale in ((True, {"scale": np.full(1, 8.0)}), (False, {})):
                example = softmax(draw, 3, 4, kind, weighted, 0.1)
                yield example._replace(options=example.options | scale)
    elif name in LOSSES and name != "correct":
        for weighted, scale in ((True, {"scale": np.full(1, 8.0)}), (False, {})):
            example = outputs(draw, 3, 2, weighted)
            yield example._replace(options=example.options | scale)
    elif name in LOSSES or name in OTHERS:
        made = LOSSES[name](name, draw) if name in LOSSES else OTHERS[name](draw)
        yield from (e for e in made if sum(np.size(a) for a in e.args) < 100)
    elif name in RULES:
        for options in RULE_CONTRACTS[name].variants.values():
            example = flat(draw, name, 3, **{k: v for k, v in options.items() if k not in ("absent", "frozen")})
            for decay in (0.0, 0.1):
                yield example._replace(
                    label=f"{options}, decay {decay}", options=example.options | {"weight_decay": decay}
                )


def figures(name: str) -> dict[str, list[float]]:
    op, found = REGISTRY[name], dict[str, list[float]]()
    for example in examples(name):
        for u in UNITS:
            bound = op.contract.bound(u, *example.args, **example.options)
            for field, value in (fields(op, bound) if hasattr(bound, "_asdict") else {op.fields[0]: bound}).items():
                if value is not None:
                    found.setdefault(f"{example.label}: {field}", []).append(float(f"{np.sum(value) / u:.6g}"))
    return found


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_no_bound_has_grown(name):
    recorded, found = json.loads(RECORD.read_text(encoding="utf-8")).get(name, {}), figures(name)
    assert found.keys() == recorded.keys(), "Record the bounds: python -m tests.contracts.test_bounds"
    for label, figure in found.items():
        np.testing.assert_allclose(figure, recorded[label], rtol=1e-3, err_msg=f"{name}, {label}")


if __name__ == "__main__":
    parts = [
        f'"{name}": {{\n'
        + ",\n".join(f" {json.dumps(label)}: {figure}" for label, figure in figures(name).items())
        + "\n}"
        for name in sorted(REGISTRY)
    ]
    RECORD.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")

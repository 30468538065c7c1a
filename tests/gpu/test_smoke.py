"""The first look at a device: a step that agrees, and what is said where an op of it is wrong."""

from typing import Any

import pytest

from bnengine import ops
from bnengine.lab.verify import operations
from bnengine.ops.dropout import Dropped
from tests.gpu import smoke


@pytest.fixture
def on_the_device(simulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    get_backend = smoke.get_backend
    monkeypatch.setattr(smoke, "get_backend", lambda n: simulated.backend() if n == "cupy" else get_backend(n))


def test_a_step_on_the_device_agrees_with_numpy_s(on_the_device, capsys):  # noqa: ARG001
    smoke.main()
    assert capsys.readouterr().out == f"a step of {smoke.ROWS} rows agrees with NumPy's\n"


@pytest.mark.parametrize("raises", [False, True])
def test_an_op_that_is_wrong_is_named(raises, on_the_device, monkeypatch, capsys):  # noqa: ARG001
    (version,) = ops.dropout.versions("cupy")

    def planted(to: Any, x: Any, *args: Any, **options: Any) -> Any:
        if raises:
            raise RuntimeError("no such kernel")
        y, keep = version.launcher(to, x, *args, **{**options, "seed": options["seed"] ^ 1})
        return Dropped(y, keep)

    some = {name: operations.REGISTRY[name] for name in ("affine", "batch_norm", "dropout")}
    monkeypatch.setattr(operations, "REGISTRY", some)  # the walk over contracts compares them all
    monkeypatch.setattr(ops.dropout, "_versions", {"cupy": [version._replace(launcher=planted)]})
    with pytest.raises(SystemExit) as ended:
        smoke.main()
    assert ended.value.code == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("; wrong ops: dropout")
    assert ("the step raised RuntimeError: no such kernel" in last) == raises

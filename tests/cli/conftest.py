"""The command line called as a user calls it, and small data to call it on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from bnengine.cli import main

SMALL = ("--hidden", "8", "--epochs", "3", "--batch-size", "16", "--no-plot")


class Done(NamedTuple):
    """The exit code of a call, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on standard output."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


Command = Callable[..., Done]


@pytest.fixture
def bnengine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`bnengine("train", "digits", ...)` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BNENGINE_BACKEND", raising=False)

    def call(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        code = exit_.value.code
        return Done(code if isinstance(code, int) else 0, out, err)

    return call


@pytest.fixture
def done(bnengine: Command) -> Command:
    """The same, for calls that must succeed."""

    def call(*arguments: str) -> Done:
        result = bnengine(*arguments)
        assert result.code == 0, result.err
        return result

    return call


def points() -> tuple[np.ndarray, np.ndarray]:
    """Three clouds of points: x (90, 4), y (90,) with the labels 2, 5 and 7."""
    rng = np.random.default_rng(0)
    codes = np.arange(90) % 3
    return rng.normal(size=(90, 4)) + 3 * np.eye(3, 4)[codes], np.asarray([2, 5, 7])[codes]


def write_data(folder: Path) -> None:
    """blobs.npz; flowers.csv, with labels that are text; prices.csv, a regression: price = 1000 a + 50 b + 7.5."""
    x, y = points()
    np.savez(folder / "blobs.npz", x=x, y=y)
    names = {2: "setosa", 5: "versicolor", 7: "virginica"}
    rows = [f"{a!r},{b!r},{names[k]},{c!r},{d!r}\n" for (a, b, c, d), k in zip(x.tolist(), y.tolist(), strict=True)]
    (folder / "flowers.csv").write_text("a,b,species,c,d\n" + "".join(rows))
    rows = [f"{a!r},{b!r},{1000 * a + 50 * b + 7.5!r}\n" for a, b, *_ in x.tolist()]
    (folder / "prices.csv").write_text("a,b,price\n" + "".join(rows))


@pytest.fixture
def blobs() -> tuple[np.ndarray, np.ndarray]:
    return points()


@pytest.fixture
def npz(tmp_path: Path) -> str:
    write_data(tmp_path)
    return "blobs.npz"


@pytest.fixture
def table(npz: str) -> str:  # noqa: ARG001 -- which writes all
    return "flowers.csv"


@pytest.fixture
def prices(npz: str) -> str:  # noqa: ARG001 -- which writes all
    return "prices.csv"


def tensors(run: Path | str) -> bytes:
    """A run's whole checkpoint; equal states have equal bytes."""
    return Path(run, "model.safetensors").read_bytes()


def metrics(run: Path | str) -> list[dict[str, Any]]:
    """A run's metrics without the times, which differ."""
    records = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in ("seconds", "samples_per_second")} for r in records]


def contents(folder: Path | str) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}

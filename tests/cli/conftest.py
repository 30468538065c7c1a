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
    """What a call left behind: its exit code, and what it wrote."""

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


@pytest.fixture
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Three clouds of points: x (90, 4), y (90,) with the labels 2, 5 and 7."""
    rng = np.random.default_rng(0)
    codes = np.arange(90) % 3
    return rng.normal(size=(90, 4)) + 3 * np.eye(3, 4)[codes], np.asarray([2, 5, 7])[codes]


@pytest.fixture
def npz(tmp_path: Path, blobs: tuple[np.ndarray, np.ndarray]) -> str:
    """The clouds in an .npz file."""
    np.savez(tmp_path / "blobs.npz", x=blobs[0], y=blobs[1])
    return "blobs.npz"


@pytest.fixture
def table(tmp_path: Path, blobs: tuple[np.ndarray, np.ndarray]) -> str:
    """The clouds in a .csv file with labels that are text."""
    x, y = blobs
    names = {2: "setosa", 5: "versicolor", 7: "virginica"}
    lines = ["a,b,species,c,d"]
    lines += [f"{r[0]!r},{r[1]!r},{names[int(k)]},{r[2]!r},{r[3]!r}" for r, k in zip(x.tolist(), y, strict=True)]
    (tmp_path / "flowers.csv").write_text("\n".join(lines) + "\n")
    return "flowers.csv"


@pytest.fixture
def prices(tmp_path: Path, blobs: tuple[np.ndarray, np.ndarray]) -> str:
    """A regression in a .csv file: price = 1000 a + 50 b + 7.5."""
    lines = ["a,b,price", *(f"{a!r},{b!r},{1000 * a + 50 * b + 7.5!r}" for a, b, *_ in blobs[0].tolist())]
    (tmp_path / "prices.csv").write_text("\n".join(lines) + "\n")
    return "prices.csv"


def tensors(run: Path) -> bytes:
    """A run's whole checkpoint; equal states have equal bytes."""
    return (run / "model.safetensors").read_bytes()


def metrics(run: Path) -> list[dict[str, Any]]:
    """A run's metrics without the times, which differ."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in ("seconds", "samples_per_second")} for r in records]

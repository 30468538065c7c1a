"""Data for the experiments: too few rows, and few classes."""

from pathlib import Path

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.lab.explain import Setting, bias_cancels, explain, same_distribution, shift


def saved(folder: Path, rows: int, classes: int) -> str:
    rng = np.random.default_rng(0)
    y = np.arange(rows) % classes
    np.savez(folder / "some.npz", x=rng.normal(size=(rows, 5)) + 3 * y[:, None], y=y)
    return str(folder / "some.npz")


def test_one_class_or_too_few_rows_are_refused(tmp_path: Path) -> None:
    for rows, classes, message in (
        (400, 1, "rows of only one class"),
        (318, 3, "has 318 rows, .*Give 321 rows or more"),
    ):
        with pytest.raises(InputError, match=rf"^explain: .*some\.npz.*{message}"):
            Setting(saved(tmp_path, rows, classes), backend="numpy")
    assert len(Setting(saved(tmp_path, 321, 3), backend="numpy").raw(0).x) >= 256


def test_few_classes_lose_all_but_the_last_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shift, "STEPS", 10)
    found = explain("shift", Setting(saved(tmp_path, 330, 3), backend="numpy", seeds=2))[0]
    assert 0 <= found.figures["two, adapted"].mean <= 1


def test_the_identities_are_checked_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_distribution, "STEPS", 20)
    followed = same_distribution._followed(Setting(backend="numpy"), 0, "batch")
    assert len(followed["identity"]) == 21
    assert len(followed["mean 1"]) == 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_variance_from_one_pass_would_not_let_a_bias_cancel(dtype: str) -> None:
    setting = Setting(backend="numpy")
    assert all(bias_cancels._one_pass(setting, seed, dtype) >= 200 for seed in setting.seeds)

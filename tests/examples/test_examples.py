"""Every example runs and prints what it promises."""

import re
import runpy
from pathlib import Path

import pytest

from bnengine.lab.explain import NAMES
from bnengine.layers.base import LAYERS
from tests.support import ROOT

EXAMPLES = {
    "digits": r"validation accuracy after 20 epochs: 0\.9[789]",
    "batch_norm_by_hand": r"a skipped step changes nothing: True\nmerged halves are the whole batch: True",
    "large_means": r"bnengine +\d\.\de-07 +\d\.\de-07 +\d\.\de-07 +\d\.\de-07\n",
    "on_a_gpu": r"steps run (as one call|op by op: no fused version of affine, .*)\ndata on the device: (True|False)\n",
    "own_arrays": r"resumed equals uninterrupted, bit for bit: True",
    "own_layer": r"saved, loaded, and the same: True",
    "claims/bias_cancels": r"b = +1e\+06: outputs change by \de-(09|1\d), dL/db is \de-1\d of",
    "claims/gamma_beta_redundant": r"fixed A and B: .* by \d\.\de-1[56] .*\nthe next batch: .* by \d\.\de-0[12] ",
    "claims/same_distribution": r"batch mean less beta: \de-0[789]\nbatch norm: means of layer 2 drift by 0\.0\d",
    "claims/normalise_only": r"normalized only +accuracy 0\.9[67]",
    "claims/inference_statistics": r"running statistics: accuracy 0\.[0-7].*\nby the exact .*: accuracy 0\.9",
    "claims/shift": r"a quarter of the contrast +plain 0\.9\d+, batch norm 0\.[1-6]\d+, by their own statistics 0\.9",
    "claims/scale_invariance": r"SGD adds (\S+) to \|W\|\^2; rate\^2 \|dW\|\^2 is \1\n",
    "claims/recipe": r"gradient descent +plain 1\d epochs, batch norm +[3-7]\n",
    "claims/figure_1": r"epoch  5: accuracy 0\.1.*\n(.*\n)+batch norm\n.*\n  epoch  5: accuracy 0\.9",
    "claims/batch_size": r"  2 rows: first values (-?1\.000), .*eps 1e-12 \de?.*e-1[23]\n",
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_prints_what_it_promises(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BNENGINE_BACKEND", "numpy")
    monkeypatch.setattr(LAYERS, "_classes", dict(LAYERS._classes))  # an example registers its layer here only
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    assert re.search(EXAMPLES[name], capsys.readouterr().out)


def test_no_example_is_left_out() -> None:
    files = (ROOT / "examples").rglob("*.py")
    assert {path.relative_to(ROOT / "examples").with_suffix("").as_posix() for path in files} == set(EXAMPLES)


def test_every_claim_has_an_example_in_under_sixty_lines() -> None:
    files = {path.stem: path for path in (ROOT / "examples" / "claims").glob("*.py")}
    assert set(files) == {name.replace("-", "_") for name in NAMES}
    assert all(len(path.read_text().splitlines()) < 60 for path in files.values())

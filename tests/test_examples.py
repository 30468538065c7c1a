"""Every example and the README's snippet run, and say what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = {
    "digits": r"validation accuracy after 20 epochs: 0\.9[789]",
    "batch_norm_by_hand": r"a skipped step changes nothing: True\nmerged halves are the whole batch: True",
    "large_means": r"bnengine +\d\.\de-07 +\d\.\de-07 +\d\.\de-07 +\d\.\de-07\n",
    "on_a_gpu": r"steps run (as one call|op by op: no fused version of affine, .*)\ndata held .*: (True|False)\n",
    "own_arrays": r"resumed equals uninterrupted, bit for bit: True",
    "own_layer": r"saved, loaded, and the same: True",
}


def run(code: str | Path, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BNENGINE_BACKEND": "numpy"}
    command = [sys.executable, str(code)] if isinstance(code, Path) else [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_says_what_it_promises(name: str, tmp_path: Path) -> None:
    assert re.search(EXAMPLES[name], run(ROOT / "examples" / f"{name}.py", tmp_path))


def test_no_example_is_left_out() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)


def test_the_readme_trains_a_network_in_at_most_fifteen_lines(tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(snippet.strip().splitlines()) <= 15
    printed = run(snippet, tmp_path)
    accuracy = float(printed.split("accuracy")[-1])
    assert accuracy >= 0.97

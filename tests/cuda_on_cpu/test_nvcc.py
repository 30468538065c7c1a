"""The .cu files compile with nvcc alone, without a line of our Python in between, where there is an nvcc."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cuda_on_cpu.instances import INSTANCES
from tests.cuda_on_cpu.source import CUDA
from tests.cuda_on_cpu.test_compiles import chosen, kernel_of
from tests.support import missing

pytestmark = pytest.mark.cuda_proof
ARCHITECTURES = (75, 100)
FULL = os.environ.get("BNENGINE_FULL") == "1"


def compiled(source: Path, folder: Path, *options: str) -> str:
    """What ptxas says of the kernels in a file that compiles for every architecture without a warning."""
    if shutil.which("nvcc") is None:
        missing("nvcc", "there is no nvcc on the PATH: the files are compiled by NVRTC alone")
    for_each = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    command = ["nvcc", "-std=c++17", *for_each, "-Werror", "all-warnings", *options, "-c", str(source)]
    command += ["-o", str(folder / "kernels.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[:4000]}"
    return done.stderr


@pytest.mark.parametrize("file", INSTANCES)
def test_a_file_compiles_as_it_is(file, tmp_path):
    assert compiled(CUDA / file, tmp_path) == ""


@pytest.mark.parametrize("file", INSTANCES)
def test_a_file_that_includes_it_can_use_each_kernel(file, tmp_path):
    names = chosen(file) if FULL else tuple({kernel_of(name): name for name in chosen(file)}.values())
    used = "".join(f"  (void*){name},\n" for name in names)
    source = tmp_path / "uses.cu"
    source.write_text(f'#include "{CUDA / file}"\nvoid* kernels[] = {{\n{used}}};\n')
    report = compiled(source, tmp_path, "-Xptxas", "-v")
    assert report.count("Compiling entry function") >= len(names) * len(ARCHITECTURES)

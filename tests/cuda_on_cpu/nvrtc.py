"""Kernels compiled for a GPU that need not be there: NVRTC and cuobjdump from pip packages."""

import functools
import importlib
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

from tests.cuda_on_cpu.source import kernel_source
from tests.support import missing

# As CuPy compiles: these two options it always adds.
OPTIONS = ("-std=c++17", "-ftz=true", "--device-as-default-execution-space", "--ptxas-options=-v")
PTXAS = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?"
    r"Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?",
    re.DOTALL,
)


class Compiled(NamedTuple):
    """What the assembler says of one kernel."""

    registers: int
    spilled: int  # bytes stored and loaded
    shared: int  # bytes, static


class Binary(NamedTuple):
    """A module for one architecture."""

    cubin: bytes
    kernels: dict[str, Compiled]
    mangled: dict[str, str]  # by name expression


def toolkit() -> Path:
    """Where the pip packages of CUDA's compiler keep their files, or a toolkit of the machine's."""
    homes = [Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13", Path("/usr/local/cuda")]
    for home in homes:
        if (home / "include" / "cuda_fp16.h").is_file():
            return home
    return missing("nvrtc", "CUDA's headers were not found; pip install nvidia-cuda-runtime nvidia-cuda-crt")


def binding() -> Any:
    """NVIDIA's Python binding of NVRTC, with the library itself at hand."""
    try:
        nvrtc = importlib.import_module("cuda.bindings.nvrtc")
        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        missing("nvrtc", f"NVRTC cannot be used; pip install cuda-bindings nvidia-cuda-nvrtc ({error})")
    return nvrtc


def _checked(answer: tuple[Any, ...], nvrtc: Any, program: Any = None) -> Any:
    status, *values = answer
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"{status}:\n{'' if program is None else log_of(nvrtc, program)[:4000]}")
    return values[0] if len(values) == 1 else values


def log_of(nvrtc: Any, program: Any) -> str:
    log = bytearray(_checked(nvrtc.nvrtcGetProgramLogSize(program), nvrtc))
    text = bytes(log)
    nvrtc.nvrtcGetProgramLog(program, text)
    return text.decode().rstrip("\0")


@functools.cache
def compile_kernels(file: str, names: tuple[str, ...], architecture: int) -> Binary:
    """kernels/cuda/<file> for sm_<architecture> with the instances `names`; any warning is an error."""
    nvrtc = binding()
    include = f"-I{toolkit() / 'include'}"
    program = _checked(nvrtc.nvrtcCreateProgram(kernel_source(file).encode(), file.encode(), 0, [], []), nvrtc)
    for name in names:
        _checked(nvrtc.nvrtcAddNameExpression(program, name.encode()), nvrtc)
    options = [o.encode() for o in (*OPTIONS, f"-arch=sm_{architecture}", include)]
    _checked(nvrtc.nvrtcCompileProgram(program, len(options), options), nvrtc, program)
    log = log_of(nvrtc, program)
    if "warning" in log:
        raise RuntimeError(f"{file}, sm_{architecture}:\n{log[:4000]}")
    cubin = bytes(bytearray(_checked(nvrtc.nvrtcGetCUBINSize(program), nvrtc)))
    _checked(nvrtc.nvrtcGetCUBIN(program, cubin), nvrtc)
    mangled = {n: _checked(nvrtc.nvrtcGetLoweredName(program, n.encode()), nvrtc).decode() for n in names}
    found = {
        name: Compiled(int(registers), int(stores) + int(loads), int(shared or 0))
        for name, stores, loads, registers, shared in PTXAS.findall(log)
    }
    return Binary(cubin, {n: found[mangled[n]] for n in names}, mangled)


def disassemble(binary: Binary, folder: Path) -> dict[str, str]:
    """The instructions of each kernel, by name expression."""
    program = shutil.which("cuobjdump", path=str(toolkit() / "bin")) or shutil.which("cuobjdump")
    if program is None:
        missing("nvrtc", "cuobjdump was not found; pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
    path = folder / "kernels.cubin"
    path.write_bytes(binary.cubin)
    text = subprocess.run([program, "-sass", str(path)], capture_output=True, text=True, check=True).stdout
    functions = dict(part.split("\n", 1) for part in text.split("Function : ")[1:])
    return {name: functions[mangled] for name, mangled in binary.mangled.items()}

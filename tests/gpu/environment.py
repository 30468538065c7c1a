"""What the machine is and what is missing on it: one JSON object on one line. `python -m tests.gpu.environment`

Exit status 1 where CuPy cannot be used.
"""

import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from typing import Any

from tests.gpu.runner import ROOT

# What must be there, with the name that pip knows it by; the tests and the commands need more than the engine.
MODULES = {
    "numpy": "numpy", "array_api_compat": "array-api-compat", "ml_dtypes": "ml-dtypes", "pytest": "pytest",
    "hypothesis": "hypothesis", "safetensors": "safetensors", "click": "click", "rich": "rich", "tomli_w": "tomli-w",
}  # fmt: skip
EXTRA = {"torch": "torch", "nvidia-cublas": "nvidia-cublas"}


def examine() -> dict[str, Any]:
    """Device, versions, commit, free memory, what is missing, and all of it in a line."""
    found: dict[str, Any] = {"python": sys.version.split()[0], "platform": platform.platform()}
    found |= {"processor": _processor(), "cores": os.cpu_count(), "commit": commit(), "sources": sources()}
    found["missing"] = {name: why for name in MODULES if (why := _absent(name))}
    found["versions"] = {name: _version(pip) for name, pip in (MODULES | EXTRA).items() if name not in found["missing"]}
    found |= {"driver": _driver(), "device": None}
    try:
        found |= _device()
    except Exception as error:  # CuPy has many classes for a missing driver, compiler or library, some of them private
        lines = str(error).strip().splitlines() or [""]
        found["missing"]["cupy"] = f"{type(error).__name__}: {lines[0]}"
    found["summary"] = summary(found)
    return found


def _device() -> dict[str, Any]:
    """The current GPU as CuPy sees it; an error, of CuPy's or of ours, where a small computation goes wrong."""
    numpy, cupy = importlib.import_module("numpy"), importlib.import_module("cupy")
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(0)
    answer = float((cupy.asarray(numpy.arange(8, dtype=numpy.float32)) * 2)[7])
    if answer != 14:
        raise ArithmeticError(f"2 x 7 is {answer:g} on the GPU")
    free, total = runtime.memGetInfo()
    name = properties["name"]
    return {
        "device": name.decode(errors="replace") if isinstance(name, bytes) else str(name),
        "capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": int(properties["multiProcessorCount"]),
        "cupy": cupy.__version__,
        "cuda": {
            "driver": runtime.driverGetVersion(),
            "runtime": runtime.runtimeGetVersion(),
            "nvrtc": ".".join(map(str, cupy.cuda.nvrtc.getVersion())),
        },
        "memory": {"free": free, "total": total},
    }


def summary(found: dict[str, Any]) -> str:
    """The machine in a line; or what is missing, and the cure."""
    missing, lines = found["missing"], []
    if "cupy" in missing:
        cure = "GPU_PYTHON=a Python that has CuPy 14.2 or later and its CUDA libraries"
        lines.append(f"cupy cannot be used here: {missing['cupy']}; {cure}")
    else:
        torch = f"torch {found['versions']['torch']}" if found["versions"].get("torch") else "no torch"
        free, total = (found["memory"][name] / 2**30 for name in ("free", "total"))
        machine = f"{found['device']}, {free:.0f} of {total:.0f} GiB free"
        lines.append(f"{machine}, CuPy {found['cupy']}, CUDA {found['cuda']['driver']}, {torch}")
    if absent := [name for name in missing if name != "cupy"]:
        wheels = " ".join(MODULES[name] for name in absent)
        cure = f"GPU_PYTHONPATH=folder, filled by: python3 -m pip install --target folder {wheels}"
        lines.append(f"{', '.join(absent)} cannot be imported here; {cure}")
    return "; ".join(lines)


def _absent(name: str) -> str:
    try:
        importlib.import_module(name)
    except ImportError as error:
        return str(error)
    return ""


def _version(pip: str) -> str | None:
    try:
        return importlib.metadata.version(pip)
    except importlib.metadata.PackageNotFoundError:
        return None


def _answer(*command: str) -> str:
    """What a program prints; nothing where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip() if done.returncode == 0 else ""


def commit() -> str:
    """The commit of the checkout, marked where files were changed; "unknown" in a copy without its history."""
    return _answer("git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*") or "unknown"


def sources() -> str:
    """A digest of the package and the kernels: distinguishes two copies where there is no commit."""
    digest = hashlib.sha256()
    for path in sorted(p for folder in ("bnengine", "kernels") for p in (ROOT / folder).rglob("*.*")):
        if path.suffix in (".py", ".cu", ".cuh", ".h", ".cpp"):
            digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _driver() -> str:
    return _answer("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0]


def _processor() -> str:
    path = "/proc/cpuinfo"
    if not os.path.exists(path):
        return platform.processor()
    with open(path, encoding="utf-8") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    found = examine()
    print(json.dumps(found))
    sys.exit("cupy" in found["missing"] or "numpy" in found["missing"])


if __name__ == "__main__":
    main()

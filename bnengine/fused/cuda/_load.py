"""Finds the CUDA kernels, joins a file and its headers, and compiles an instance when a launch first needs it."""

import functools
import importlib
import re
from pathlib import Path
from typing import Any

from ...errors import BackendError

OLDEST = (14, 2)  # before it, CuPy compiled templates with several parameters again in every process
OPTIONS = ("--std=c++17",)
_OWN_INCLUDE = re.compile(r'^#include "(.+)"$')


def cupy() -> Any:
    """CuPy, which the caller's array has imported already."""
    return importlib.import_module("cupy")


@functools.cache
def refusal() -> str | None:
    """Why the CuPy that is installed cannot take these kernels; None if it can."""
    installed = str(getattr(cupy(), "__version__", "0"))
    parts = re.findall(r"\d+", installed)[:2]
    if tuple(map(int, parts)) < OLDEST:
        return f"CuPy {installed} is older than {'.'.join(map(str, OLDEST))}; pip install --upgrade cupy-cuda13x"
    return None


@functools.cache
def folder() -> Path:
    """The folder of the kernels: inside an installed package, or next to it in a checkout."""
    package = Path(__file__).resolve().parents[2]
    places = (package / "kernels", package.parent / "kernels")
    for place in places:
        if (place / "rules.h").is_file() and (place / "cuda").is_dir():
            return place
    raise BackendError(
        f"fused.cuda: no kernels in {places[0]}, nor in {places[1]}; install bnengine again, or run it from a whole "
        "checkout"
    )


@functools.cache
def source(file: str) -> str:
    """kernels/cuda/<file> with our headers pasted in, because CuPy's compile cache keys on this text alone."""
    return _pasted(folder() / "cuda" / file, set())


def _pasted(path: Path, seen: set[Path]) -> str:
    if path in seen:
        return ""
    seen.add(path)
    lines = [f'#line 1 "{path.name}"']
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if own := _OWN_INCLUDE.match(line):
            lines += [_pasted((path.parent / own[1]).resolve(), seen), f'#line {number + 1} "{path.name}"']
        else:
            lines.append("" if line == "#pragma once" else line)
    return "\n".join(lines) + "\n"


@functools.cache
def function(file: str, expression: str, device: int) -> Any:
    """The instance `expression` of a kernel in kernels/cuda/<file>, compiled for a device.

    One module per instance: a network needs a dozen of them, each of which takes a tenth of a second to compile, later
    milliseconds from CuPy's cache. A whole file has up to a hundred.
    """
    with cupy().cuda.Device(device):
        module = cupy().RawModule(code=source(file), options=OPTIONS, name_expressions=(expression,))
        return module.get_function(expression)


@functools.cache
def multiprocessors(device: int) -> int:
    """The multiprocessors of a device: it runs a multiple of this number of blocks at once."""
    return int(cupy().cuda.Device(device).attributes["MultiProcessorCount"])


@functools.cache
def shared_memory(device: int) -> int:
    """The bytes of shared memory that a block can have: from 64 KiB (sm_75) to 227 KiB (sm_90)."""
    return int(cupy().cuda.Device(device).attributes["MaxSharedMemoryPerBlockOptin"])


# Launches of one stream run one after the other and share these arrays. So launch a captured graph
# on the stream that it was recorded on, or in order with it.
_arrivals: dict[tuple[int, int], Any] = {}
_workspaces: dict[tuple[int, int], Any] = {}


def stream() -> int:
    """The address of CuPy's current stream."""
    return int(cupy().cuda.get_current_stream().ptr)


def arrivals(count: int, device: int) -> Any:
    """Counters of blocks that have arrived: zero, and left at zero by every launch."""
    return _held(_arrivals, device, max(1024, 1 << (count - 1).bit_length()), "uint32")


def workspace(size: int, device: int) -> Any:
    """Bytes for products: what they hold means nothing between launches."""
    return _held(_workspaces, device, size, "uint8")


def _held(those: dict[tuple[int, int], Any], device: int, size: int, dtype: str) -> Any:
    key = device, stream()
    array = those.get(key)
    if array is None or array.size < size:
        with cupy().cuda.Device(device):
            array = those[key] = cupy().zeros(size, dtype=dtype)
    return array

"""Writes cupy_14_2_signatures.json: run it with a Python that has CuPy 14.2 (it needs no GPU).

Compiled functions have no signature that Python can inspect; their docstrings begin with one.
"""

import inspect
import json
import re
from pathlib import Path
from typing import Any

NAMES = (
    "RawModule", "RawModule.get_function", "RawKernel.__call__",
    "asarray", "copyto", "empty", "matmul", "zeros",
    "ndarray.astype", "ndarray.copy", "ndarray.fill", "ndarray.get", "ndarray.item", "ndarray.reshape", "ndarray.set",
    "ndarray.view",
    "cuda.Device", "cuda.Device.synchronize", "cuda.Device.use",
    "cuda.get_current_stream", "cuda.runtime.getDeviceCount",
    "cuda.Stream", "cuda.Stream.begin_capture", "cuda.Stream.end_capture", "cuda.Stream.synchronize",
    "cuda.Stream.record", "cuda.Stream.wait_event", "cuda.Graph.launch", "cuda.Graph.upload",
    "cuda.Event", "cuda.Event.record", "cuda.Event.synchronize", "cuda.get_elapsed_time",
    "cuda.alloc_pinned_memory", "cuda.MemoryPointer.copy_from_device_async", "cuda.MemoryPointer.copy_from_host_async",
    "cuda.MemoryPool.total_bytes", "cuda.MemoryPool.used_bytes", "get_default_memory_pool",
)  # fmt: skip


def parameters(thing: Any, name: str) -> list[list[Any]]:
    """[name, kind, whether it has a default, its type or ""] of each parameter, without self."""
    try:
        signature = inspect.signature(thing)
        found = [[p.name, p.kind.name, p.default is not p.empty, ""] for p in signature.parameters.values()]
    except (ValueError, TypeError):
        found = from_docstring(thing.__doc__, name.rsplit(".", 1)[-1])
    return [p for p in found if p[0] != "self"]


def from_docstring(text: str, name: str) -> list[list[Any]]:
    lines = [line.strip().replace("\\*", "*") for line in text.splitlines()[:6]]
    given = [m[1] for line in lines if (m := re.match(rf"(?:[\w.]+\.)?{name}\((.*?)\)(?:\s*->.*)?$", line))]
    plain = [g for g in given if "**" not in g] or given
    found, kind = [], "POSITIONAL_OR_KEYWORD"
    for part in filter(None, map(str.strip, plain[0].split(","))):
        if part == "*":
            kind = "KEYWORD_ONLY"
            continue
        declared, has_default = part.split("=")[0].split(), "=" in part
        word = declared[-1]
        stars = len(word) - len(word.lstrip("*"))
        own = {1: "VAR_POSITIONAL", 2: "VAR_KEYWORD"}.get(stars, kind)
        found.append([word.lstrip("*"), own, has_default, " ".join(declared[:-1])])
        if stars == 1:
            kind = "KEYWORD_ONLY"
    return found


def main() -> None:
    import cupy

    listed = {}
    for name in NAMES:
        thing: Any = cupy
        for part in name.split("."):
            thing = getattr(thing, part)
        listed[name] = parameters(thing, name)
    target = Path(__file__).with_name("cupy_14_2_signatures.json")
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(found)}" for name, found in sorted(listed.items()))
    head = f'{{\n"version": {json.dumps(cupy.__version__)},\n"signatures": {{\n'
    target.write_text(f"{head}{lines}\n}}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

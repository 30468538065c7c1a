"""The text of a kernel file as a loader hands it to a compiler: with our own headers pasted in place."""

import re
from pathlib import Path

from tests.support import ROOT

CUDA = ROOT / "kernels" / "cuda"
OWN_INCLUDE = re.compile(r'^#include "(.+)"$')


def kernel_source(name: str) -> str:
    """kernels/cuda/<name>; a compile cache sees only one text, so our own headers become a part of it, each once."""
    return _pasted(CUDA / name, set())


def _pasted(path: Path, seen: set[Path]) -> str:
    if path in seen:
        return ""
    seen.add(path)
    lines = [f'#line 1 "{path.name}"']
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if own := OWN_INCLUDE.match(line):
            lines += [_pasted((path.parent / own[1]).resolve(), seen), f'#line {number + 1} "{path.name}"']
        else:
            lines.append("" if line == "#pragma once" else line)
    return "\n".join(lines) + "\n"

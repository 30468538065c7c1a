"""Writes kernels/cpu/layout.h, the names by which kernels read their arguments: `python -m tests.cpu.layout`."""

import textwrap
from pathlib import Path

from bnengine.fused.cpu import _launch, batch_norm, dense, dropout, gather, gather_raw, loss, pointwise, update
from tests.support import ROOT

MODULES = (_launch, batch_norm, dense, dropout, gather, gather_raw, loss, pointwise, update)
HEADER = ROOT / "kernels" / "cpu" / "layout.h"
BEGIN = """\
// What a launch of each kernel passes, by name. bnengine/fused/cpu declares it, and `python -m tests.cpu.layout` writes
// this file from there; a test compares the two.
#pragma once
#include "kernel.h"

namespace bnengine {
namespace layout {

struct Address {
  void* at;
  template <class T>
  operator T*() const {
    return static_cast<T*>(at);
  }
};

// The arguments of a launch by their places.
class Given {
 public:
  explicit Given(const Arguments& given) : given_(given) {}

 protected:
  Address array(int i) const { return {given_.arrays[i]}; }
  index integer(int i) const { return given_.integers[i]; }
  bool flag(int i) const { return given_.integers[i] != 0; }
  double real(int i) const { return given_.reals[i]; }

 private:
  const Arguments& given_;
};
"""
END = """
}  // namespace layout
}  // namespace bnengine
"""


def kernels() -> list[_launch.Kernel]:
    """All declarations, in the order of the modules."""
    return [found for module in MODULES for found in vars(module).values() if isinstance(found, _launch.Kernel)]


def _structure(kernel: _launch.Kernel) -> str:
    """A struct of a kernel's arguments, read from a launch."""
    lines, place = list[str](), 0
    for section in ("whole", "channels", "reads", "writes"):
        for word in getattr(kernel, section).split():
            name, _, kind = word.partition(":")
            lines.append(f"  {'' if section == 'writes' else 'const '}{kind or 'T'}* {name} = array({place});")
            place += 1
    template = ["template <class T>"] if any(" T*" in line for line in lines) else []
    first = 0
    for section, kind, reader in _SCALARS:
        names = kernel.sections[section]
        first = 0 if section == "reals" else first
        listed = ", ".join(f"{name} = {reader}({i})" for i, name in enumerate(names, start=first))
        lines += (
            textwrap.wrap(f"{kind} {listed};", 118, initial_indent="  ", subsequent_indent="      ") if names else []
        )
        first += len(names)
    title = "".join(part.capitalize() for part in kernel.name.split("_"))
    return "\n".join([*template, f"struct {title} : Given {{", "  using Given::Given;", *lines, "};"])


_SCALARS = (("integers", "index", "integer"), ("flags", "bool", "flag"), ("reals", "double", "real"))


def text() -> str:
    """The header."""
    return "\n".join([BEGIN, "\n\n".join(map(_structure, kernels())), END])


if __name__ == "__main__":
    Path(HEADER).write_text(text(), encoding="utf-8")

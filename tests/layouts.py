"""Writes kernels/cpu/layout.h and kernels/cuda/layout.cuh, from which kernels take their arguments by name.

Run `python -m tests.layouts` after a change of what a launch passes.
"""

import textwrap
from collections.abc import Iterator
from importlib import import_module

from bnengine.fused._declaration import ARRAYS, Argument, Declaration
from bnengine.fused.cuda import _launch as cuda
from tests.support import ROOT

MODULES = ("_launch", "batch_norm", "dense", "dropout", "gather", "loss", "pointwise", "update")
HEADERS = {"cpu": ROOT / "kernels" / "cpu" / "layout.h", "cuda": ROOT / "kernels" / "cuda" / "layout.cuh"}
WIDTH = 118
JOINED = "~"  # a space that a line is not broken at

CPU_BEGIN = """\
// What a launch of each kernel passes, by name. bnengine/fused/cpu declares it, and `python -m tests.layouts` writes
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

// Sorted ranges [begin, end): ends[0] is the first begin, ends[1] the first end.
struct Ranges {
  const index* ends;
  index count;
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
  Ranges ranges(int i) const { return {given_.integers + i + 1, given_.integers[i]}; }

 private:
  const Arguments& given_;
};

"""
CPU_END = """

}  // namespace layout
}  // namespace bnengine
"""
CUDA_BEGIN = """\
// The parameters of each kernel. bnengine/fused/cuda declares them, and `python -m tests.layouts` writes this file from
// there; a test compares the two. T, S, Y, A and H are the template parameters of the kernel.
#pragma once

"""


def kernels(folder: str) -> list[Declaration]:
    """All declarations of a folder of bnengine/fused, in the order of its modules."""
    found = list[Declaration]()
    for name in MODULES:
        for value in vars(import_module(f"bnengine.fused.{folder}.{name}")).values():
            values = value.values() if isinstance(value, dict) else [value]
            found += [kernel for kernel in values if isinstance(kernel, Declaration)]
    return found


def text(folder: str) -> str:
    """The header of a folder."""
    if folder == "cpu":
        return CPU_BEGIN + "\n\n".join(map(_structure, kernels("cpu"))) + CPU_END
    return CUDA_BEGIN + "\n".join(map(_macros, kernels("cuda")))


# -- C++: a struct for each kernel, whose members are read from the launch


def _structure(kernel: Declaration) -> str:
    lines, place = list[str](), 0
    lists = [a for arguments in kernel.arguments.values() for a in arguments if a.members is not None]
    if lists:
        counts = (f"k{_title(a.name)} = {len(a.members or ())}" for a in lists)
        lines.append(f"  static constexpr int {', '.join(counts)};")
    for section in ("whole", "channels", "reads", "writes"):
        for argument in kernel.arguments[section]:
            of = f"{'' if section == 'writes' else 'const '}{argument.type or 'T'}* "
            lines.append(f"  {of}{_member(argument, 'array', place)};")
            place += len(argument.names)
    place = 0
    for section, kind, reader in (
        ("integers", "index", "integer"),
        ("flags", "bool", "flag"),
        ("ranges", "Ranges", "ranges"),
        ("reals", "double", "real"),
    ):
        place = 0 if section == "reals" else place
        members = list[str]()
        for argument in kernel.arguments[section]:
            members.append(_member(argument, reader, place))
            place += len(argument.names)
        if members:
            lines += textwrap.wrap(
                f"{kind} {', '.join(members)};", WIDTH, initial_indent="  ", subsequent_indent="      "
            )
    template = ["template <class T>"] if kernel.typed else []
    return "\n".join([*template, f"struct {_title(kernel.name)} : Given {{", "  using Given::Given;", *lines, "};"])


def _title(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _member(argument: Argument, reader: str, place: int) -> str:
    if argument.members is None:
        return f"{argument.name} = {reader}({place})"
    values = ", ".join(f"{reader}({place + i})" for i in range(len(argument.members)))
    return f"{argument.name}[{max(1, len(argument.members))}] = {{{values}}}"


# -- CUDA: a macro for each kernel, with its parameters in the order in which a launch passes them


def _macros(kernel: Declaration) -> str:
    assert isinstance(kernel, cuda.Kernel)
    types = {"": f"{kernel.element}", "wide": "Arithmetic<T>"}
    parameters, lists = list[str](), list[str]()
    for section, argument in _in_order(kernel):
        if section in ARRAYS:
            const = "" if section in ("writes", "scratch") else "const "
            kind = f"{const}{types.get(argument.type, argument.type)}*"
        else:
            kind = {"counters": "unsigned*", "integers": "index", "reals": "double", "flags": "bool"}[section]
        parameters += [f"{kind}{JOINED}{name}".replace(" ", JOINED) for name in argument.names]
        if argument.members is not None:
            members = "".join(f" {name}," for name in argument.members)
            lists.append(f"#define {argument.name.upper()}_{kernel.name}{members}\n")
    wrapped = textwrap.wrap(", ".join(parameters), WIDTH - 4, break_long_words=False)
    lines = " \\\n".join([f"#define PARAMETERS_{kernel.name}", *(f"  {line.replace(JOINED, ' ')}" for line in wrapped)])
    return "".join([f"{lines}\n", *lists])


def _in_order(kernel: Declaration) -> Iterator[tuple[str, Argument]]:
    for section in (*ARRAYS, "counters", "integers", "reals", "flags"):
        yield from ((section, argument) for argument in kernel.arguments[section])


if __name__ == "__main__":
    for folder, header in HEADERS.items():
        header.write_text(text(folder), encoding="utf-8")

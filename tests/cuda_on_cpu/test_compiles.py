"""Kernels compile for every architecture without a GPU: no spills, few registers, 16 bytes at a time."""

import json
import re
from pathlib import Path

import pytest

from bnengine.ops.activations import ACTIVATIONS
from bnengine.ops.update import RULES
from tests.cuda_on_cpu.instances import INSTANCES
from tests.cuda_on_cpu.nvrtc import Compiled, compile_kernels, disassemble, toolkit
from tests.cuda_on_cpu.source import CUDA

proof = pytest.mark.cuda_proof
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
SAMPLED = (75, 90, 120)  # every_instance compiles for all of them
EVERYWHERE = 255  # what the hardware has: one block of 256 threads fits with any number
# Registers of a thread, by kernel: 128 let two blocks share a multiprocessor, 80 three. A block that keeps its slice on
# the chip is alone there anyway.
CEILINGS = {
    **dict.fromkeys(("moments", "normalize", "batch_norm_sums", "batch_norm_backward"), 128),
    **dict.fromkeys(("batch_norm", "batch_norm_gradients"), EVERYWHERE),
    **dict.fromkeys(("commit", "merge_statistics", "check_step", "average", "add_epoch_sums", "count_step"), 64),
    **dict.fromkeys(RULES, 80),
    **dict.fromkeys(("bias_activation", "bias_activation_backward", "dropout", "dropout_backward"), 80),
    **dict.fromkeys(("activation", "activation_backward", "softmax_cross_entropy"), 128),
    **dict.fromkeys(("elementwise_loss", "correct"), 80),
    **dict.fromkeys(("total", "cast", "gather"), 64),
}
READS_WIDE = re.compile(r"LDG\.E(\.EF)?\.128")  # EF: the cache may give it up first
WIDE = re.compile(r"<(float, 4|__half, 8|__nv_bfloat16, 8|double, 2)")
HEAVY_LOGITS = tuple(f"bnengine::softmax_cross_entropy<{t}" for t in ("__half, 8", "__nv_bfloat16, 8", "double"))
OF_INPUT = re.compile("::({})>".format("|".join(kind for kind, rule in ACTIVATIONS.items() if rule.reads == "z")))
NO_WIDE_STORE = ("moments", "batch_norm_sums", "check_step")  # their results are one per channel, or one


def kernel_of(name: str) -> str:
    return re.split("[:<]", name.removeprefix("bnengine::"))[0]


def ceiling(name: str) -> int:
    """A derivative of z takes more registers, and so do 8 logits at once, or doubles."""
    kernel = kernel_of(name)
    differentiates = kernel.startswith("batch_norm") and bool(OF_INPUT.search(name))
    return EVERYWHERE if differentiates or name.startswith(HEAVY_LOGITS) else CEILINGS[kernel]


def chosen(file: str) -> tuple[str, ...]:
    """Wide instances in float32 and bfloat16, with the lightest and the heaviest variant of each."""
    return tuple(
        name
        for name in INSTANCES[file]
        if (re.search("<(float, 4|__nv_bfloat16, 8)", name) or "<" not in name)
        and ("Activation" not in name or "::relu>" in name or OF_INPUT.search(name))
        and ("softmax" not in name or re.search("32, long long|256, (float|__nv)", name))
    )


def complaint(name: str, compiled: Compiled) -> str:
    """What of an instance is beyond what it may be, "" for nothing."""
    fine = compiled.spilled == 0 and compiled.registers <= ceiling(name) and compiled.shared <= 48 * 1024
    return "" if fine else f"{compiled}; allowed are {ceiling(name)} registers, no spilled byte, 48 KiB"


def check(file: str, names: tuple[str, ...], architecture: int) -> None:
    for name, compiled in compile_kernels(file, names, architecture).kernels.items():
        assert not complaint(name, compiled), f"sm_{architecture}, {name}: {complaint(name, compiled)}"


@proof
@pytest.mark.parametrize("architecture", SAMPLED)
@pytest.mark.parametrize("file", INSTANCES)
def test_kernels_compile_without_spills(file, architecture):
    check(file, chosen(file), architecture)


@proof
@pytest.mark.parametrize("architecture", [80, 90, 100])
@pytest.mark.parametrize("file", INSTANCES)
def test_wide_instances_read_and_write_16_bytes_at_a_time(file, architecture, tmp_path):
    code = disassemble(compile_kernels(file, chosen(file), architecture), tmp_path)
    wide = {name: text for name, text in code.items() if WIDE.search(name)}
    assert wide
    for name, text in wide.items():
        assert READS_WIDE.search(text), f"sm_{architecture}, {name}: no 16-byte load"
        if kernel_of(name) not in NO_WIDE_STORE:
            assert "STG.E.128" in text, f"sm_{architecture}, {name}: no 16-byte store"


def test_every_kernel_has_a_ceiling_and_every_file_instances():
    assert {kernel_of(name) for names in INSTANCES.values() for name in names} == CEILINGS.keys()
    assert {path.name for path in CUDA.glob("*.cu")} == INSTANCES.keys()
    for path in CUDA.glob("*.cu"):
        text = path.read_text().replace("\\\n", "\n")
        kernels = set(re.findall(r"__global__ void(?:\s+__launch_bounds__\(.*\))?\s+(\w+)\(", text))
        rules = RULES.keys() if "OP" in kernels else set()  # the kernel of every optimizer
        assert kernels - {"OP"} | rules == {kernel_of(name) for name in INSTANCES[path.name]}


def test_what_is_beyond_its_limits_is_told():
    name = "bnengine::check_step<float, 4>"
    assert complaint(name, Compiled(64, 0, 48 * 1024)) == ""
    for spoilt in (Compiled(65, 0, 0), Compiled(20, 8, 0), Compiled(20, 0, 48 * 1024 + 1)):
        assert complaint(name, spoilt) == f"{spoilt}; allowed are 64 registers, no spilled byte, 48 KiB"


def test_the_record_of_instances_is_whole_and_without_spills():
    """What `python -m tests.cuda_on_cpu.every_instance` wrote; it says itself of which sources."""
    record = json.loads((CUDA.parents[1] / "tests" / "cuda_on_cpu" / "compiled.json").read_text(encoding="utf-8"))
    assert record["kernels"].keys() == {f"sm_{a}" for a in ARCHITECTURES}
    assert record["sources"].keys() == INSTANCES.keys()
    for kernels in record["kernels"].values():
        assert kernels.keys() == CEILINGS.keys()
        assert all(entry["spilled"] == 0 and entry["registers"] <= EVERYWHERE for entry in kernels.values())


@proof
def test_the_headers_that_are_compiled_with_are_found():
    assert isinstance(toolkit(), Path)

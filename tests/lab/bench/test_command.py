"""`bnengine bench` as a user calls it."""

import io
import json
import sys
from types import SimpleNamespace

import pytest

from bnengine.cli import bench as module
from bnengine.cli import main
from bnengine.cli.bench_tables import scaled
from bnengine.lab.bench import WORKLOADS, CpuReport, NotRun, Report
from bnengine.lab.bench.cases import COPY, EAGER, JAX, OURS, REFERENCE, Case
from bnengine.lab.bench.measure import Measured
from bnengine.lab.bench.report import cpu_rows
from tests.support import require

ENVIRONMENT = {
    "bnengine": "1.2.3", "python": "3.12.1", "backend": "cupy", "measured_on": "GPU", "device": "NVIDIA H200",
    "driver": 13000, "processor": "a CPU", "machine": "x86_64", "peers": {"torch": "2.11.0"},
    "warnings": ["OPENBLAS_CORETYPE=Haswell is set"],
}  # fmt: skip
CPU = {
    "bnengine": "1.2.3", "python": "3.12.1", "numpy": "2.4.0", "peers": {"torch": "2.13.0", "jax": None}, "isa": "v4",
    "processor": "a CPU", "machine": "x86_64", "threads": 2, "usable_cores": 4, "kernels": "built",
}  # fmt: skip


def spread(median):
    return {"median": median, "low": 0.9 * median, "high": 1.1 * median, "rounds": 21}


def report():
    norm = {
        "kind": "kernel", "what": "batch norm (65536, 1024)", "variant": "float32", "name": "bnengine", "unit": "bytes",
        "seconds": spread(6e-4), "rate": 3.58e12, "share": 0.87, "ratio": spread(1.25),
        "peer": {"name": "PyTorch", "void": None}, "void": None,
    }  # fmt: skip
    step = {"kind": "step", "what": "64-100-100-10", "variant": "highest", "launches": None, "void": None,
            "floor_seconds": 1e-7, "seconds": None, "host_seconds": None, "ratio": None,
            "loss": {"first": 2.6, "step": 20, "loss": 2.3081, "difference": 1e-7, "bound": 1e-6}}  # fmt: skip
    graph = {"name": "bnengine graph", "seconds": spread(31e-6), "host_seconds": spread(4e-6), "launches": 23}
    rows = [
        norm, norm | {"what": "another op", "void": "MemoryError: no room"}, step | graph,
        step | {"name": "PyTorch eager", "seconds": spread(4e-4), "ratio": spread(12.9)},
        step | {"name": "PyTorch compile", "void": "at step 3 the loss is 2", "loss": {**step["loss"], "loss": 2.0}},
    ]  # fmt: skip
    made = Report(ENVIRONMENT, None, rows, not_run=[NotRun("steps of x", "no time was left")])
    made.copy_bandwidth = {"bytes_per_second": 4.12e12}
    made.gemm_rate = {"flops": {"highest": 5.1e13, "tf32": 4e14, "bfloat16": None}}
    return made


def cpu_report():
    roles = (OURS, REFERENCE, COPY, EAGER, JAX)
    times = {OURS: [2e-5], REFERENCE: [9e-5], COPY: [1e-5], EAGER: [1e-4]}
    measured = Measured(times, {JAX: "ModuleNotFoundError: No module named 'jax'"}, {}, 3, 1)
    timed = Case("batch norm (8, 4)", "kernel", roles, {}, COPY, best_peer=0.5, by_floor=1.25, places={"width": 4})
    lost = Case("step x", "step", (OURS,), {}, best_peer=0.5)
    found = cpu_rows(timed, measured, CPU) + cpu_rows(lost, Measured(void={OURS: "no room"}), CPU)
    return CpuReport(CPU, rows=found)


@pytest.fixture
def call(monkeypatch, capsys):
    """The command with a report made beforehand: (exit code, standard output, standard error, options of `bench`)."""

    def run(*arguments, found=None):
        given = []

        def bench(*args, **options):
            given.append((args, options))
            return found or report()

        monkeypatch.setattr(module, "bench", bench)
        with pytest.raises(SystemExit) as end:
            main(["bench", *arguments])
        return end.value.code or 0, *capsys.readouterr(), given

    return run


def ended(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["bench", *arguments])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    return err


GPU_LINES = """\
bnengine 1.2.3, Python 3.12.1, cupy, PyTorch 2.11.0
GPU: NVIDIA H200, CUDA driver 13000
copies 4.12 TB/s; multiplies 51 TFLOP/s (highest), 400 TFLOP/s (tf32)
warning: OPENBLAS_CORETYPE=Haswell is set

op dtype time rate share PyTorch / ours
batch norm (65536, 1024) float32 600 µs 3.58 TB/s 87% 1.25 (1.12 to 1.38)
another op float32 void

workload precision step time floor host launches theirs / ours loss at step 20
64-100-100-10 highest bnengine graph 31 µs 100 ns 4 µs 23 2.3081
64-100-100-10 highest PyTorch eager 400 µs 100 ns 12.90 (11.61 to 14.19) 2.3081
64-100-100-10 highest PyTorch compile void 2

void
another op, float32, bnengine: MemoryError: no room
64-100-100-10, highest, PyTorch compile: at step 3 the loss is 2

targets
reached: batch norm (65536, 1024), float32: share 87%, at least 85%
MISSED: batch norm (65536, 1024), float32, PyTorch: ratio 1.25, at least 1.30
reached: 64-100-100-10, highest, PyTorch eager: ratio 12.90, at least 5.00
reached: 64-100-100-10, highest: host time 4 µs, at most 10 µs

19 of 23 targets (for an H200) were not measured

not run
steps of x: no time was left""".splitlines()
CPU_LINES = """\
bnengine 1.2.3, Python 3.12.1, NumPy 2.4.0, torch 2.13.0
CPU: a CPU, 2 of 4 cores, instruction set v4

what ours references floor best peer ours / theirs ours / floor
batch norm (8, 4) 20 µs 90 µs 10 µs 100 µs PyTorch eager 0.200 2.000
step x void

repeated, because other programs took the cores: 3 timings
warning: 1 timings stayed disturbed; repeat the run while the machine is idle

void
batch norm (8, 4), JAX jit: ModuleNotFoundError: No module named 'jax'
step x, bnengine: no room

targets
reached: batch norm (8, 4): 0.2 of the best peer's time, at most 0.5
MISSED: batch norm (8, 4): 2 of the floor, at most 1.25

1 of 3 targets were not measured""".splitlines()


@pytest.mark.parametrize(("found", "lines"), [(report(), GPU_LINES), (cpu_report(), CPU_LINES)], ids=["GPU", "CPU"])
def test_machine_tables_reasons_and_targets_are_printed(call, found, lines):
    code, out, err, _ = call(found=found)
    assert (code, err) == (0, "")
    assert [" ".join(line.split()) for line in out.splitlines()] == lines


@pytest.mark.parametrize("found", [report(), cpu_report()], ids=["GPU", "CPU"])
def test_a_dash_prints_one_json_object_and_nothing_else(call, found):
    code, out, err, given = call("--json", "-", found=found)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert json.loads(out) == json.loads(json.dumps(found.to_json()))
    assert given[0][1]["path"] is None


def test_on_a_terminal_the_parts_are_told(call, monkeypatch):
    monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda: True))
    *_, ((_, options),) = call()
    monkeypatch.setattr("sys.stderr", screen := io.StringIO())
    options["say"]("batch norm")
    assert screen.getvalue() == "bench: batch norm\n"


def test_options_reach_the_benchmark(call):
    _, _, _, (((backend,), options),) = call()
    assert options.pop("say")("a case") is backend is None
    assert options == {
        "only": None, "workloads": WORKLOADS, "precisions": (), "peers": True, "quick": False, "deadline": 600.0,
        "threads": None, "path": None, "sweep": False, "scale": 1,
    }  # fmt: skip
    arguments = "--backend cupy:1 --only steps --workload 784-512-512-10 --precision tf32 --without-peers --quick"
    *_, (((backend,), options),) = call(*arguments.split(), "--deadline", "90", "--scale", "64", "--threads", "2")
    del options["say"]
    assert (backend, options) == ("cupy:1", {
        "only": "steps", "workloads": (WORKLOADS[1],), "precisions": ("tf32",), "peers": False, "quick": True,
        "deadline": 90.0, "threads": 2, "path": None, "sweep": False, "scale": 64,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--workload 64-100", "bench: Invalid value for '--workload': '64-100' is not one of '64-100-100-10', "),
        ("--precision fp8", "bench: Invalid value for '--precision': 'fp8' is not one of 'highest', 'tf32', "),
        ("--only ops", "bench: Invalid value for '--only'"),
        *((f"{name} 0", f"bench: Invalid value for '{name}'") for name in ("--deadline", "--scale", "--threads")),
        ("more", "bench: Got unexpected extra argument"),
        ("--backend numpy --precision tf32", "bench: less precision than float32 is for a GPU"),
        ("--backend numpy --threads 100000", "bench: --threads 100000, but this process may use "),
        (
            "--backend numpy --json missing/f.json",
            "bench: missing/f.json cannot be written (No such file or directory)",
        ),
        ("--backend numpi", "get_backend: the backend must be one of"),
    ],
)
def test_a_mistake_in_the_options_ends_with_2_before_anything_is_measured(capsys, arguments, message):
    assert ended(capsys, *arguments.split()).startswith(message)


@pytest.mark.parametrize("option", ["--threads 2", "--plot f.png", "--only predictions"])
def test_what_a_gpu_cannot_do_ends_with_2(capsys, monkeypatch, option):
    if "plot" in option:
        require("matplotlib")
    monkeypatch.setattr("bnengine.lab.bench.run.get_backend", lambda _name: SimpleNamespace(name="cupy", on_gpu=True))
    assert ended(capsys, *option.split()).startswith("bench: --threads, --plot and --only predictions are for a CPU")


def test_a_plot_is_drawn_of_steps(monkeypatch, call, capsys, tmp_path):
    require("matplotlib")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib.figure", None)
        message = ended(capsys, "--plot", "f.png")
        assert message.startswith("bench: --plot: matplotlib cannot be imported")
        assert "pip install 'bnengine[plot]'" in message
    assert ended(capsys, "--plot", "f.png", "--only", "kernels").startswith("bench: --plot draws training steps, which")
    picture = tmp_path / "figures.png"
    code, _, _, ((_, options),) = call("--backend", "numpy", "--plot", str(picture), found=cpu_report())
    assert (code, options["sweep"]) == (0, True)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("value", "message"),
    {4.21e12: "4.21 TB", 1234.0: "1.23 kB", 31e-6: "31 µB", 1.0: "1 B", 0.0: "0 B", 2e-11: "0.02 nB"}.items(),
)
def test_numbers_are_told_with_their_prefix(value, message):
    assert scaled(value, "B") == message

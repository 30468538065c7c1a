"""Every op through its launcher on the simulated device: within its bound of the exact result, and of the reference."""

from typing import Any

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.fused.cuda import cublaslt_api
from bnengine.ops import REGISTRY, Example, Out, using
from bnengine.ops.update import RULES
from bnengine.runtime.memory import Arena, Memory
from tests.cuda_on_cpu.cases import Case, fields
from tests.cuda_on_cpu.launch import Path
from tests.cuda_on_cpu.storage import DOUBLE, FLOAT, Storage

NAMES = sorted(REGISTRY.keys() - {"gather_raw"})  # which reads the host's memory


def run(device: Any, name: str, args: Any, options: Any, into: Any = None, memory: Memory | None = None) -> Any:
    """The outputs of the fused version, by name, on the host."""
    given = [upload(device, a) for a in args]
    options = {key: upload(device, value) for key, value in options.items()}
    with using("fused"):
        op = REGISTRY[name]
        result = op(*given, memory=memory or Memory(), into=into, **options)
    return fields(op, device.off_device(result))


def upload(device: Any, value: Any) -> Any:
    return device.on_device(value) if isinstance(value, np.ndarray) else value


def examples(name: str, storage: Storage) -> Any:
    return REGISTRY[name].contract.examples(np.random.default_rng(0), storage.arithmetic.name)


@pytest.mark.parametrize("storage", [FLOAT, DOUBLE], ids=lambda s: s.name)
@pytest.mark.parametrize("name", NAMES)
def test_every_example_is_within_the_bound_of_the_op_and_of_its_reference(name, storage, device):
    for example in examples(name, storage):
        got = run(device, name, example.args, example.options)
        Case(name, Path(storage, 1), example).check_with_reference(got, example)


@pytest.mark.parametrize("name", NAMES)
def test_where_subnormal_numbers_are_taken_for_0_every_example_is_within_the_bound_still(name, simulated):
    """As on a GPU: CuPy compiles with -ftz=true, whatever options it is given."""
    simulated.STATE.flush = True
    for example in examples(name, FLOAT):
        Case(name, Path(FLOAT, 1), example).check_all(run(simulated, name, example.args, example.options))


def in_rows_of(width: int) -> Any:
    """Examples with wide rows, so that 16 bytes are read at once and more than one block has work."""
    rng = np.random.default_rng(3)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    rows = 700 if width < 100 else 130  # wide ones have slices enough for the device: their rows are not split
    x, dy, gamma, beta = draw(rows, width) * 2 + 30, draw(rows, width), draw(width), draw(width)
    moments = REGISTRY["moments"].reference(x).batch
    options = {"activation": "relu"}
    y = REGISTRY["normalize"].reference(x, moments, gamma, beta, **options)
    yield "moments", Example("wide", (x,))
    yield "normalize", Example("wide", (x, moments, gamma, beta), options)
    yield "batch_norm", Example("wide", (x, gamma, beta), options)
    yield "normalize_backward", Example("wide", (dy, x, y, moments, gamma, beta), options)
    z = REGISTRY["activation"].reference(dy, kind="tanh")
    W = draw(width, 20)
    yield "affine", Example("wide", (dy, W, draw(20)), {"activation": "sigmoid"})
    yield "affine_backward", Example("wide", (draw(rows, width), draw(rows, 20), W.T, z), {"activation": "tanh"})
    yield "activation_backward", Example("wide", (dy, x, y), {"kind": "relu"})
    codes = rng.integers(0, width, rows).astype(np.int32)
    yield "softmax_cross_entropy", Example("wide", (dy, codes), {"divisor": float(rows), "label_smoothing": 0.1})
    yield "correct", Example("wide", (dy, codes))
    keys = (np.asarray([5]), rng.integers(0, 10**6, rows))
    yield "dropout", Example("wide", (dy, *keys), {"seed": 1, "layer": 0, "rate": 0.4})
    yield "check_step", Example("wide", (draw(1), dy.reshape(-1), np.ones((2, 3, width))), {"clip": 1.0})


@pytest.mark.parametrize("width", [37, 64, 700])
def test_many_rows_narrow_and_wide_are_within_the_bound(width, device):
    for name, example in in_rows_of(width):
        Case(name, Path(FLOAT, 1), example).check_all(run(device, name, example.args, example.options))


@pytest.mark.parametrize("schedule", ["reverse", "shuffled"])
def test_the_order_of_threads_changes_no_bit(schedule, simulated):
    for name, example in in_rows_of(64):
        simulated.STATE.schedule = "forward"
        expected = run(simulated, name, example.args, example.options)
        simulated.STATE.schedule = schedule
        for field, got in run(simulated, name, example.args, example.options).items():
            assert got is expected[field] is None or got.tobytes() == expected[field].tobytes(), (name, field)


@pytest.mark.parametrize("name", [n for n in NAMES if REGISTRY[n].accumulates])
def test_a_destination_is_written_or_added_to(name, device):
    op = REGISTRY[name]
    for example in examples(name, FLOAT):
        plain = run(device, name, example.args, example.options)
        for field, rule in op.accumulates.items():
            if plain[field] is None:
                continue
            before = np.abs(np.random.default_rng(1).standard_normal(plain[field].shape)) + 1
            before = before.astype(plain[field].dtype)
            for adds in (False, True):
                target = device.on_device(before)
                got = run(device, name, example.args, example.options, {field: Out(target, adds)})
                written = target.get()
                assert got[field].tobytes() == written.tobytes()
                with np.errstate(all="ignore"):
                    expected = rule(before, plain[field]) if adds else plain[field]
                unit = 2.0**-52 if written.dtype == np.float64 else 2.0**-22
                np.testing.assert_allclose(written, expected, rtol=4 * unit, atol=4 * unit)
                for other, value in plain.items():
                    assert other == field or value is None or got[other].tobytes() == value.tobytes()


def test_without_cublaslt_products_are_cupy_s_own_and_the_launch_says_so(simulated, monkeypatch):
    monkeypatch.setattr(cublaslt_api, "load", lambda: cublaslt_api.Refusal("there is none"))
    for name in ("affine", "affine_backward"):
        for example in examples(name, FLOAT):
            case, targets = Case(name, Path(FLOAT, 1), example), {}
            for field in REGISTRY[name].accumulates:
                if case.expected[field] is not None:
                    targets[field] = Out(
                        simulated.on_device(np.ones(case.expected[field].shape, np.float32)), adds=True
                    )
            memory = Arena("fused")
            with memory.recording([]) as plan, monkeypatch.context() as patched:
                patched.setattr(plan, "own", lambda *_: None)
                patched.setattr(plan, "unwritten", lambda _launch: None)
                patched.setattr(plan, "record", plan.launches.append)
                got = run(simulated, name, example.args, example.options, targets, memory)
            for field, value in got.items():
                if value is not None:
                    added = np.float64(value) - (1 if field in targets else 0)
                    case.bound[field] = case.bound[field] + 4 * FLOAT.unit * (1 + np.abs(value))
                    case.check(field, added)
            products = [launch.kernel for launch in plan.launches if not getattr(launch.kernel, "capturable", True)]
            assert products
            assert {kernel.__name__ for kernel in products} == {"cupy.matmul (there is none)"}
    assert not simulated.STATE.model.streams


def test_products_run_on_cublaslt_in_the_workspace_of_the_stream(simulated, rng):
    x, W, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((40, 12), (12, 8), (8,)))
    run(simulated, "affine", (x, W, b), {})
    assert not simulated.STATE.launches  # the bias went with the product
    run(simulated, "affine_backward", (x[:, :8].copy(), x, W, x[:, :8].copy()), {})
    ((address, size, stream),) = set(simulated.STATE.model.streams)
    assert len(simulated.STATE.model.streams) == 3
    assert (address % 256, size, stream) == (0, 32 << 20, 0)


# The simulated device has 3 multiprocessors, which 6 blocks fill, and 99 KiB of shared memory for each; 16 are the
# kernel's own. A slice is 32 channels of float32: 128 bytes a row of x, as many of dz on the way back.
THERE, BACK = ["batch_norm"], ["batch_norm_gradients"]
APART, BACK_APART = ["moments", "normalize"], ["batch_norm_sums", "batch_norm_backward"]


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "kernels"),
    [
        ("batch_norm", (664, 64), "float32", THERE),
        ("batch_norm", (665, 64), "float32", APART),
        ("normalize_backward", (332, 64), "float32", BACK),
        ("normalize_backward", (333, 64), "float32", BACK_APART),
        # One slice, of which every row is a read of its own and 64 are a round of them: three rounds, or more.
        ("batch_norm", (192, 9), "float32", THERE),
        ("batch_norm", (193, 9), "float32", APART),
        ("normalize_backward", (192, 9), "float32", BACK),
        ("normalize_backward", (193, 9), "float32", BACK_APART),
        # Seven slices fill the device without a split.
        ("batch_norm", (300, 32 * 6 + 1), "float32", THERE),
        ("batch_norm", (16, 8), "float64", THERE),
    ],
)
def test_one_launch_does_it_all_where_the_slices_fit_and_fill_the_device_or_are_short(
    name, shape, dtype, kernels, simulated, rng
):
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    gamma, beta = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    statistics = REGISTRY["moments"].reference(x).batch
    args = (x, gamma, beta) if name == "batch_norm" else (dy, x, dy, statistics, gamma, beta)
    options = {"activation": "relu"}
    case = Case(name, Path(DOUBLE if dtype == "float64" else FLOAT, 1), Example("at the decay_end", args, options))
    outputs = {}
    for schedule in ("forward", "reverse", "shuffled"):
        simulated.STATE.schedule, simulated.STATE.launches = schedule, []
        outputs[schedule] = {f: a for f, a in run(simulated, name, args, options).items() if a is not None}
        assert [
            launched.removeprefix("bnengine::").partition("<")[0] for launched in simulated.STATE.launches
        ] == kernels
    for field, got in outputs["forward"].items():
        case.check(field, got)
        assert got.tobytes() == outputs["reverse"][field].tobytes() == outputs["shuffled"][field].tobytes()


@pytest.mark.parametrize("rows", [50, 700])
def test_a_proposal_is_merged_into_columns_of_a_larger_buffer_by_one_launch_and_by_two(rows, simulated, rng):
    x = rng.standard_normal((rows, 8)).astype(np.float32)
    own = run(simulated, "batch_norm", (x, None, None), {})
    before = np.abs(rng.standard_normal((3, 30))) + 1
    for adds in (False, True):
        buffer = simulated.on_device(before)
        got = run(simulated, "batch_norm", (x, None, None), {}, {"pending": Out(buffer[:, 8:16], adds)})
        for field in ("y", "batch"):
            assert got[field].tobytes() == own[field].tobytes()
        expected = REGISTRY["merge"].reference(before[:, 8:16], own["batch"]) if adds else own["batch"]
        np.testing.assert_allclose(buffer.get()[:, 8:16], expected, rtol=1e-14)
        np.testing.assert_array_equal(
            np.delete(buffer.get(), range(8, 16), axis=1), np.delete(before, range(8, 16), axis=1)
        )


def test_statistics_may_be_columns_of_a_larger_buffer(device, rng):
    x = rng.standard_normal((20, 8)).astype(np.float32)
    buffer = device.on_device(np.full((3, 30), 7.0))
    own = run(device, "moments", (x,), {})
    run(device, "moments", (x,), {}, {"pending": Out(buffer[:, 8:16])})
    np.testing.assert_array_equal(buffer.get()[:, 8:16], own["batch"])
    assert np.all(np.delete(buffer.get(), range(8, 16), axis=1) == 7)
    with using("fused"):
        y = REGISTRY["normalize"](device.on_device(x), buffer[:, 8:16], None, None)
    np.testing.assert_array_equal(y.get(), run(device, "normalize", (x, own["batch"], None, None), {})["out"])


@pytest.mark.parametrize("name", NAMES)
def test_arrays_off_sixteen_bytes_give_the_same_as_others(name, device):
    for example in examples(name, FLOAT):
        case = Case(name, Path(FLOAT, 1), example)
        arrays = [i for i, a in enumerate(example.args) if isinstance(a, np.ndarray)]
        options = {key: upload(device, value) for key, value in example.options.items()}
        for moved in (arrays, *([i] for i in arrays)):
            args = [shifted(device, a) if i in moved else upload(device, a) for i, a in enumerate(example.args)]
            with using("fused"):
                result = REGISTRY[name](*args, memory=Memory(), **options)
            case.check_all(fields(REGISTRY[name], device.off_device(result)))


def test_other_ranges_are_frozen_in_another_call(device):
    example = next(iter(examples("sgd", FLOAT)))
    for begin in (3, 11):
        options = {**example.options, "frozen": ((begin, begin + 5),)}
        new = run(device, "sgd", example.args, options)["parameters"]
        assert np.flatnonzero(new == example.args[0]).tolist() == list(range(begin, begin + 5))


@pytest.mark.parametrize("name", RULES)
def test_behind_the_end_of_the_table_its_last_row_stays(name, device):
    example = next(iter(examples(name, FLOAT)))
    args = list(example.args)
    args[-4], args[-3] = args[-4] * np.float32([[1], [2], [3]]), np.asarray([9, 7, 0, 0, 0])
    case = Case(name, Path(FLOAT, 1), Example("behind the end", tuple(args), example.options))
    table = device.on_device(np.concatenate([args[-4], np.full_like(args[-4], np.nan)]))[:3]  # nothing lies behind it
    given = [table if i == len(args) - 4 else upload(device, a) for i, a in enumerate(args)]
    with using("fused"):
        result = REGISTRY[name](*given, memory=Memory(), **example.options)
    case.check("parameters", device.off_device(result).parameters)


def shifted(device: Any, a: np.ndarray) -> Any:
    """The same array one element further on."""
    memory = device.fresh((a.size + 1,), a.dtype)
    memory[1:] = device.on_device(np.ascontiguousarray(a).reshape(-1))
    return memory[1:].reshape(*a.shape)


def test_arrays_of_other_layouts_and_dtypes_are_brought_into_the_kernel_s(device, rng):
    x, codes = rng.standard_normal((40, 12)).astype(np.float32), rng.integers(0, 12, 40)
    options = {"divisor": 40.0}
    expected = run(device, "softmax_cross_entropy", (x, codes), options)
    with using("fused"):
        turned = device.on_device(np.ascontiguousarray(x.T)).T
        for kind in ("u1", "i2", "i4"):
            got = REGISTRY["softmax_cross_entropy"](turned, device.on_device(codes.astype(kind)), **options)
            assert got.dlogits.get().tobytes() == expected["dlogits"].tobytes()
            assert got.value.get().tobytes() == expected["value"].tobytes()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.zeros((3, 4), np.float32), r"the destination of 'out' is \(3, 4\), the output is \(4, 3\)"),
        (np.zeros((4, 3), np.float64), r"the destination of 'out' is float64 .* contiguous float32"),
    ],
)
def test_a_destination_that_does_not_fit_is_refused(target, message, device):
    a = device.on_device(np.ones((4, 3), np.float32))
    with using("fused"), pytest.raises(InputError, match=message):
        REGISTRY["total"](a, a, into={"out": Out(device.on_device(target))})


@pytest.mark.parametrize("name", NAMES)
def test_every_output_of_every_launcher_refuses_a_destination_that_does_not_fit(name, simulated):
    checked, op = set(), REGISTRY[name]
    for example in (
        e for dtype in ("float32", "float16") for e in op.contract.examples(np.random.default_rng(0), dtype)
    ):
        for field, value in run(simulated, name, example.args, example.options).items():
            if value is None or field in checked:
                continue
            checked.add(field)
            other = np.int16 if value.dtype.kind != "f" else np.float32 if value.dtype == np.float64 else np.float64
            for wrong in (np.ones((2, *value.shape), value.dtype), np.ones(value.shape, other)):
                target = simulated.on_device(wrong)
                with pytest.raises(InputError, match=f"the destination of '{field}' is "):
                    run(simulated, name, example.args, example.options, {field: Out(target)})
                assert target.get().tobytes() == wrong.tobytes()
    assert checked == set(op.fields)


def test_a_destination_of_an_output_that_a_call_does_not_have_is_refused(device, rng):
    x = device.on_device(rng.standard_normal((4, 3)).astype(np.float32))
    statistics = device.on_device(np.ones((3, 3)))
    for field in ("dgamma", "dbeta", "dadd"):
        into = {field: Out(device.on_device(np.ones(3, np.float32)))}
        with using("fused"), pytest.raises(InputError, match=f"no output '{field}'"):
            REGISTRY["normalize_backward"](x, x, x, statistics, None, None, into=into)


@pytest.mark.parametrize("name", RULES)
def test_a_destination_of_a_slot_that_a_variant_lacks_is_refused(name, device):
    example = min(examples(name, FLOAT), key=lambda e: sum(a is not None for a in e.args))
    slots = dict(zip(REGISTRY[name].fields[1:-1], example.args[2:], strict=False))
    for field in (*(slot for slot, a in slots.items() if a is None), "copy16"):
        target = device.on_device(np.ones_like(example.args[0]))
        with pytest.raises(InputError, match=f"no output '{field}'"):
            run(device, name, example.args, example.options, {field: Out(target)})


def test_an_arena_allocates_nothing_the_second_time(device):
    memory = Arena("fused")
    for name, example in in_rows_of(64):
        first = run(device, name, example.args, example.options, memory=memory)
        held = memory.nbytes
        memory.begin()
        memory.poison()
        again = run(device, name, example.args, example.options, memory=memory)
        assert memory.nbytes == held
        assert all(again[f] is a is None or again[f].tobytes() == a.tobytes() for f, a in first.items())
        memory.begin()

"""`bnengine verify` as a user calls it."""

import io
import json
from math import inf

import pytest

from bnengine.cli import main
from bnengine.cli import verify as module
from bnengine.errors import BackendError
from bnengine.lab.verify import Certificate, NotRun, Row


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def call(monkeypatch, capsys):
    """The command with a certificate made beforehand: (exit code, standard output, standard error)."""

    def run(certificate, *arguments):
        given = []

        def verify(*args, **options):
            given.append((args, options))
            if isinstance(certificate, Exception):
                raise certificate
            return certificate

        monkeypatch.setattr(module, "verify", verify)
        with pytest.raises(SystemExit) as end:
            main(["verify", *arguments])
        return end.value.code or 0, *capsys.readouterr(), given

    return run


ENVIRONMENT = {
    "bnengine": "1.2.3",
    "python": "3.12.1",
    "backends": [
        {"name": "numpy", "version": "2.4.6", "device": "cpu", "usable": True},
        {"name": "cupy", "version": None, "device": None, "usable": False},
    ],
    "driver": None,
}
GOOD = Row("op affine: out", "torch float32", "numpy float32", 1e-7, 1e-6, True, "ops", "op affine: out")
NEAR = Row("op total: out", "torch float32", "numpy float32", 9e-7, 1e-6, True, "ops", "op total: out")
BAD = Row(
    "op total: out (plain, element 3: 1 instead of 2)", "torch float32", "numpy float64", 1.0, 1e-6, False, "ops",
    "op total: out",
)  # fmt: skip
NOT_RUN = (NotRun("cupy: references and fused versions on a GPU", "cupy is not installed"),)


def test_agreement_is_one_line(call):
    code, out, err, _ = call(Certificate(True, ENVIRONMENT, (GOOD, NEAR), NOT_RUN))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "bnengine 1.2.3, Python 3.12.1, numpy 2.4.6 on cpu"
    assert lines[2].split() == [word for name in module.HEADER for word in name.split()]
    assert " ".join(lines[3].split()) == "ops (2) torch float32 numpy float32 9e-07 1e-06 yes op total: out"
    assert "  cupy: references and fused versions on a GPU: cupy is not installed" in lines
    assert lines[-1] == "2 comparisons agree"


def test_disagreements_are_shown_in_full(call):
    code, out, _, _ = call(Certificate(False, ENVIRONMENT, (GOOD, BAD), ()))
    assert code == 1
    assert "NO   op total: out" in out
    line = "op total: out (plain, element 3: 1 instead of 2): torch float32 and numpy float64 differ by 1, bound 1e-06"
    assert f"  {line}" in out.splitlines()
    assert out.splitlines()[-1] == f"1 of 2 comparisons disagree: {BAD.what}"
    assert "not run" not in out


def test_an_infinite_error_is_not_printed(call):
    row = Row(
        "op affine (plain: raised OSError: gone)", "cupy float32", "numpy float32", inf, 0.0, False, "ops", "op affine"
    )
    _, out, _, _ = call(Certificate(False, ENVIRONMENT, (row,), ()))
    assert "  op affine (plain: raised OSError: gone): cupy float32 and numpy float32" in out.splitlines()


def test_a_terminal_gets_a_drawn_table_and_progress(call, monkeypatch):
    screen = Terminal()
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr("sys.stderr", screen)
    *_, given = call(Certificate(True, ENVIRONMENT, (GOOD, NEAR), ()))
    ((_, options),) = given
    options["say"]("layers")
    lines = screen.getvalue().splitlines()
    (drawn,) = [line for line in lines if "ops (2)" in line]
    assert [cell.strip() for cell in drawn.split("│")[1:-1]][3:] == ["9e-07", "1e-06", "yes", "op total: out"]
    assert lines[-1] == "verify: layers"


def test_all_lists_every_comparison(call):
    _, out, _, _ = call(Certificate(True, ENVIRONMENT, (GOOD, NEAR), ()), "--all")
    assert out.count("op affine: out") == out.count("op total: out") == 1


def test_json_is_one_object_and_nothing_else(call):
    certificate = Certificate(False, ENVIRONMENT, (GOOD, BAD), NOT_RUN)
    code, out, err, _ = call(certificate, "--json")
    assert (code, err, out.count("\n")) == (1, "", 1)
    assert json.loads(out) == certificate.to_json()


def test_options_reach_the_certificate(call):
    certificate = Certificate(True, ENVIRONMENT, (GOOD,), ())
    *_, given = call(certificate, "--quick", "--seed", "7", "--backend", "torch", "--backend", "cupy:1")
    assert given == [((["torch", "cupy:1"],), {"quick": True, "seed": 7, "say": None})]
    *_, given = call(certificate)
    assert given == [((None,), {"quick": False, "seed": 0, "say": None})]


def test_a_backend_that_cannot_be_used_ends_with_2(call):
    code, out, err, _ = call(BackendError("get_backend: there is no backend 'numpi'"), "--backend", "numpi")
    assert (code, out, err) == (2, "", "get_backend: there is no backend 'numpi'\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--seed -1", "verify: Invalid value for '--seed': -1 is not in the range x>=0."),
        ("--seed x", "verify: Invalid value for '--seed': 'x' is not a valid integer"),
        ("--fast", "verify: No such option"),
        ("more", "verify: Got unexpected extra argument (more)"),
        ("--backend numpi --json", "'numpi'"),
    ],
)
def test_a_mistake_in_the_options_ends_with_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(["verify", *arguments.split()])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert message in err

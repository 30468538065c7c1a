"""Options that say how a device is used: none of them changes a bit."""

from pathlib import Path

import pytest

from tests.cli.conftest import SMALL, Command, tensors


@pytest.mark.parametrize("options", [("--resident", "yes"), ("--resident", "no"), ("--graph", "no")], ids=" ".join)
def test_where_data_lie_and_how_steps_are_replayed_change_no_bit(done: Command, npz: str, options) -> None:
    done("train", npz, *SMALL, "--out", "plain")
    done("train", npz, *SMALL, *options, "--out", "other")
    assert tensors(Path("plain")) == tensors(Path("other"))
    name, value = options
    assert f'{name.removeprefix("--")} = "{value}"' in Path("other/config.toml").read_text()


def test_a_graph_that_the_backend_does_not_have_is_refused_before_anything_is_made(bnengine: Command, npz: str) -> None:
    result = bnengine("train", npz, *SMALL, "--graph", "yes", "--backend", "numpy")
    assert result.code == 2
    assert "train: --graph yes, but the backend numpy has no graphs; take --graph auto" in result.err
    assert not Path("runs").exists()

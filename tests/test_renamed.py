"""Renamed words: files and arguments with old words keep their meaning."""

from pathlib import Path
from typing import Any

import pytest

from bnengine import renamed
from bnengine.optim.optimizers import RMSprop, get_optimizer
from bnengine.renamed import RENAMED, new_word, replace_old_words
from bnengine.storage import checkpoint, runs

FIXTURES = Path(__file__).parent / "baselines" / "fixtures"


def holds(place: str, word: Any) -> dict[str, Any]:
    """A document with a word at a place."""
    for key in reversed(place.split(".")):
        word = {key: word}
    return word


def test_the_format_version_is_that_of_the_newest_word() -> None:
    assert max(row.since for row in RENAMED) == checkpoint.FORMAT_VERSION
    assert all(since in checkpoint.MIGRATIONS for since in range(checkpoint.FORMAT_VERSION))


def test_no_new_word_is_an_old_one_at_the_same_place() -> None:
    old = {(place, row.old) for row in RENAMED for place in row.places}
    assert len(old) == sum(len(row.places) for row in RENAMED)
    assert not old & {(place, row.new) for row in RENAMED for place in row.places}


@pytest.mark.parametrize("row", RENAMED, ids=lambda row: row.old)
def test_each_word_is_replaced_at_its_places_as_a_value_and_as_a_key(row: renamed.Renamed) -> None:
    for place in row.places:
        assert replace_old_words(holds(place, row.old)) == holds(place, row.new)
        assert replace_old_words(holds(place, {row.old: 1})) == holds(place, {row.new: 1})
        assert replace_old_words(holds(place, row.old), since=row.since + 1) == holds(place, row.old)


def test_the_same_word_elsewhere_stays() -> None:
    document = {"preprocessing": {"classes": {"values": ["centre"]}}, "callbacks": {"scaling": "centre"}, "data": 3}
    assert replace_old_words({**document}) == document


def test_a_checkpoint_of_version_1_is_read_with_the_new_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 1)
    for i, row in enumerate(RENAMED):
        checkpoint.write(tmp_path / f"{i}", {}, holds(row.places[0], row.old))
    monkeypatch.undo()
    for i, row in enumerate(RENAMED):
        assert b'\\"version\\":1' in (tmp_path / f"{i}").read_bytes()
        assert checkpoint.read(tmp_path / f"{i}").metadata == holds(row.places[0], row.new)


def test_a_run_of_version_1_is_read_with_the_new_words() -> None:
    model = FIXTURES / "runs" / "images" / "model.safetensors"
    assert b"centre" in model.read_bytes()
    assert checkpoint.read(model).metadata["preprocessing"]["scaling"] == "center"


def test_a_config_with_old_words_is_read_with_the_new_ones(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[data]\nscaling = "centre"\n')
    assert runs.read_config(tmp_path / "config.toml", "train") == {"data": {"scaling": "center"}}


def test_an_old_word_as_an_argument_warns_with_the_new_one_and_the_version() -> None:
    with pytest.warns(DeprecationWarning, match=r"f: scaling 'centre' is now 'center'\. .* until bnengine 0\.4"):
        assert new_word("f", "scaling", "centre") == "center"
    assert new_word("f", "scaling", "center") == "center"
    assert new_word("f", "name", "centre") == "centre"


def test_an_optimizer_takes_the_old_name_of_an_option() -> None:
    with pytest.warns(DeprecationWarning, match="'centred' is now 'centered'"):
        assert RMSprop(centred=True) == RMSprop(centered=True)
    with pytest.warns(DeprecationWarning, match="'centred' is now 'centered'"):
        assert get_optimizer({"name": "rmsprop", "centred": True}) == RMSprop(centered=True)

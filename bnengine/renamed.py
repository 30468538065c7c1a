"""Renamed words: one row each.

Checkpoints and config.toml files of earlier versions hold the old word; they are read as if they held the new one.
Arguments and options accept the old word, with a DeprecationWarning, until `until`.
"""

from typing import Any, NamedTuple
from warnings import warn


class Renamed(NamedTuple):
    """A word that changed its name.

    Attributes:
        old: the earlier word.
        new: the word now.
        places: where files hold it, as dotted paths. At each path is either the word itself, or a table in which the
            word is a key.
        since: the first version of the checkpoint format that holds the new word.
        until: the version of bnengine that no longer accepts the old word as an argument.
    """

    old: str
    new: str
    places: tuple[str, ...]
    since: int
    until: str


RENAMED = (
    Renamed("centre", "center", ("preprocessing.scaling", "data.scaling"), since=2, until="0.4"),
    Renamed("centred", "centered", ("training.optimizer",), since=2, until="0.4"),  # of RMSprop
)


def replace_old_words(document: dict[str, Any], *, since: int | None = None) -> dict[str, Any]:
    """Replace old words by new ones, in place.

    Args:
        document: the metadata of a checkpoint, or the tables of a config.toml.
        since: replace only the words that this version of the checkpoint format introduced; None for all.

    Returns:
        The document.
    """
    for row in RENAMED:
        if since in (None, row.since):
            for place in row.places:
                _replace(document, place.split("."), row)
    return document


def _replace(table: Any, path: list[str], row: Renamed) -> None:
    key, *rest = path
    value = table.get(key) if isinstance(table, dict) else None
    if rest:
        _replace(value, rest, row)
    elif value == row.old:
        table[key] = row.new
    elif isinstance(value, dict) and row.old in value:
        value[row.new] = value.pop(row.old)


def new_word(where: str, name: str, value: Any) -> Any:
    """Return the new word for an argument's value, with a DeprecationWarning if it was an old one.

    Args:
        where: the function or command that the warning begins with.
        name: the argument; the last part of a row's places.
        value: the value that was passed.
    """
    for row in RENAMED:
        if value == row.old and any(place.split(".")[-1] == name for place in row.places):
            warn(
                f"{where}: {name} {row.old!r} is now {row.new!r}. The old name works until bnengine {row.until}.",
                DeprecationWarning,
                stacklevel=3,
            )
            return row.new
    return value

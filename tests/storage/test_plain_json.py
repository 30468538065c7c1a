"""What JSON has no words for becomes null."""

from math import inf, nan

from bnengine.storage.plain_json import dumps, plain


def test_numbers_that_json_lacks_become_none():
    assert plain({"a": [1.0, inf, (nan, 2)], 3: {"b": -inf}}) == {"a": [1.0, None, [None, 2]], "3": {"b": None}}


def test_the_text_is_one_line_of_ascii():
    assert dumps({"Lösung": [1.5, nan], "ok": True}) == '{"L\\u00f6sung": [1.5, null], "ok": true}'

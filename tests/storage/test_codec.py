"""Values that JSON lacks."""

import json
from math import inf, isnan, nan

from bnengine.storage.codec import as_lists, decode, dumps, encode, plain


def test_numbers_that_json_lacks_become_none():
    assert plain({"a": [1.0, inf, (nan, 2)], 3: {"b": -inf}}) == {"a": [1.0, None, [None, 2]], "3": {"b": None}}


def test_the_text_is_one_line_of_ascii():
    assert dumps({"Lösung": [1.5, nan], "ok": True}) == '{"L\\u00f6sung": [1.5, null], "ok": true}'


def test_encoded_values_come_back_from_json():
    value = {"a": [1, (2.5, inf)], "b": {"c": -inf}, "d": nan, "e": None, "f": "x"}
    back = decode(json.loads(json.dumps(encode(value), allow_nan=False)))
    assert isnan(back.pop("d"))
    assert back == {"a": [1, [2.5, inf]], "b": {"c": -inf}, "e": None, "f": "x"}


def test_as_lists_is_what_json_gives_back():
    value = {"a": (1, [2, (3,)]), "b": {"c": ()}}
    assert as_lists(value) == json.loads(json.dumps(value)) == {"a": [1, [2, [3]]], "b": {"c": []}}

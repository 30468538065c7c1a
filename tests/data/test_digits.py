import hashlib
from importlib.resources import files

import numpy as np

from bnengine.data import load, load_digits


def test_the_digits_are_the_ones_of_the_uci_set() -> None:
    data = load_digits()
    assert (data.x.shape, data.x.dtype, data.x.max()) == ((1797, 8, 8), np.uint8, 16)
    # The class distribution that the set's own documentation prints for its test part.
    assert np.bincount(data.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # The first line of the test part as published.
    first = "0,0,5,13,9,1,0,0,0,0,13,15,10,15,5,0,0,3,15,2,0,11,8,0,0,4,12,0,0,8,8,0,0,5,8,0,0,9,8,0,0,4,11,0,1,12,7,0"
    assert data.x[0].ravel().tolist()[:48] == [int(v) for v in first.split(",")]
    assert data.y[:10].tolist() == list(range(10))
    assert data.classes == tuple(range(10))


def test_the_archive_has_the_recorded_bytes_and_its_license() -> None:
    folder = files("bnengine.data")
    digest = hashlib.sha256(folder.joinpath("digits.npz").read_bytes()).hexdigest()
    assert digest == "35ca2870ddda628aecd42364588fe5012bdb3df9ce91b9b943752b82b02f04c9"
    text = folder.joinpath("digits.txt").read_text(encoding="utf-8")
    assert "CC BY 4.0" in text
    assert "10.24432/C50P49" in text


def test_digits_are_found_by_their_name() -> None:
    np.testing.assert_array_equal(load("digits").x, load_digits().x)

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnengine.data import load
from bnengine.errors import DataError

finite = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode())
    return path


@settings(deadline=None)  # A busy machine is no failure.
@given(
    rows=st.lists(st.tuples(finite, finite, words), min_size=1, max_size=8),
    names=st.lists(words, min_size=3, max_size=3, unique=True),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    position=st.integers(0, 2),
)
def test_every_table_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[float, float, str]],
    names: list[str],
    quoting: int,
    position: int,
) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=quoting)  # type: ignore[arg-type]
        features = [n for i, n in enumerate(names) if i != position]
        writer.writerow(names)
        for a, b, label in rows:
            fields: list[object] = [a, b]
            fields.insert(position, f"label {label}")
            writer.writerow(fields)
    data = load(path, target=names[position])
    assert data.columns == tuple(features)
    assert data.x.tobytes() == np.array([row[:2] for row in rows]).tobytes()
    assert data.y.tolist() == [f"label {row[2]}" for row in rows]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["3", "-7", "100"], np.array([3, -7, 100])),
        (["0.5", "2", "-1e3"], np.array([0.5, 2.0, -1000.0])),
        (["cat", "dog", "nan"], np.array(["cat", "dog", "nan"])),
        (["007", "010", "100"], np.array(["007", "010", "100"])),
        (["True", "False", "1"], np.array(["True", "False", "1"])),
        (["1", "1_0", "2"], np.array(["1", "1_0", "2"])),
        (["9223372036854775808", "1", "2"], np.array([2**63, 1, 2], np.uint64)),
    ],
)
def test_targets_take_the_type_they_are_written_in(tmp_path: Path, labels: list[str], expected: np.ndarray) -> None:
    text = "a,b,kind\n" + "".join(f"1,2,{label}\n" for label in labels)
    y = load(table(tmp_path, text), target="kind").y
    assert y.dtype.kind == expected.dtype.kind
    assert y.tolist() == expected.tolist()


def test_spaces_quotes_and_other_line_ends_are_read(tmp_path: Path) -> None:
    path = table(tmp_path, '\ufeffa , "b, c",kind\r\n\r\n 1.5, "2",cat\r\n-3e2,4, "big\n dog"\r\n')
    data = load(path, target="kind")
    assert data.columns == ("a", "b, c")
    assert data.x.tolist() == [[1.5, 2.0], [-300.0, 4.0]]
    assert data.y.tolist() == ["cat", "big\n dog"]


def test_without_a_target_every_column_is_a_feature(tmp_path: Path) -> None:
    path = table(tmp_path, "a,b\n1,2\n")
    data = load(path, target="kind", need_targets=False)
    assert data.y is None
    assert data.columns == ("a", "b")
    assert load(path, need_targets=False).x.tolist() == [[1.0, 2.0]]


def test_columns_may_be_called_by_numbers(tmp_path: Path) -> None:
    data = load(table(tmp_path, "0,1,2\n5,6,7\n"), target="2")
    assert data.columns == ("0", "1")
    assert data.y.tolist() == [7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty. It needs a header line"),
        ("a,kind\n", "there are no rows below the header"),
        ("a,kind\n1,x\n,y\n", "line 3, column 'a': the value is missing"),
        ("a,kind\n1,x\nNaN,y\n", "line 3, column 'a': the value is 'NaN'. Fill it in"),
        ("a,kind\n1,x\n-inf,y\n", "line 3, column 'a': the value must be a finite number, got '-inf'"),
        ("a,b,kind\n1,2,x\n\n1,two,y\n", "line 4, column 'b': the value must be a number, got 'two'"),
        ("a,b,kind\n1,2,x\n1,1_000,y\n", "line 3, column 'b': the value must be a number, got '1_000'"),
        ("a,b,kind\n1,2,x\n1,2\n", "line 3 must have 3 fields, as the header has, got 2"),
        ("a,b,kind\n1,2,x\n1,2,3,y\n", "line 3 must have 3 fields, as the header has, got 4"),
        ("a,kind\n1,x\n2,\n", "line 3, column 'kind': the target is missing"),
        ("a,kind\n1,1.5\n2,nan\n", "line 3, column 'kind': the target is 'nan'"),
        ("a,a,kind\n1,2,x\n", "line 1: two columns are called 'a'. Give each its own name"),
        ("a,,kind\n1,2,x\n", "line 1: column 2 has no name"),
        ("1,1,2\n3,4,5\n", "line 1: two columns are called '1'. The first line must be a header of column names"),
        ("1,2\n3,4\n", "no target column 'kind'. The columns are '1', '2'. The first line must be a header"),
        ("a;kind\n1;x\n", "no target column 'kind'. The columns are 'a;kind'. Fields must be separated by commas"),
        ("a,sort\n1,x\n", "no target column 'kind'. The columns are 'a', 'sort'. Name one of them"),
        ("kind\nx\n", "there is no column besides the target 'kind'"),
        ('a,kind\n"1"2,x\n', "line 2: ',' expected after '\"'"),
        ('a,kind\n1,"x\n', "line 2: unexpected end of data"),
    ],
)
def test_every_fault_is_named_by_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(DataError) as caught:
        load(path, target="kind")
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_table_needs_the_name_of_its_target_and_text_in_utf_8(tmp_path: Path) -> None:
    path = table(tmp_path, "a,kind\n1,x\n")
    with pytest.raises(DataError, match=r"name the target column .* the columns are 'a', 'kind'"):
        load(path)
    path.write_bytes(b"a,kind\n1,caf\xe9\n")
    with pytest.raises(DataError, match=r"not UTF-8 text .* position 12"):
        load(path, target="kind")
    with pytest.raises(DataError, match=r"digits: target column 'kind' given, which only \.csv"):
        load("digits", target="kind")


def test_tab_separated_and_compressed_tables_are_the_same_data(tmp_path: Path) -> None:
    text = "a,kind,b\n0.5,cat,-1\n2,dog,1e3\n"
    plain = load(table(tmp_path, text), target="kind")
    (tmp_path / "t.tsv").write_text(text.replace(",", "\t"))
    (tmp_path / "t.CSV.GZ").write_bytes(gzip.compress(text.encode()))
    for name in ("t.tsv", "t.CSV.GZ"):
        data = load(tmp_path / name, target="kind")
        assert data.x.tobytes() == plain.x.tobytes()
        assert (data.columns, data.y.tolist()) == (plain.columns, plain.y.tolist())


def test_a_damaged_table_is_named_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("a,kind\n1,x\n")
    with pytest.raises(DataError, match=r"t\.tsv: there is no target column 'kind'.*Fields must be separated by tabs"):
        load(path, target="kind")
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a,kind\n" + b"1,x\n" * 100)[:-9])
    with pytest.raises(DataError, match=r"t\.csv\.gz: the compressed file is truncated or damaged"):
        load(path, target="kind")

"""Text tables as exports really have them: encodings, quotes, separators."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from fusionrec.data import delimited
from fusionrec.errors import DataRejected


def read(folder: Path, text: str | bytes, name: str = "items.csv") -> pl.DataFrame:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return delimited.read(path)


@pytest.mark.parametrize("encoding", ["gb18030", "big5", "shift_jis"])
def test_another_encoding_is_refused_with_the_first_line(tmp_path: Path, encoding: str) -> None:
    rows = [f"{n},{'plain' if n < 3 else '花瓶'}" for n in range(20)]
    with pytest.raises(DataRejected, match=r"items.csv: 17 of 21 lines hold bytes that are not UTF-8 .* line 5\)"):
        read(tmp_path, "\n".join(["item_id,title", *rows]).encode(encoding))


def test_a_stray_byte_costs_its_cell_and_a_large_file_is_read_to_its_end(tmp_path: Path) -> None:
    line = b"1234,a title of some length with \xe7\x81\xaf in it\n"
    many = (delimited.BLOCK * 2 + 77) // len(line)
    found = read(tmp_path, b"item_id,title\n1,caf\xe9\n" + line * many)
    assert found["title"][0] == "caf\ufffd" and found.height == many + 1
    wrong = "1234,a title of some length with 灯 in it\n".encode("gb18030")
    with pytest.raises(DataRejected, match=f"{many // 40 + 1:,} of "):
        read(tmp_path, b"item_id,title\n" + line * many + wrong * (many // 40 + 1))


def test_a_quote_in_a_tab_file_swallows_nothing(tmp_path: Path) -> None:
    text = 'item_id\ttitle\tcategory\n1\tred cup\tcup\n2\t"Quoted start\tcup\n3\tTV 42"\ttv\n4\tend"\t\n'
    found = read(tmp_path, text, "items.tsv")
    assert found["title"].to_list() == ["red cup", '"Quoted start', 'TV 42"', 'end"']
    assert found["category"].to_list() == ["cup", "cup", "tv", None]


def test_a_tab_file_that_quotes_by_the_book_is_read_by_the_book(tmp_path: Path) -> None:
    frame = pl.DataFrame({"item_id": ["1", "2", "3"], "title": ['TV 42"', 'a "good" cup', "plain"]})
    (tmp_path / "a.tsv").write_text(frame.write_csv(separator="\t", quote_style="always"))
    assert delimited.read(tmp_path / "a.tsv").equals(frame)
    inner = pl.DataFrame({"item_id": ["1", "2"], "title": ["two\nlines", "a\ttab"]})
    (tmp_path / "b.tsv").write_text(inner.write_csv(separator="\t"))
    assert delimited.read(tmp_path / "b.tsv").equals(inner)


def test_inches_in_a_comma_file_stand_as_they_are(tmp_path: Path) -> None:
    found = read(tmp_path, 'item_id,title,category\n1,"a, b",x\n3,TV 42" black,x\n4,,y\n')
    assert found.rows() == [("1", "a, b", "x"), ("3", 'TV 42" black', "x"), ("4", None, "y")]


def test_a_row_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataRejected, match=r"the row that ends in line 3 has 3 cells, the header 2 .*'4,TV 42\" black,x'"
    ):
        read(tmp_path, 'item_id,title\n3,TV 42" white\n4,TV 42" black,x\n')


def test_both_separators_and_a_mark_at_the_beginning(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeffitem_id; title \r\n1;a,b\r\n").rows(named=True) == [{"item_id": "1", "title": "a,b"}]
    assert read(tmp_path, "item_id\ttitle\n1\ta,b\n").columns == ["item_id", "title"]

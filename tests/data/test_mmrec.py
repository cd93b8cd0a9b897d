"""Folders in the MMRec toolbox's format: read, split as they say, refused with one line where they are broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from fusionrec.data import split
from fusionrec.data.positives import positive_pairs
from fusionrec.data.sources.mmrec import MMRecSource, count_items, feature_files, read_features, read_log
from fusionrec.errors import DataRejected
from fusionrec.modalities.precomputed import Precomputed

from .conftest import Project

N_ITEMS, WIDTH = 7, 3
ROWS = [  # userID, itemID, rating, timestamp, x_label
    (0, 0, 5.0, 1328140800, 0),
    (0, 3, 4.0, 1328140900, 0),
    (0, 6, 1.0, 1328141000, 2),
    (1, 2, 5.0, 1328140800, 0),
    (1, 0, 3.0, 1328140801, 1),
    (2, 5, 2.0, 1328140805, 2),
]


def write(root: Path, header: str = "userID\titemID\trating\ttimestamp\tx_label", rows: Any = ROWS) -> Path:
    """A folder as the toolbox's preparation leaves it."""
    root.mkdir(parents=True, exist_ok=True)
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    (root / "tiny.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = np.arange(1, N_ITEMS * WIDTH + 1, dtype=np.float64).reshape(N_ITEMS, WIDTH)
    image = text[:, :2].astype(np.float16)
    image[4] = 0
    np.save(root / "text_feat.npy", text)
    np.save(root / "image_feat.npy", image)
    names = [f"B{9 - n}" for n in range(N_ITEMS)]
    mapping = pl.DataFrame({"asin": names, "itemID": range(N_ITEMS)})
    mapping.reverse().write_csv(root / "i_id_mapping.csv", separator="\t")  # the order of the rows says nothing
    titles = pl.DataFrame(
        {"itemID": [6, 0], "asin": ["B3", "B9"], "title": ["Rattle, blue", "杯子"], "price": ["x", "y"]}
    )
    titles.write_csv(root / "meta-tiny.csv")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny")


def read(root: Path, **keys: Any) -> Any:
    return MMRecSource(root=str(root), **keys).build(root.parent).read()


def test_the_tables_known_by_hand(root: Path) -> None:
    tables = read(root)
    assert tables.items["item_id"].to_list() == list("0123456")
    assert tables.items["original_id"].to_list() == ["B9", "B8", "B7", "B6", "B5", "B4", "B3"]
    assert tables.items["title"].to_list() == ["杯子", None, None, None, None, None, "Rattle, blue"]
    assert "price" not in tables.items.columns
    log = tables.interactions
    assert list(log.select("user_id", "item_id", "x_label", "event").iter_rows())[2] == ("0", "6", 2, "click")
    assert log["value"].to_list() == ["5.0", "4.0", "1.0", "5.0", "3.0", "2.0"]
    assert tables.users is None and tables.queries is None


@pytest.mark.parametrize(
    "header",
    [
        "userID:token\titemID:token\trating:float\ttimestamp:float\tx_label",
        "user_id\titem_id\trating\ttimestamp\tx_label",
    ],
)
def test_field_types_and_other_spellings_make_no_difference(tmp_path: Path, header: str) -> None:
    plain, other = read_log(write(tmp_path / "a")), read_log(write(tmp_path / "b", header))
    assert other.equals(plain)


def test_features_row_by_number_and_zeros_are_absent(root: Path) -> None:
    files = feature_files(root)
    assert list(files) == ["image", "text"]
    vectors, present = read_features(files["image"])
    assert vectors.dtype == np.float32 and vectors.shape == (N_ITEMS, 2)
    assert present.tolist() == [True] * 4 + [False] + [True] * 2
    modality = Precomputed(file="text_feat.npy", numbered=True).build()
    rows = modality.rows(pl.DataFrame({"item_id": ["6", "0", "7"]}), root)
    assert rows.present.tolist() == [True, True, False]
    assert modality.load(0).tolist() == [19, 20, 21] and modality.load(1).tolist() == [1, 2, 3]
    for keys in (
        {"file": "v.npz", "numbered": True},
        {"file": "v.npy", "numbered": True, "ids": "i.csv"},
        {"file": "v.npy"},
    ):
        with pytest.raises(ValidationError, match=r"\.npy file needs 'ids'"):
            Precomputed(**keys)


def test_an_item_nobody_touched_is_still_an_item(root: Path) -> None:
    np.save(root / "text_feat.npy", np.ones((N_ITEMS + 2, WIDTH), np.float32))
    (root / "image_feat.npy").unlink()
    assert count_items(root, read_log(root)) == N_ITEMS + 2


def change(root: Path, what: str) -> None:
    text = np.load(root / "text_feat.npy")
    match what:
        case "few":
            np.save(root / "text_feat.npy", text[:6])
        case "unequal":
            np.save(root / "text_feat.npy", np.concatenate([text, text]))
        case "nan":
            text[2, 1] = np.nan
            np.save(root / "text_feat.npy", text)
        case "flat":
            np.save(root / "text_feat.npy", text[:, 0])
        case "objects":
            np.save(root / "text_feat.npy", np.array([None, "x"]), allow_pickle=True)
        case "negative":
            write(root, rows=[*ROWS, (3, -1, 1, 1, 0)])
        case "beyond":
            write(root, rows=[*ROWS, (3, N_ITEMS, 1, 1, 0)])
        case "words":
            write(root, rows=[*ROWS, ("bob", 1, 1, 1, 0)])
        case "label":
            write(root, rows=[*ROWS, (3, 1, 1, 1, 3)])
        case "commas":
            write(root, header="userID,itemID,x_label", rows=[("0,1,0",)])
        case "no_items":
            write(root, header="userID\tthing\tx_label", rows=[(0, 1, 0)])
        case "empty":
            write(root, rows=[])
        case "twice":
            (root / "other.inter").write_text("userID\titemID\n0\t1\n")
        case "none":
            (root / "tiny.inter").unlink()
        case "mapping":
            (root / "i_id_mapping.csv").write_text("asin\titemID\nB1\t7\n")
        case "mapped_twice":
            (root / "i_id_mapping.csv").write_text("asin\titemID\nB1\t1\nB2\t1\n")


@pytest.mark.parametrize(
    "what, message",
    [
        ("few", r"text_feat.npy: found 6 rows, but the interactions name item 6; expected one row for each item"),
        ("unequal", "must have the same rows.*image_feat.npy 7, text_feat.npy 14"),
        ("nan", r"text_feat.npy: 1 of 7 rows hold NaN or infinite values \(first: row 2\)"),
        ("flat", r"found an array float64 \(7,\), expected numbers \(items, width\)"),
        ("objects", "text_feat.npy cannot be read as an array"),
        ("negative", r"tiny.inter: column itemID: 1 of 7 values are out of range \(first: row 7, '-1'\)"),
        ("beyond", "found 7 rows, but the interactions name item 7"),
        ("words", "column userID: 1 of 7 values are out of range.*'bob'"),
        ("label", "column x_label: 1 of 7 values are out of range.*from 0 to 2"),
        ("commas", "column userID is missing; found userID,itemID,x_label; .*separated by tabs"),
        ("no_items", "column itemID is missing; found userID, thing, x_label"),
        ("empty", "nothing to train on"),
        ("twice", "found other.inter, tiny.inter; say which with source.interactions"),
        ("none", "interactions: expected one file NAME.inter in tiny, found none"),
        ("mapping", "i_id_mapping.csv: column itemID: 1 of 1 values are out of range"),
        ("mapped_twice", "i_id_mapping.csv: item 1 occurs twice"),
    ],
)
def test_a_broken_folder_is_refused_in_one_line(root: Path, what: str, message: str) -> None:
    change(root, what)
    with pytest.raises(DataRejected, match=message) as caught:
        read(root)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_outside_the_folder_is_not_read(root: Path) -> None:
    (root.parent / "secret.inter").write_text("userID\titemID\n0\t1\n")
    with pytest.raises(DataRejected, match=r"source\.interactions"):
        read(root, interactions="../secret.inter")


def test_the_given_split_is_followed_and_train_wins() -> None:
    log = pl.DataFrame(
        {
            "user_id": ["u", "u", "v", "v", "u"],
            "item_id": ["a", "b", "a", "c", "b"],
            "event": "click",
            "x_label": [0, 2, 1, 0, 1],
        }
    )
    pairs = positive_pairs(log, {"click": None})
    items = pl.DataFrame({"item_id": ["a", "b", "c", "d"]})
    found = split.make(split.Given(), items, pairs, 0, None)
    held = {name: set(part.select("user_id", "item_id").iter_rows()) for name, part in found.parts.items()}
    assert held == {"train": {("u", "a"), ("v", "c")}, "valid": {("u", "b"), ("v", "a")}, "test": set()}
    assert found.parts["train"].columns == ["user_id", "item_id", "timestamp"]


def test_a_log_without_labels_has_no_given_split() -> None:
    log = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "event": ["click"]})
    items = pl.DataFrame({"item_id": ["a"]})
    with pytest.raises(DataRejected, match="given needs the column x_label"):
        split.make(split.Given(), items, positive_pairs(log, {"click": None}), 0, None)
    wrong = positive_pairs(log.with_columns(x_label=pl.lit("train")), {"click": None})
    with pytest.raises(DataRejected, match="1 of 1 pairs hold another value than 0.*'train'"):
        split.make(split.Given(), items, wrong, 0, None)


def test_the_pipeline_follows_the_labels(empty: Project) -> None:
    write(empty.paths.project / "tiny")
    empty.params |= {
        "source": {"kind": "mmrec", "root": "tiny"},
        "split": {"kind": "given"},
        "modalities": {
            m: {"kind": "precomputed", "file": f"{m}_feat.npy", "numbered": True} for m in ("text", "image")
        },
    }
    empty.all()
    data = split.load(empty.paths, ("train", "valid", "test"))
    sizes = {name: (len(data.interactions(name)), data.frames[name].height) for name in split.NAMES}
    assert sizes == {"train": (3, 3), "valid": (1, 1), "test": (1, 2)}  # user 2 is unknown to train
    assert sorted(data.items) == list("0123456")

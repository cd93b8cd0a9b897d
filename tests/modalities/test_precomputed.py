"""Vectors from files: each format, ids in any order, and bad rows with their reasons."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from fusionrec.errors import ConfigError, DataRejected
from fusionrec.media.base import MediaError
from fusionrec.modalities.precomputed import Precomputed

IDS = ["é", "b", "c", "d"]  # the first composed; files below write it decomposed
VECTORS = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
ITEMS = pl.DataFrame({"item_id": ["c", "é", "nowhere", "b", "d"]})


@pytest.fixture
def root(tmp_path):
    ids = ["e\u0301", "b", "c", "d"]
    pl.DataFrame({"item_id": ids, "vector": VECTORS.tolist()}).write_parquet(tmp_path / "v.parquet")
    np.savez(tmp_path / "v.npz", ids=np.array(ids), vectors=VECTORS)
    np.save(tmp_path / "v.npy", VECTORS)
    np.save(tmp_path / "ids.npy", np.array(ids))
    pl.DataFrame({"item_id": ids}).write_csv(tmp_path / "ids.csv")
    return tmp_path


@pytest.mark.parametrize(
    "keys",
    [{"file": "v.parquet"}, {"file": "v.npz"}, *({"file": "v.npy", "ids": ids} for ids in ("ids.npy", "ids.csv"))],
    ids=str,
)
def test_every_format_gives_each_item_its_own_vector(root, keys):
    modality = Precomputed(**keys).build()
    rows = modality.rows(ITEMS, root)
    assert rows.present.tolist() == [True, True, False, True, True] and len(set(rows.content)) == 5
    assert modality.load(0).tolist() == [7, 8, 9] and modality.load(1).tolist() == [1, 2, 3]


def test_bad_rows_are_absent_with_a_reason(root):
    cells = [[1.0, 2.0, 3.0], [1.0, 2.0], [1.0, float("nan"), 3.0], [0.0, 0.0, 0.0]]
    pl.DataFrame({"item_id": IDS, "vector": cells}).write_parquet(root / "bad.parquet")
    modality = Precomputed(file="bad.parquet").build()
    modality.rows(ITEMS, root)
    codes = {}
    for row in (0, 3, 4):
        with pytest.raises(MediaError) as caught:
            modality.load(row)
        codes[ITEMS["item_id"][row]] = caught.value.code
    assert codes == {"b": "wrong_dim", "c": "not_finite", "d": "zero_vector"}
    assert modality.load(1).tolist() == [1, 2, 3]


def test_files_that_name_an_item_twice_or_do_not_fit_are_refused(root):
    np.save(root / "two.npy", np.array(["a", "a", "b", "c"]))
    np.save(root / "few.npy", np.array(["a", "b"]))
    np.save(root / "flat.npy", np.zeros(4, np.float32))
    for keys, message in [
        ({"file": "v.npy", "ids": "two.npy"}, "occur twice"),
        ({"file": "v.npy", "ids": "few.npy"}, "4 vectors but 2 ids"),
        ({"file": "flat.npy", "ids": "ids.npy"}, "expected numbers"),
        ({"file": "v.parquet", "vector_column": "vec"}, "no column 'vec'; found item_id, vector"),
    ]:
        with pytest.raises(DataRejected, match=message):
            Precomputed(**keys).build().rows(ITEMS, root)
    with pytest.raises(ConfigError, match="does not exist"):
        Precomputed(file="none.npz").build().rows(ITEMS, root)
    with pytest.raises(ConfigError, match="expected a path below"):
        Precomputed(file="../v.npz").build().rows(ITEMS, root)


def test_ids_are_read_as_ingest_reads_them_and_cells_that_are_no_numbers_are_refused(root):
    items = pl.DataFrame({"item_id": ["1", "2", "3"]})
    x = np.eye(3, 4, dtype=np.float32)
    pl.DataFrame({"item_id": [1.0, 2.0, 3.0], "vector": x.tolist()}).write_parquet(root / "float.parquet")
    np.savez(root / "bytes.npz", ids=np.array([b"1", b"2", b"3"]), vectors=x)
    for file in ("float.parquet", "bytes.npz"):
        assert Precomputed(file=file).build().rows(items, root).present.all(), file
    pl.DataFrame({"item_id": ["1"], "vector": [x[0].tobytes()]}).write_parquet(root / "raw.parquet")
    pl.DataFrame({"item_id": ["1"], "vector": [0.5]}).write_parquet(root / "one.parquet")
    pl.DataFrame({"item_id": [1.5], "vector": [[0.5]]}).write_parquet(root / "half.parquet")
    np.savez(root / "square.npz", ids=np.array([["1"], ["2"], ["3"]]), vectors=x)
    np.savez(root / "point.npz", ids=np.array("1"), vectors=x)
    np.savez_compressed(root / "torn.npz", ids=np.array(["1", "2", "3"]), vectors=x)
    whole = (root / "torn.npz").read_bytes()
    (root / "torn.npz").write_bytes(whole[: len(whole) // 2])
    for file, message in (
        ("raw.parquet", "found a cell of bytes, expected a list of numbers"),
        ("one.parquet", "found a cell of float, expected a list of numbers"),
        ("half.parquet", "found the id 1.5, expected texts or whole numbers"),
        ("square.npz", r"found ids of the shape \(3, 1\)"), ("point.npz", r"found ids of the shape \(\)"),
        ("torn.npz", "torn.npz cannot be read as vectors: "),
    ):  # fmt: skip
        with pytest.raises(DataRejected, match=message):
            Precomputed(file=file).build().rows(items, root)


def test_what_the_store_kept_of_another_width_is_not_taken_for_the_asked_one(root):
    wide = Precomputed(file="v.npy", ids="ids.csv", dim=9).build()
    narrow = Precomputed(file="v.npy", ids="ids.csv", dim=VECTORS.shape[1]).build()
    plain = Precomputed(file="v.npy", ids="ids.csv").build()
    items = pl.DataFrame({"item_id": ["b", "c"]})
    refused, kept, usual = (m.rows(items, root).content for m in (wide, narrow, plain))
    assert kept == usual and not {*refused} & {*kept}
    with pytest.raises(MediaError, match="expected 9"):
        wide.load(0)


def test_pickled_arrays_are_never_opened(root):
    marker = root / "executed"

    class Canary:
        def __reduce__(self):
            return open, (str(marker), "w")

    np.save(root / "evil.npy", np.array([Canary()], dtype=object), allow_pickle=True)
    np.savez(root / "evil.npz", ids=np.array([Canary()], dtype=object), vectors=VECTORS)
    marker.unlink(missing_ok=True)
    for keys in ({"file": "v.npy", "ids": "evil.npy"}, {"file": "evil.npy", "ids": "ids.npy"}, {"file": "evil.npz"}):
        with pytest.raises(DataRejected):
            Precomputed(**keys).build().rows(ITEMS, root)
    assert not marker.exists()


def test_a_matrix_without_ids_is_refused_because_row_order_names_nothing():
    with pytest.raises(ValidationError, match="needs 'ids'"):
        Precomputed(file="v.npy")
    with pytest.raises(ValidationError, match="must end in"):
        Precomputed(file="v.pkl")

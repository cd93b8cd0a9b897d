"""The engine encodes what is new, once, and survives what cannot be decoded."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionrec.embeddings.engine import embed
from fusionrec.embeddings.shards import cut
from fusionrec.embeddings.store import Store

from .conftest import Letters, LettersEncoder, Strings, sha

TEXTS = ["abba", "", "cage", "abba", "bad!", "deaf", "ggg", "bad!"]


def test_identical_content_is_encoded_once_and_bad_content_becomes_absent(letters, store):
    steps = []
    strings = Strings(TEXTS)
    result = embed(strings, strings.rows(), letters, store, progress=lambda d, t: steps.append((d, t)))
    assert sorted(letters.encoded) == ["abba", "cage", "deaf", "ggg"]
    assert result.present.tolist() == [True, False, True, True, False, True, True, False]
    assert result.vectors[0].tolist() == [2, 2, 0, 0, 0, 0, 0] == result.vectors[3].tolist()
    assert not result.vectors[~result.present].any() and result.vectors.dtype == np.float32
    assert (result.encoded, result.reused) == (4, 0)
    assert result.failed == {4: ("truncated", "cut off"), 7: ("truncated", "cut off")}
    assert steps[0] == (0, 5) and steps[-1] == (5, 5)


def test_nothing_is_encoded_twice_and_one_new_item_costs_one(letters, store):
    first = embed(Strings(TEXTS), Strings(TEXTS).rows(), letters, store)
    letters.encoded.clear()
    again = embed(Strings(TEXTS), Strings(TEXTS).rows(), letters, store)
    assert letters.encoded == [] and (again.encoded, again.reused) == (0, 4)
    np.testing.assert_array_equal(again.vectors, first.vectors)
    more = embed(Strings([*TEXTS, "fade"]), Strings([*TEXTS, "fade"]).rows(), letters, Store(store.root))
    assert letters.encoded == ["fade"] and (more.encoded, more.reused) == (1, 4)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.text("abg", max_size=2), min_size=1, max_size=8), min_size=1, max_size=5),
    st.lists(st.sampled_from([1.0, 2.0]), min_size=5, max_size=5),
)
def test_a_change_of_content_or_encoder_recomputes_exactly_that(histories, scales):
    """Whatever was asked for before, what is encoded now is exactly the contents this encoder never saw."""
    with tempfile.TemporaryDirectory() as folder:
        seen: set[tuple[float, str]] = set()
        for texts, scale in zip(histories, scales, strict=False):
            Letters.encoded.clear()
            result = embed(Strings(texts), Strings(texts).rows(), Letters(scale=scale), Store(Path(folder)))
            assert sorted(Letters.encoded) == sorted({t for t in texts if t and (scale, t) not in seen})
            seen |= {(scale, t) for t in texts if t}
            for text, row in zip(texts, result.vectors, strict=True):
                assert not text or row.tolist() == [text.count(c) * scale for c in "abcdefg"]


def test_a_damaged_shard_is_encoded_again(letters, store):
    embed(Strings(TEXTS), Strings(TEXTS).rows(), letters, store)
    shard = next(store.root.rglob("*.npy"))
    shard.write_bytes(shard.read_bytes()[:-3] + b"abc")
    letters.encoded.clear()
    result = embed(Strings(TEXTS), Strings(TEXTS).rows(), letters, Store(store.root))
    assert len(letters.encoded) == 4 and result.vectors[0].tolist() == [2, 2, 0, 0, 0, 0, 0]


def test_a_row_that_encodes_to_nan_or_zero_is_absent_with_a_reason(letters, store, monkeypatch):
    plain = LettersEncoder.encode

    def broken(self, batch):
        out = plain(self, batch)
        out[[t == "cage" for t in batch]] = np.nan
        return out

    monkeypatch.setattr(LettersEncoder, "encode", broken)
    texts = ["abba", "cage", "xyz"]
    result = embed(Strings(texts), Strings(texts).rows(), letters, store)
    assert {r: code for r, (code, _) in result.failed.items()} == {1: "bad_vector", 2: "bad_vector"}
    assert result.present.tolist() == [True, False, False] and result.encoded == 1


def test_an_encoder_of_the_wrong_width_is_an_error(letters, store, monkeypatch):
    monkeypatch.setattr(LettersEncoder, "encode", lambda self, batch: np.ones((len(batch), 6), np.float32))
    with pytest.raises(ValueError, match=r"letters gave \(1, 6\), expected \(1, 7\)"):
        embed(Strings(["a"]), Strings(["a"]).rows(), letters, store)


def test_a_bug_in_a_modality_is_not_hidden(letters, store, monkeypatch):
    monkeypatch.setattr(Strings, "load", lambda self, index: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embed(Strings(["a"]), Strings(["a"]).rows(), letters, store)


def test_an_interrupted_run_resumes_to_the_same_matrix(letters, store, monkeypatch):
    monkeypatch.setattr("fusionrec.embeddings.shards.MEAN_SHARD", 4)
    texts = [f"a{'b' * i}" for i in range(40)]
    shards = cut({sha(t): n for n, t in enumerate(texts)})
    plain, calls = LettersEncoder.encode, []

    def stops(self, batch):
        calls.append(len(batch))
        if sum(calls) > sum(map(len, shards[:4])):
            raise KeyboardInterrupt
        return plain(self, batch)

    monkeypatch.setattr(LettersEncoder, "encode", stops)
    with pytest.raises(KeyboardInterrupt):
        embed(Strings(texts), Strings(texts).rows(), letters, store)
    monkeypatch.setattr(LettersEncoder, "encode", plain)
    resumed = embed(Strings(texts), Strings(texts).rows(), letters, Store(store.root))
    whole = sum(map(len, shards[:4]))
    assert (resumed.reused, resumed.encoded) == (whole, 40 - whole) and len(shards) > 5
    straight = embed(Strings(texts), Strings(texts).rows(), letters, Store(store.root.parent / "other"))
    np.testing.assert_array_equal(resumed.vectors, straight.vectors)


def test_the_matrix_can_be_written_straight_to_a_file(letters, store, tmp_path):
    result = embed(Strings(TEXTS), Strings(TEXTS).rows(), letters, store, out=tmp_path / "m.npy")
    result.vectors.flush()
    np.save(tmp_path / "n.npy", np.array(result.vectors))
    assert (tmp_path / "m.npy").read_bytes() == (tmp_path / "n.npy").read_bytes()

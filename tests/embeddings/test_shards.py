"""Shards are cut by the contents alone, so a run that was stopped anywhere goes on to the same bits."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrec.embeddings import shards
from fusionrec.embeddings.engine import embed
from fusionrec.embeddings.shards import cut
from fusionrec.embeddings.store import Store
from fusionrec.encoders.base import Encoder, EncoderSpec
from fusionrec.encoders.weights import fingerprint

from .conftest import Strings, sha

contents = st.lists(st.binary(min_size=32, max_size=32).map(bytes.hex), unique=True, max_size=60)


def content(first: int, last: int) -> str:
    """64 hex digits that begin with the one number and end with the other."""
    return f"{first:056x}{last:08x}"


def test_a_shard_ends_with_a_content_whose_last_digits_are_a_multiple(monkeypatch):
    monkeypatch.setattr(shards, "MEAN_SHARD", 5)
    # By hand: of the last numbers 3, 10, 4, 4, 0, 7, 1 in this order, 10 and 0 are multiples of 5.
    given = {content(n, last): 70 - n for n, last in enumerate([3, 10, 4, 4, 0, 7, 1])}
    found = cut(dict(reversed(given.items())))  # the order in which they come says nothing
    assert [[int(c[-8:], 16) for c in s.contents] for s in found] == [[3, 10], [4, 4, 0], [7, 1]]
    assert [s.rows for s in found] == [(70, 69), (68, 67, 66), (65, 64)]
    assert cut({}) == [] and [len(s) for s in cut({content(9, 5): 2})] == [1]


@given(contents, st.sampled_from([1, 2, 7]), st.data())
def test_whatever_whole_shards_are_done_the_others_are_cut_as_before(given_contents, mean, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "MEAN_SHARD", mean)
        missing = {c: row for row, c in enumerate(given_contents)}
        found = cut(missing)
        flat = [c for s in found for c in s.contents]
        assert flat == sorted(given_contents) and all(len(s) for s in found)
        assert {c: r for s in found for c, r in zip(s.contents, s.rows, strict=True)} == missing
        stays = data.draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))
        rest = [s for s, stay in zip(found, stays, strict=True) if stay]
        assert cut({c: missing[c] for s in rest for c in s.contents}) == rest


class Wide(Strings):
    """Inputs of 30 MiB each; counts how many wait."""

    made: ClassVar[list[int]] = []

    def load(self, index: int) -> np.ndarray:
        self.made.append(index)
        return np.zeros(30 << 20, np.uint8)


def test_decoded_inputs_that_wait_are_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(shards, "AHEAD_BYTES", 64 << 20)
    Wide.made.clear()
    taken = 0
    for _ in shards.loaded(Wide(["x"] * 30), [(str(n), n) for n in range(30)]):
        taken += 1
        time.sleep(0.02)  # the threads have all the time to run ahead
        if taken > 2:  # the first ones are asked for before any size is known
            assert len(Wide.made) - taken <= 2, "two of them are 60 MiB"
    assert taken == 30


class Together(EncoderSpec):
    """The vector of a text depends on all texts that are encoded with it and on their order, D=3, so that any other
    batch shows; a text with a "?" encodes to NaN. ``calls``: after how many batches the encoder is stopped."""

    accepts: ClassVar = "text"
    kind: Literal["together"] = "together"
    left: ClassVar[list[int]] = []

    def fingerprint(self) -> str:
        return fingerprint(self.kind)

    def build(self) -> Encoder:
        return TogetherEncoder()


class TogetherEncoder(Encoder):
    dim, chunk = 3, 4

    def encode(self, batch):
        if Together.left:
            Together.left[0] -= 1
            if Together.left[0] < 0:
                raise KeyboardInterrupt
        own = np.array([[len(t), int(sha(t)[:4], 16), 1] for t in batch], np.float64)
        order = np.arange(1, len(batch) + 1)[:, None]
        out = (own + 0.37 * own.mean(axis=0) + 0.01 * (own * order).sum(axis=0)).astype(np.float32)
        out[["?" in t for t in batch]] = np.nan
        return out


texts = st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=40).map(
    lambda numbers: [f"{n}{'!' * (n % 7 == 1)}{'?' * (n % 5 == 1)}" for n in numbers]
)
long_texts = st.randoms(use_true_random=False).map(lambda r: [f"{n}{r.choice(['', '', '!', '?'])}" for n in range(40)])


@given(texts | long_texts, st.sampled_from([2, 5]), st.lists(st.integers(0, 12), min_size=1, max_size=3))
def test_runs_that_were_stopped_anywhere_give_the_bits_of_an_undisturbed_one(given_texts, mean, stops):
    """Some texts cannot be decoded and some encode to NaN: they are asked for again and change nobody's vector."""
    rows = Strings(given_texts).rows()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "MEAN_SHARD", mean)
        patch.setattr("os.fsync", lambda file: None)  # nobody cuts the power here
        Together.left.clear()
        straight = embed(Strings(given_texts), rows, Together(), Store(Path(folder, "straight")))
        for stop in stops:
            Together.left[:] = [stop]
            try:
                embed(Strings(given_texts), rows, Together(), Store(Path(folder, "resumed")))
            except KeyboardInterrupt:
                continue
        Together.left.clear()
        resumed = embed(Strings(given_texts), rows, Together(), Store(Path(folder, "resumed")))
    assert resumed.vectors.tobytes() == straight.vectors.tobytes()
    assert resumed.present.tolist() == straight.present.tolist() and resumed.failed == straight.failed
    assert straight.present.tolist() == [not set(t) & {"!", "?"} for t in given_texts]


def test_more_catalogue_later_leaves_the_bits_of_what_is_there(store):
    """A content is never encoded again because others came."""
    some = [f"text {n}" for n in range(11)]
    first = embed(Strings(some), Strings(some).rows(), Together(), store)
    more = [*some, "one more", "and one!"]
    later = embed(Strings(more), Strings(more).rows(), Together(), Store(store.root))
    assert later.vectors[:11].tobytes() == first.vectors.tobytes() and (later.encoded, later.reused) == (1, 11)

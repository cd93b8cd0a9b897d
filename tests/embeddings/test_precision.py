"""Half precision is compared with float32 before the first vector, once, and what is too far is encoded in float32."""

from __future__ import annotations

import json
from typing import ClassVar, Literal

import numpy as np
import pytest

from fusionrec.embeddings import base, precision
from fusionrec.embeddings.engine import embed
from fusionrec.embeddings.store import Store
from fusionrec.encoders.base import Encoder, EncoderSpec
from fusionrec.encoders.forward import Precision, supported
from fusionrec.encoders.minilm import MiniLM
from fusionrec.encoders.weights import fingerprint

from .conftest import Strings
from .test_stage import Catalogue

TEXTS = [f"text {n}" for n in range(10)]


class Turned(EncoderSpec):
    """D=2: a text of n letters is (n, 0); in half precision it is turned by the angle whose cosine is ``cosine``, a
    text with a "w" by that of ``worst``, and one with a "?" is NaN. ``built``: the precision of each encoder made."""

    accepts: ClassVar = "text"
    kind: Literal["turned"] = "turned"
    cosine: float = 1.0
    worst: float = 1.0
    precision: Precision = "bf16"
    built: ClassVar[list[str]] = []

    def fingerprint(self) -> str:
        return fingerprint(self.kind, cosine=self.cosine, worst=self.worst, precision=self.precision)

    def build(self) -> Encoder:
        self.built.append(self.precision)
        return TurnedEncoder(self)


class TurnedEncoder(Encoder):
    dim, chunk = 2, 3

    def __init__(self, spec: Turned) -> None:
        self.spec = spec

    def encode(self, batch):
        half = self.spec.precision != "fp32"
        cosines = [self.spec.worst if "w" in t else np.nan if "?" in t else self.spec.cosine for t in batch]
        c = np.array(cosines if half else [1.0] * len(batch))
        return (np.array([[len(t)] for t in batch]) * np.stack([c, np.sqrt(1 - c * c)], axis=1)).astype(np.float32)


@pytest.fixture
def able(monkeypatch):
    """These encoders compute with numpy: what the processor has does not matter."""
    monkeypatch.setattr(precision, "supported", lambda wanted: True)
    Turned.built.clear()


def run(spec, store, texts=TEXTS):
    return embed(Strings(texts), Strings(texts).rows(), spec, store)


FP32 = "bf16 is not exact enough: {}, expected a mean above 0.999 and none below 0.995; encoded in fp32"


@pytest.mark.parametrize(
    "spec, texts, taken, told",
    [
        (Turned(cosine=0.9992), TEXTS, "bf16", "bf16: cosine to fp32 0.99920, at least 0.99920 (10 contents)"),
        (
            Turned(cosine=0.998),
            TEXTS,
            "fp32",
            FP32.format("cosine to fp32 0.99800, at least 0.99800 (10 contents)"),
        ),
        # One of 20 is at 0.99: the mean is (19 + 0.99) / 20 = 0.9995, which would do.
        (
            Turned(worst=0.99),
            ["w", *(f"{n}" for n in range(19))],
            "fp32",
            FP32.format("cosine to fp32 0.99950, at least 0.99000 (20 contents)"),
        ),
        # What cannot be read says nothing; what only half precision cannot encode speaks against it.
        (Turned(), ["a", "b!", "cc"], "bf16", "bf16: cosine to fp32 1.00000, at least 1.00000 (2 contents)"),
        (Turned(), ["a", "b?"], "fp32", FP32.format("cosine to fp32 0.50000, at least 0.00000 (2 contents)")),
        (Turned(), ["?"], "fp32", FP32.format("cosine to fp32 0.00000, at least 0.00000 (1 contents)")),
    ],
)  # fmt: skip
def test_what_is_taken_and_told_is_known_by_hand(able, store, spec, texts, taken, told):
    result = run(spec, store, texts)
    assert result.note == told and result.encoder == spec.model_copy(update={"precision": taken})
    readable = [t for t in texts if "!" not in t]
    assert result.encoded == len(readable) == int(result.present.sum())
    if taken == "fp32":
        assert result.vectors[result.present].tolist() == [[len(t), 0] for t in readable]
    assert [f.name for f in sorted(store.root.iterdir()) if list(f.glob("*.npy"))] == [result.encoder.fingerprint()]
    assert (store.root / spec.fingerprint() / "precision").is_file()  # the verdict stands where it was asked for


@pytest.mark.parametrize("cosine, taken", [(0.9995, "bf16"), (0.9, "fp32")])
def test_the_verdict_holds_for_all_that_follow(able, store, cosine, taken):
    spec = Turned(cosine=cosine)
    first = run(spec, store)
    assert Turned.built == ["bf16", "fp32", taken]  # compared, then encoded
    Turned.built.clear()
    again = run(spec, Store(store.root))
    assert not Turned.built and again.reused == 10 and again.encoder == first.encoder
    assert again.vectors.tobytes() == first.vectors.tobytes()
    more = run(spec, Store(store.root), [*TEXTS, "one more"])
    assert Turned.built == [taken] and more.note == first.note and more.encoded == 1


def test_a_sample_is_enough(able, store, monkeypatch):
    monkeypatch.setattr(precision, "SAMPLE", 4)
    assert run(Turned(), store).note.endswith("(4 contents)")


def test_nothing_is_compared_for_float32_or_where_nothing_can_be_read(able, store):
    assert run(Turned(precision="fp32"), store).note == "" and Turned.built == ["fp32"]
    Turned.built.clear()
    result = run(Turned(), store, ["a!", "b!"])
    assert (
        result.note == ""
        and not Turned.built
        and len(result.failed) == 2
        and store.verdict(Turned().fingerprint()) is None
    )


def test_a_machine_without_the_instructions_says_so_and_decides_nothing_for_others(store, monkeypatch):
    monkeypatch.setattr(precision, "supported", lambda wanted: False)
    Turned.built.clear()
    result = run(Turned(), store)
    assert result.note == "bf16 is not what this machine computes fast: encoded in fp32"
    assert result.encoder == Turned(precision="fp32") and Turned.built == ["fp32"]
    assert store.verdict(Turned().fingerprint()) is None


def test_the_manifest_names_what_computed_and_is_of_both(able, store, tmp_path):
    spec = Turned(cosine=0.5)
    strings = Strings(TEXTS)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    base.write(tmp_path / "a", "text", "text", TEXTS, strings.rows(), run(spec, store))
    base.write(tmp_path / "b", "text", "text", TEXTS, strings.rows(), run(Turned(), store))
    exact, half = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("a", "b"))
    assert exact["encoder"] == {"kind": "turned", "cosine": 0.5, "worst": 1.0, "precision": "fp32"}
    assert exact["fingerprint"] == spec.exact().fingerprint() != spec.fingerprint()
    assert base.is_of(exact, spec) and base.is_of(exact, spec.exact()) and not base.is_of(exact, Turned())
    assert half["encoder"]["precision"] == "bf16" and base.is_of(half, Turned()) and not base.is_of(half, spec)
    assert not base.is_of(half, Turned().exact())  # who asks for float32 is not served with less


def test_minilm_in_bf16_is_good_enough_on_this_machine(tmp_path):
    if not supported("bf16"):
        pytest.skip("this machine has no instructions for bf16")
    catalogue = Catalogue(tmp_path / "project")
    catalogue.titles |= {f"more {n}": f"a {'very ' * n}red bowl number {n}" for n in range(20)}
    catalogue.pictures |= {f"more {n}": "one.png" for n in range(20)}
    catalogue.write()
    vectors = {}
    for wanted in ("bf16", "fp32"):
        spec = MiniLM(precision=wanted)
        catalogue.params.modalities["text"] = catalogue.params.modalities["text"].model_copy(update={"encoder": spec})
        report = catalogue.run("text")
        described = base.describe(catalogue.paths, "text")
        assert described == {"encoder": spec.model_dump(mode="json"), "fingerprint": spec.fingerprint()}
        vectors[wanted] = np.load(catalogue.paths.embeddings / "text" / "vectors.npy").astype(np.float64)
        assert (len(report.notes) == 1) == (wanted == "bf16") and report.counts["encoded"] == 23
        assert wanted == "fp32" or report.notes[0].startswith("bf16: cosine to fp32 0.999")
    cosines = (vectors["bf16"] * vectors["fp32"]).sum(axis=1)[vectors["fp32"].any(axis=1)]
    assert len(cosines) == 24 and cosines.min() > 0.995 and not np.array_equal(vectors["bf16"], vectors["fp32"])


def test_fp16_on_a_processor_that_lacks_it_gives_the_vectors_of_float32(tmp_path):
    if supported("fp16"):
        pytest.skip("this machine computes in fp16")
    given, plain = (run(MiniLM(precision=p), Store(tmp_path / p), TEXTS[:3]) for p in ("fp16", "fp32"))
    assert given.note == "fp16 is not what this machine computes fast: encoded in fp32" and plain.note == ""
    assert given.encoder == MiniLM() and given.vectors.tobytes() == plain.vectors.tobytes()

"""Sounds: which file of an item is heard, how much of it, and what becomes of files that cannot be used."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from pydantic import ValidationError

from fusionrec.embeddings.engine import embed
from fusionrec.embeddings.store import Store
from fusionrec.media.base import MediaError
from fusionrec.modalities.audio import Audio


@pytest.fixture
def catalogue(tmp_path: Path) -> tuple[pl.DataFrame, Path]:
    """a and f: noise, b: silence, c: a file that is gone, d: no sound, e: NaN, g: 3.5 s of noise in stereo."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.5, 0.5, 20_000).astype(np.float32)
    stereo = rng.uniform(-0.5, 0.5, (28_000, 2)).astype(np.float32)
    broken = np.where(np.arange(20_000) == 7, np.nan, noise)
    sounds = {"a": (noise, 16_000), "b": (noise * 0, 16_000), "e": (broken, 16_000), "g": (stereo, 8_000)}
    digests = {}
    for name, (samples, rate) in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, rate, subtype="FLOAT")
        digests[name] = hashlib.sha256((tmp_path / f"{name}.wav").read_bytes()).hexdigest()
    files = {"a": "a", "b": "b", "c": None, "d": None, "e": "e", "f": "a", "g": "g"}
    items = pl.DataFrame(
        {
            "item_id": list(files),
            "audio_path": ["gone.wav" if n == "c" else f and f"{f}.wav" for n, f in files.items()],
            "audio_sha256": [f and digests[f] for f in files.values()],
        }
    )
    return items, tmp_path


def test_a_sound_is_16_khz_mono_and_its_beginning(catalogue: tuple[pl.DataFrame, Path]) -> None:
    items, root = catalogue
    modality = Audio(max_seconds=2.0).build()
    rows = modality.rows(items, root)
    assert rows.present.tolist() == [True, True, False, False, True, True, True]
    samples, _ = soundfile.read(root / "a.wav", dtype="float32")
    np.testing.assert_array_equal(modality.load(0), samples)
    cut = modality.load(6)
    assert cut.shape == (32_000,) and cut.dtype == np.float32


def test_how_much_is_heard_is_part_of_the_content(catalogue: tuple[pl.DataFrame, Path]) -> None:
    items, root = catalogue
    long, short = (Audio(max_seconds=s).build().rows(items, root).content for s in (60.0, 0.5))
    assert long[0] == long[5] != long[6]  # the same file is one content
    assert not set(long) & set(short) - {""}
    assert list(Audio().build().rows(items, root).content) == list(long)


def test_what_cannot_be_heard_is_absent_with_a_reason_and_the_batch_goes_on(
    catalogue: tuple[pl.DataFrame, Path], tmp_path: Path
) -> None:
    items, root = catalogue
    spec = Audio()
    modality = spec.build()
    rows = modality.rows(items, root)
    result = embed(modality, rows, spec.encoder, Store(tmp_path / "store"))
    assert result.present.tolist() == [True, False, False, False, False, True, True]
    assert {row: code for row, (code, _) in result.failed.items()} == {1: "silent", 4: "not_finite"}
    assert result.vectors.shape == (7, 1506)
    np.testing.assert_array_equal(result.vectors[0], result.vectors[5])
    assert result.encoded == 2


def test_a_file_that_changed_since_ingest_is_not_used(catalogue: tuple[pl.DataFrame, Path]) -> None:
    items, root = catalogue
    modality = Audio().build()
    modality.rows(items, root)
    (root / "a.wav").write_bytes((root / "g.wav").read_bytes())
    with pytest.raises(MediaError) as caught:
        modality.load(0)
    assert caught.value.code == "changed_on_disk"


def test_a_catalogue_without_sounds_has_none(tmp_path: Path) -> None:
    rows = Audio().build().rows(pl.DataFrame({"item_id": ["a", "b", "c"]}), tmp_path)
    assert not rows.present.any()
    assert list(rows.content) == ["", "", ""]


@pytest.mark.parametrize("seconds", [0, -1, 601, float("nan")])
def test_the_length_has_bounds(seconds: float) -> None:
    with pytest.raises(ValidationError):
        Audio(max_seconds=seconds)

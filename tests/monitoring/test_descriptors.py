"""Descriptors against signals whose descriptors are known, and the store that keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fusionrec.embeddings.store import Store
from fusionrec.media.base import MediaError
from fusionrec.media.video import Clip
from fusionrec.modalities.base import Modality, ModalityRows
from fusionrec.modalities.image import Image
from fusionrec.modalities.text import Text
from fusionrec.monitoring import descriptors as d


def flat(*rgb: int, size: tuple[int, int] = (5, 7)) -> np.ndarray:
    return np.tile(np.array(rgb, np.uint8), (*size, 1))


@pytest.mark.parametrize(
    "pixels, expected",
    [
        (flat(0, 0, 0), (0, 0, 0)),
        (flat(255, 255, 255), (1, 0, 0)),
        (flat(255, 0, 0), (0.299, 0, 1)),
        (np.concatenate([flat(0, 0, 0), flat(255, 255, 255)]), (0.5, 0.5, 0)),
        (flat(100, 50, 50), (0.2547, 0, 0.5)),
    ],
)
def test_pictures(pixels: np.ndarray, expected: tuple[float, float, float]) -> None:
    assert d.picture((pixels,)) == pytest.approx(expected, abs=1e-3)


def test_several_pictures_are_averaged() -> None:
    assert d.picture((flat(0, 0, 0), flat(255, 255, 255, size=(3, 2))))[0] == pytest.approx(0.5)


def test_a_tone() -> None:
    time = np.arange(24_000) / 16_000
    duration, loudness, centroid = d.sound((0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32))
    assert duration == 1.5
    assert loudness == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert centroid == pytest.approx(1000, abs=30)


def test_three_times_as_loud_is_nine_and_a_half_decibels() -> None:
    quiet = np.random.default_rng(0).normal(0, 0.05, 9_000).astype(np.float32)
    a, b = d.sound(quiet), d.sound(3 * quiet)
    assert b[1] - a[1] == pytest.approx(9.54, abs=0.01)
    assert b[2] == pytest.approx(a[2], rel=1e-4)


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(700, np.float32)])
def test_silence_has_a_floor(samples: np.ndarray) -> None:
    assert d.sound(samples)[1:] == (d.FLOOR_DB, 0.0)


def clip(frames: np.ndarray, seconds: float) -> Clip:
    dense = np.full((1, 16), -1, np.int16)
    dense[0, : len(frames)] = np.arange(len(frames))
    return Clip(frames, np.linspace(0, seconds, len(frames)), np.full((1, 8), -1, np.int16), dense, seconds, 7, 5)


def test_motion_energy_is_change_of_brightness_per_second() -> None:
    frames = np.stack([flat(0, 0, 0), flat(51, 51, 51), flat(0, 0, 0)])  # 0.2 up, 0.2 down
    assert d.clip(clip(frames, 1.0)) == pytest.approx((1.0, 0.4))
    assert d.clip(clip(frames, 2.0)) == pytest.approx((2.0, 0.2))  # half as fast
    assert d.clip(clip(np.stack([flat(9, 9, 9)] * 3), 1.0))[1] == 0
    assert d.clip(clip(flat(9, 9, 9)[None], 1.0))[1] == 0  # one frame does not move


@pytest.mark.parametrize(
    "text, script", [("A lamp, 1947", "latin"), ("一盏灯 lamp 灯灯灯", "cjk"), ("лампа", "cyrillic"), ("12 %", "none")]
)
def test_script(text: str, script: str) -> None:
    assert d.script(text) == script


class Pictures(Modality):
    """Pictures in memory that count how often they are decoded; the second is broken."""

    def __init__(self) -> None:
        self.decoded = 0

    def rows(self, items: pl.DataFrame, root: Path) -> ModalityRows:
        content = ["%064x" % (k % 3) for k in range(len(items))]
        return ModalityRows(np.array([True] * 4 + [False]), content, np.zeros(5, np.int16))

    def load(self, index: int) -> Any:
        self.decoded += 1
        if index == 1:
            raise MediaError("truncated", "cut")
        return (flat(51 * index, 51 * index, 51 * index),)


def test_a_content_is_described_once_and_found_by_the_next_run(tmp_path: Path) -> None:
    items = pl.DataFrame(
        {"item_id": list("abcde"), "image_format": [["jpeg 640x480"], ["?"], None, ["png 32x16"], None]}
    )
    spec, source = Image(), Pictures()
    rows = source.rows(items, tmp_path)
    columns = {c.name: c.values for c in d.of_modality("image", spec, source, rows, items, Store(tmp_path / "d"))}
    assert columns["brightness"] == pytest.approx([0, np.nan, 0.4, 0, np.nan], nan_ok=True, abs=1e-3)
    assert columns["width"] == pytest.approx([640, np.nan, np.nan, 32, np.nan], nan_ok=True)
    assert source.decoded == 3  # item 3 has the content of item 0
    again = Pictures()
    d.of_modality("image", spec, again, rows, items, Store(tmp_path / "d"))
    assert again.decoded == 1  # only the broken one is tried again
    other = Pictures()
    d.of_modality("image", Image(first=2), other, rows, items, Store(tmp_path / "d"))
    assert other.decoded == 3  # another setting is another recipe


def test_texts() -> None:
    items = pl.DataFrame({"item_id": list("abc"), "title": ["A lamp", "一盏灯", None], "language": ["en", None, "en"]})
    spec = Text(fields=("title",))
    source = spec.build()
    rows = source.rows(items, Path())
    columns = {
        c.name: c.values.tolist() for c in d.of_modality("text", spec, source, rows, items, Store(Path("unused")))
    }
    assert columns["length"][:2] == [6.0, 3.0] and np.isnan(columns["length"][2])
    assert columns["language"] == ["en", "zh", None]
    assert columns["script"] == ["latin", "cjk", None]


def test_attributes_are_the_named_and_the_unknown_columns() -> None:
    items = pl.DataFrame(
        {
            "item_id": list("ab"),
            "title": list("xy"),
            "category": ["mug", None],
            "price": [1.5, None],
            "in_stock": [True, False],
            "tags": [["x"], None],
            "image_sha256": [["f"], None],
            "colour": ["red", "blue"],
            "weight": [3, 4],
        }
    )
    found = {c.name: c for c in d.attributes(items)}
    assert list(found) == ["category", "price", "in_stock", "colour", "weight"]
    assert found["price"].numeric and found["weight"].numeric and not found["in_stock"].numeric
    assert found["category"].values.tolist() == ["mug", None]


def test_presence_tells_what_is_missing_from_what_cannot_be_read() -> None:
    written = pl.DataFrame({"item_id": list("abc"), "image_paths": [["a.jpg"], ["b.jpg"], None]})
    accepted = written.with_columns(image_sha256=pl.Series([["f"], None, None], dtype=pl.List(pl.String)))
    found = {
        c.name: c
        for c in d.presence(
            written, accepted, {"image": np.array([True, False, False]), "text": np.array([True, True, False])}
        )
    }
    assert found["image given"].values.tolist() == ["yes", "yes", "no"] and found["image given"].subject == "image"
    assert found["image readable"].values.tolist() == ["yes", "no", None]
    assert found["image readable"].subject == "data quality"
    assert found["text given"].values.tolist() == ["yes", "yes", "no"]

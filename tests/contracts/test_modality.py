"""What every modality promises (modalities/base.py)."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
from PIL import Image as Pictures

from fusionrec.encoders.base import Attributes
from fusionrec.kinds import members
from fusionrec.media.video import Clip
from fusionrec.modalities import AnyModality
from fusionrec.modalities.base import Modality, ModalitySpec
from tests.media.streams import noisy

SPECS: dict[str, type[ModalitySpec]] = {cls.model_fields["kind"].default: cls for cls in members(AnyModality)}
EXAMPLES: dict[str, dict[str, Any]] = {"precomputed": {"file": "vectors.npy", "ids": "ids.csv"}}
N = 7
ABSENT = (2, 5)  # rows without any modality

pytestmark = pytest.mark.parametrize("kind", sorted(SPECS))


def catalogue(root: Path, changed: int | None = None) -> pl.DataFrame:
    """Seven items under ``root`` with texts, pictures and vectors; ``changed`` names an item with other content."""
    vectors, pictures, digests, sounds, films = [], [], [], [], []
    for n in range(N):
        salt = 100 if n == changed else 0
        vectors.append(np.random.default_rng(n + salt).normal(size=5).astype(np.float32))
        name = f"{n}.png"
        noise = np.random.default_rng(n + salt).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Pictures.fromarray(noise).save(root / name)
        pictures.append([name])
        digests.append([hashlib.sha256((root / name).read_bytes()).hexdigest()])
        noise = np.random.default_rng(n + salt).uniform(-0.5, 0.5, 4_000 + 100 * n)
        soundfile.write(root / f"{n}.wav", noise, 8_000)
        sounds.append(hashlib.sha256((root / f"{n}.wav").read_bytes()).hexdigest())
        film = noisy(list(np.repeat([noise_frames(n + salt)], 3 + n, axis=0)), n + salt)
        (root / f"{n}.mp4").write_bytes(film)
        films.append(hashlib.sha256((root / f"{n}.mp4").read_bytes()).hexdigest())
    here = [n for n in range(N) if n not in ABSENT]
    np.save(root / "vectors.npy", np.stack([vectors[n] for n in reversed(here)]))
    (root / "ids.csv").write_text("item_id\n" + "".join(f"i{n}\n" for n in reversed(here)))
    gone = set(ABSENT)
    return pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(N)],
            "title": [None if n in gone else f"title {n}{' new' if n == changed else ''}" for n in range(N)],
            "description": [None if n in gone else "about it" if n % 2 else "说明" for n in range(N)],
            "category": [None] * N,
            "brand": [None if n in gone else f"brand {n}{' new' if n == changed else ''}" for n in range(N)],
            "price": [None if n in gone or n == 4 else 3.5 * n for n in range(N)],
            "language": [None if n in gone else "en" if n % 2 else "zh" for n in range(N)],
            "image_paths": [None if n in gone else p for n, p in enumerate(pictures)],
            "image_sha256": [None if n in gone else d for n, d in enumerate(digests)],
            "audio_path": [None if n in gone else f"{n}.wav" for n in range(N)],
            "audio_sha256": [None if n in gone else d for n, d in enumerate(sounds)],
            "video_path": [None if n in gone else f"{n}.mp4" for n in range(N)],
            "video_sha256": [None if n in gone else d for n, d in enumerate(films)],
            "subtitles": [f"00:00.000 --> 00:09.000\nword {n}{' new' if n == changed else ''}" for n in range(N)],
        },
        schema_overrides={"category": pl.String, "image_paths": pl.List(pl.String), "image_sha256": pl.List(pl.String)},
    )


def noise_frames(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 48, 3), dtype=np.uint8)


def built(kind: str) -> Modality:
    return SPECS[kind].model_validate({"kind": kind, **EXAMPLES.get(kind, {})}).build()


def same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Pictures.Image):
        return a.tobytes() == b.tobytes()
    if isinstance(a, Clip):
        return same((a.frames, a.times, a.spread, a.dense), (b.frames, b.times, b.spread, b.dense))
    return bool(np.array_equal(a, b))


def test_rows_describe_every_item(kind: str, tmp_path: Path) -> None:
    rows = built(kind).rows(catalogue(tmp_path), tmp_path)
    assert rows.present.tolist() == [n not in ABSENT for n in range(N)]
    assert rows.present.dtype == bool
    assert rows.group.shape == (N,)
    assert rows.group.dtype == np.int16
    assert rows.group.min() >= 0
    assert rows.group.max() < len(rows.group_names)
    assert len(rows.content) == N
    for here, digest in zip(rows.present, rows.content, strict=True):
        assert re.fullmatch(r"[0-9a-f]{64}", digest) if here else digest == ""


def test_the_encoder_reads_what_load_gives(kind: str, tmp_path: Path) -> None:
    spec = SPECS[kind].model_validate({"kind": kind, **EXAMPLES.get(kind, {})})
    modality = spec.build()
    rows = modality.rows(catalogue(tmp_path), tmp_path)
    types = {
        "text": str,
        "image": (Pictures.Image, tuple, list),
        "audio": np.ndarray,
        "video": Clip,
        "vector": np.ndarray,
        "attributes": Attributes,
    }
    for n in np.flatnonzero(rows.present):
        assert isinstance(modality.load(int(n)), types[spec.encoder.accepts])


def test_content_changes_exactly_with_the_input(kind: str, tmp_path: Path) -> None:
    before_at, after_at = tmp_path / "a", tmp_path / "b"
    before_at.mkdir()
    after_at.mkdir()
    old, new = built(kind), built(kind)
    before, after = old.rows(catalogue(before_at), before_at), new.rows(catalogue(after_at, changed=3), after_at)
    assert [n for n in range(N) if before.content[n] != after.content[n]] == [3]
    assert [n for n in np.flatnonzero(before.present) if not same(old.load(int(n)), new.load(int(n)))] == [3]
    present = [c for c in before.content if c]
    assert len(set(present)) == len(present)


def test_the_order_of_the_items_does_not_matter(kind: str, tmp_path: Path) -> None:
    items, order = catalogue(tmp_path), [4, 0, 6, 2, 5, 1, 3]
    first, second = built(kind), built(kind)
    rows, turned = first.rows(items, tmp_path), second.rows(items[order], tmp_path)
    assert [turned.content[k] for k in range(N)] == [rows.content[o] for o in order]
    names = [turned.group_names[g] for g in turned.group]
    assert [n for n, p in zip(names, turned.present, strict=True) if p] == [
        rows.group_names[rows.group[o]] for o in order if rows.present[o]
    ]
    for place, n in enumerate(order):
        if rows.present[n]:
            assert same(second.load(place), first.load(n))


def test_an_encoder_that_reads_something_else_is_refused(kind: str) -> None:
    reads = SPECS[kind].model_validate({"kind": kind, **EXAMPLES.get(kind, {})}).encoder.accepts
    wrong = "minilm" if reads != "text" else "efficientnet_lite0"
    with pytest.raises(ValueError, match="reads"):
        SPECS[kind].model_validate({"kind": kind, **EXAMPLES.get(kind, {}), "encoder": {"kind": wrong}})

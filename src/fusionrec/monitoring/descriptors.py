"""Interpretable descriptors of items: what a person would name when asked how two batches of content differ.

What needs decoding is computed once for each content and kept in a content-addressed store of its own
(``.fusionrec/descriptors``, the class that also holds the embeddings: atomic, checked by sha256). A key is the content
hash, a fingerprint names the recipe (this file's :data:`RECIPE`, the decoder's, and the modality's settings). Nothing
is computed in the pipeline: ``monitor`` describes the reference on its first run and finds it in the store afterwards.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fusionrec.data.schema import BESIDE, MEDIA, TABLES
from fusionrec.embeddings.engine import embed
from fusionrec.embeddings.shards import Progress, silent
from fusionrec.embeddings.store import Store
from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec
from fusionrec.modalities.base import Modality, ModalityRows, ModalitySpec
from fusionrec.types import Columns as C
from fusionrec.types import Float32

if TYPE_CHECKING:
    import polars as pl

RECIPE = 1  # raise when a number below changes its meaning
AUDIO_RATE = 16_000
FLOOR_DB = -120.0
ATTRIBUTES, QUALITY = "attributes", "data quality"
MAX_ATTRIBUTES = 24


@dataclass(frozen=True)
class Column:
    """One descriptor of n items. ``values``: (n,) float64 with NaN where absent, or (n,) object of str or None.

    ``part``: the modality, attributes or data quality; ``subject``: who is to blame if it drifts; ``reads``: what the
    modality's encoder reads (text, image, ...), which chooses the words.
    """

    part: str
    name: str
    values: NDArray[Any]
    subject: str = ""
    reads: str = ""

    @property
    def numeric(self) -> bool:
        return self.values.dtype != object

    def rows(self, chosen: NDArray[Any]) -> Column:
        """The same descriptor of some of the items."""
        return Column(self.part, self.name, self.values[chosen], self.subject, self.reads)


def picture(pictures: Any) -> tuple[float, float, float]:
    """Brightness (mean luma, Rec. 601), contrast (its standard deviation) and saturation (HSV) of RGB pictures of any
    size, each in [0, 1]; the mean over several."""
    return tuple(np.mean([_picture(np.asarray(p)) for p in pictures], axis=0).tolist())


def _picture(rgb: NDArray[Any]) -> tuple[float, float, float]:
    x = rgb[..., :3].astype(np.float32) / 255
    luma = x @ np.array([0.299, 0.587, 0.114], np.float32)
    high, low = x.max(axis=-1), x.min(axis=-1)
    return float(luma.mean()), float(luma.std()), float(((high - low) / np.maximum(high, 1e-6)).mean())


def sound(samples: Float32) -> tuple[float, float, float]:
    """Duration in seconds (of what is heard), loudness (RMS) in dB of full scale, and spectral centroid in Hz (mean
    frequency of the magnitude spectrum, frames of 64 ms weighted by their energy). ``samples`` (N,) mono at 16 kHz."""
    x = np.asarray(samples, np.float32)
    rms = float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if len(x) else 0.0
    loud = max(FLOOR_DB, 20 * float(np.log10(rms))) if rms > 0 else FLOOR_DB
    size = 1024
    padded = np.pad(x, (0, -len(x) % size)) if len(x) else np.zeros(size, np.float32)
    spectrum = np.abs(np.fft.rfft(padded.reshape(-1, size) * np.hanning(size), axis=1))
    power = (spectrum**2).sum(axis=1)
    frequency = np.fft.rfftfreq(size, 1 / AUDIO_RATE)
    centroid = (spectrum @ frequency) / np.maximum(spectrum.sum(axis=1), 1e-12)
    return len(x) / AUDIO_RATE, loud, float((centroid * power).sum() / max(float(power.sum()), 1e-20))


def clip(value: Any) -> tuple[float, float]:
    """Duration in seconds, and motion energy: mean change of brightness (in [0, 1]) per second, over neighbouring
    frames of the densely sampled windows of a :class:`fusionrec.media.video.Clip`."""
    luma = value.frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    changes = []
    for window in value.dense:
        rows = window[window >= 0]
        steps = np.diff(value.times[rows])
        moved = np.abs(np.diff(luma[rows], axis=0)).mean(axis=(1, 2))
        changes += (moved / np.maximum(steps, 1e-3)).tolist()
    return float(value.duration), float(np.mean(changes)) if changes else 0.0


DECODED: dict[str, tuple[Callable[[Any], tuple[float, ...]], tuple[str, ...]]] = {
    "image": (picture, ("brightness", "contrast", "saturation")),
    "audio": (sound, ("duration", "loudness", "spectral centroid")),
    "video": (clip, ("duration", "motion energy")),
}
"""What an encoder reads -> how it is described, and the names of the numbers."""


class Described(EncoderSpec):
    """Descriptors as an encoder, so that the embedding engine decodes, skips what is known and survives bad files."""

    accepts: ClassVar[Accepts] = "vector"
    kind: Literal["descriptors"] = "descriptors"
    reads: str
    settings: str

    def fingerprint(self) -> str:
        text = json.dumps(["descriptors", RECIPE, self.reads, _decoder_recipe(self.reads), self.settings])
        return hashlib.sha256(text.encode()).hexdigest()

    def build(self) -> Encoder:
        return _Describer(self.reads)


def _decoder_recipe(reads: str) -> str:
    from importlib import import_module

    return str(getattr(import_module(f"fusionrec.media.{reads}"), "RECIPE", ""))


class _Describer(Encoder):
    def __init__(self, reads: str) -> None:
        self.describe, names = DECODED[reads]
        self.dim = len(names) + 1

    def encode(self, batch: Sequence[Any]) -> Float32:
        # The store refuses rows of zeros, and a black picture is one: a 1 stands at the end of every row.
        return np.array([(*self.describe(value), 1.0) for value in batch], np.float32).reshape(len(batch), self.dim)


def of_modality(
    name: str,
    spec: ModalitySpec,
    source: Modality,
    rows: ModalityRows,
    items: pl.DataFrame,
    store: Store,
    progress: Progress = silent,
) -> list[Column]:
    """The descriptors of one modality; ``source`` and ``rows`` are the modality read from ``items`` (n rows)."""
    reads = str(spec.encoder.accepts)
    if reads in DECODED:
        settings = json.dumps(spec.model_dump(mode="json", exclude={"encoder"}), sort_keys=True)
        found = embed(source, rows, Described(reads=reads, settings=settings), store, progress=progress)
        numbers = np.full((len(items), len(DECODED[reads][1])), np.nan)
        if found.vectors.shape[1]:
            numbers[found.present] = found.vectors[found.present, :-1]
        out = [Column(name, what, numbers[:, k], reads=reads) for k, what in enumerate(DECODED[reads][1])]
        return out + (_sizes(name, reads, items) if reads == "image" else [])
    if reads == "text":
        texts = [source.load(i) if here else None for i, here in enumerate(rows.present)]
        length = np.array([np.nan if t is None else len(t) for t in texts], np.float64)
        language = [rows.group_names[g] if here else None for g, here in zip(rows.group, rows.present, strict=True)]
        return [
            Column(name, "length", length, reads=reads),
            Column(name, "language", _texts(language), reads=reads),
            Column(name, "script", _texts([None if t is None else script(t) for t in texts]), reads=reads),
        ]
    return []


def _sizes(name: str, reads: str, items: pl.DataFrame) -> list[Column]:
    """Width and height of the first picture, from its header as ingest read it ("jpeg 640x480")."""
    sizes = np.full((len(items), 2), np.nan)
    for row, formats in enumerate(items["image_format"].to_list() if "image_format" in items.columns else ()):
        found = re.fullmatch(r"\S+ (\d+)x(\d+)", (formats or [""])[0] or "")
        if found:
            sizes[row] = float(found[1]), float(found[2])
    return [Column(name, what, sizes[:, k], reads=reads) for k, what in enumerate(("width", "height"))]


def script(text: str) -> str:
    """The script of most of the first 200 letters, by their Unicode names (latin, cjk, cyrillic, ...), or none."""
    letters = [ch for ch in text if ch.isalpha()][:200]
    words = Counter(re.split(r"[ -]", unicodedata.name(ch, "unknown"))[0].lower() for ch in letters)
    return min(words, key=lambda w: (-words[w], w)) if words else "none"


def attributes(items: pl.DataFrame) -> list[Column]:
    """Category, brand, price, stock and every attribute column that the contract does not name (at most
    :data:`MAX_ATTRIBUTES`); numbers as numbers, everything else as categories."""
    import polars as pl

    derived = {f"{kind}_{end}" for kind in MEDIA.values() for end in BESIDE}
    named = [c for c in (C.CATEGORY, "brand", "price", "in_stock") if c in items.columns]
    further = [
        c for c in items.columns if c not in TABLES["items"] and c not in derived and not items[c].dtype.is_nested()
    ]
    out = []
    for name in (named + further)[:MAX_ATTRIBUTES]:
        column = items[name]
        if column.dtype.is_numeric():
            out.append(
                Column(ATTRIBUTES, name, column.cast(pl.Float64).fill_null(np.nan).to_numpy().astype(np.float64))
            )
        else:
            out.append(Column(ATTRIBUTES, name, _texts(column.cast(pl.String).to_list())))
    return out


def presence(
    written: pl.DataFrame, accepted: pl.DataFrame, modalities: Mapping[str, NDArray[np.bool_]]
) -> list[Column]:
    """Two columns a modality ("yes", "no"). ``<name> given``: the catalogue has it; if that changes, the modality is to
    blame. ``<name> readable``: of what is given, whether it could be used; if that changes, data quality is.

    ``written``, ``accepted``: the item table before and after the gate, of the same rows; ``modalities``: name -> (n,)
    bool, what the modality sees in ``accepted``. Media columns that no modality of params.yaml reads count too.
    """
    given = dict(modalities)
    readable: dict[str, NDArray[np.bool_]] = {}
    for column, kind in MEDIA.items():
        if column in written.columns:
            given[kind] = written[column].is_not_null().to_numpy()
            readable[kind] = accepted[f"{kind}_sha256"].is_not_null().to_numpy()
    out = [
        Column(QUALITY, f"{name} given", _texts(["yes" if x else "no" for x in mask]), name)
        for name, mask in sorted(given.items())
    ]
    for name, mask in sorted(readable.items()):
        answers = [("yes" if x else "no") if g else None for g, x in zip(given[name], mask, strict=True)]
        out.append(Column(QUALITY, f"{name} readable", _texts(answers), QUALITY))
    return out


def _texts(values: Sequence[str | None]) -> NDArray[Any]:
    out = np.empty(len(values), object)
    out[:] = values
    return out

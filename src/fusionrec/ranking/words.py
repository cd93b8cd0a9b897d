"""The user's own words (B6): what somebody wrote and asked strictly before an impression, pooled.

Vectors are those of the text encoder's query side, standardised within their language and then turned to the directions
of taste in the items' texts (those of :mod:`fusionrec.ranking.fields`), so that words and items can be compared. How
words are distributed is learnt from those before the end of training, each user weighing the same, and only where at
least :data:`LEAST` users tell it: a mean of fewer would tell of a person. The words themselves are no part of what is
learnt: somebody tells them by :meth:`Hearing.hear`.
Legend: W words, D their dimension, R directions, N impressions, B rows of a batch, I items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from fusionrec.fusion.space import FeatureSpace
from fusionrec.ranking.base import Impressions, Known, Words
from fusionrec.ranking.past import Past, Spans
from fusionrec.types import Float32, Int32, Int64, Interactions

LEAST = 5
"""Fewer users tell no mean."""
ALL = "all"
ALIKE = 2
"""Likenesses to the item: of the mean of the words, and of the latest."""
_NEVER, _ALWAYS = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True)
class Said:
    """``mean`` (B, R) float32 of what each row's user said, zero where nothing; ``count`` (B,) int64 of how many;
    ``alike`` (B, 2 or 0) float32 cosines with the row's item."""

    mean: Float32
    count: Int64
    alike: Float32


class Hearing:
    """``scale``: language (or :data:`ALL`) -> (2, D) float32 mean and deviation; ``space``: that of the items'
    content; where it holds no texts, words stay as they are and are compared with nothing."""

    def __init__(self, scale: Mapping[str, Float32], modality: str, space: FeatureSpace, last: int) -> None:
        self.scale, self.modality, self.space, self.last = dict(scale), modality, space, last
        self.compares = modality in space.modalities
        self.hear(None)
        self.own = np.zeros((0, self.width), np.float32)

    @classmethod
    def learn(cls, train: Impressions, known: Known, space: FeatureSpace, last: int) -> Hearing | None:
        """From the words before the last impression of training; the known words heard.

        None where there is nothing to hear: no words, fewer than :data:`LEAST` users with some, or impressions without
        times, of which nobody knows what was said before.
        """
        if known.words is None or train.time is None:
            return None
        earlier = known.words.before(int(train.time.max()))
        scale = _scales(earlier)
        if ALL not in scale:
            return None
        hearing = cls(scale, known.words.modality, space, last)
        hearing.hear(known.words)
        return hearing

    @property
    def width(self) -> int:
        """R."""
        return self.space.dims[self.modality] if self.compares else self.scale[ALL].shape[1]

    @property
    def compared(self) -> int:
        """The number of cosines."""
        return ALIKE if self.compares else 0

    def hear(self, words: Words | None) -> None:
        """Bind what users said from now on; None: nobody said anything.

        Raises ValueError for vectors of another dimension than those of the fit."""
        count = 0 if words is None else len(words)
        row = np.arange(count, dtype=np.int32)
        self.vectors: Float32 = np.zeros((0, self.width), np.float32)
        user, time = np.zeros(0, np.int32), np.zeros(0, np.int64)
        if words is not None and count:
            user, time, self.vectors = words.user, words.time, self._turned(words)
        users = int(user.max()) + 1 if count else 0
        self.past = Past(Interactions(user, row, time, users, count), self.last)

    def _turned(self, words: Words) -> Float32:
        """(W, R)."""
        dim = self.scale[ALL].shape[1]
        if words.vectors.shape[1] != dim:
            raise ValueError(f"words have {words.vectors.shape[1]} numbers, the ranker learnt {dim}: train it again")
        z = np.empty_like(words.vectors, dtype=np.float32)
        for language in np.unique(words.language):
            mean, deviation = self.scale.get(str(language), self.scale[ALL])
            z[words.language == language] = (words.vectors[words.language == language] - mean) / deviation
        return z if not self.compares else z @ self.space.arrays()[f"space/{self.modality}/basis"]

    def attach(self, vectors: Mapping[str, Float32]) -> None:
        """Bind the catalogue whose rows :meth:`at` is given: its vectors in ``space``."""
        if self.compares:
            self.own = vectors[self.modality]

    def spans(self, user: Int32 | Int64, time: Int64 | None, timed: bool = True) -> Spans:
        """What ``user`` (N,) said strictly before ``time`` (N,), None: everything; not ``timed``: nothing, as nobody
        knows what came before."""
        when = time if time is not None else np.full(len(user), _ALWAYS)
        return self.past.spans(user.astype(np.int32), when if timed else np.full(len(user), _NEVER))

    def at(self, spans: Spans, item: Int64) -> Said:
        """Of the spans (B,), beside ``item`` (B,)."""
        bags = self.past.bags(spans, item)
        share = np.repeat(1 / np.maximum(bags.counts, 1), bags.counts).astype(np.float32)
        ends = np.append(bags.offsets, len(bags.items))
        pick = sparse.csr_matrix((share, bags.items, ends), shape=(len(item), len(self.vectors)))
        mean = np.asarray(pick @ self.vectors, np.float32)
        if not self.compares:
            return Said(mean, bags.counts, np.zeros((len(item), 0), np.float32))
        latest = np.zeros_like(mean)
        some = spans.stop > spans.start
        latest[some] = self.vectors[self.past.item[spans.stop[some] - 1]]
        own = self.own[item]
        return Said(mean, bags.counts, np.stack([_cosine(mean, own), _cosine(latest, own)], axis=1))

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything learnt; no word."""
        told = {f"words/scale/{language}": pair for language, pair in self.scale.items()}
        return {**told, f"words/modality/{self.modality}": np.zeros(0, np.float32)}

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray], space: FeatureSpace, last: int) -> Hearing | None:
        """The inverse of :meth:`arrays`, not attached, and nothing heard; None where they hold none of it."""
        mine = {k.removeprefix("words/"): np.asarray(v) for k, v in arrays.items() if k.startswith("words/")}
        names = [k.removeprefix("modality/") for k in mine if k.startswith("modality/")]
        if not names:
            return None
        scale = {k.removeprefix("scale/"): v for k, v in mine.items() if k.startswith("scale/")}
        return cls(scale, names[0], space, last)


def _scales(words: Words) -> dict[str, Float32]:
    """Language -> (2, D) mean and deviation, of those and of :data:`ALL` where enough users tell it."""
    found = {}
    for language in (ALL, *np.unique(words.language).tolist()):
        here = np.ones(len(words), bool) if language == ALL else words.language == language
        _, who, count = np.unique(words.user[here], return_inverse=True, return_counts=True)
        if len(count) < LEAST:
            continue
        weight = 1 / (count[who] * len(count))  # who says much is one person all the same
        x = words.vectors[here].astype(np.float64)
        mean = weight @ x
        deviation = np.sqrt(weight @ (x - mean) ** 2)
        floor = 1e-3 * max(float(np.median(deviation)), 1e-6)
        found[str(language)] = np.stack([mean, np.maximum(deviation, floor)]).astype(np.float32)
    return found


def _cosine(a: Float32, b: Float32) -> Float32:
    """(B,) of rows, 0 where one is zero."""
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return ((a * b).sum(1) / np.maximum(length, 1e-9)).astype(np.float32)

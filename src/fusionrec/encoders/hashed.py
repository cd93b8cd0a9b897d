"""Attributes as a vector without anything learnt: signs from a hash for categories, fixed smooth bumps for numbers.

A value of a categorical field becomes ``buckets`` signs, the bits of its hash, so that any two values are nearly at
right angles (Weinberger et al. 2009, "Feature hashing for large scale multitask learning", arXiv:0902.2206; the dense
signs are the random projection of Achlioptas 2003, doi:10.1016/S0022-0000(03)00025-4). A number becomes bumps over
t = sign(x) log(1 + |x|), so that 5 and 10 are as far apart as 50 and 100 are. Every field has a column that says
whether it is known. Because there is no table of values and no mean, a new value or a new item changes no other item's
vector and nothing has to be fitted again; what is standardised is standardised by the models, on what they train on.

Legend: V values of a field, S buckets, T bumps.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fusionrec.encoders.base import Accepts, Attributes, Encoder, EncoderSpec
from fusionrec.encoders.weights import fingerprint
from fusionrec.types import Float32

LOWEST, HIGHEST, STEP = -4.0, 16.0, 0.5
"""Centres of the bumps in t, and their width: prices from 0 to nine million differ by bumps, others by t alone."""
LINE = 8.0  # t is divided by this in the column that has no bounds
BITS = 512  # of the hash: the most buckets there can be


class Hashed(EncoderSpec):
    """Reads attributes; needs no weights. ``buckets``: numbers a categorical field becomes; two of its values have a
    cosine of about 0, give or take 1 / sqrt(buckets)."""

    accepts: ClassVar[Accepts] = "attributes"
    kind: Literal["hashed"] = "hashed"
    buckets: int = Field(64, ge=8, le=BITS)

    def fingerprint(self) -> str:
        bumps = (LOWEST, HIGHEST, STEP, LINE)
        return fingerprint(self.kind, buckets=self.buckets, hash="blake2b", bits=BITS, bumps=bumps, version=1)

    def build(self) -> Encoder:
        return HashedEncoder(self.buckets)


class HashedEncoder(Encoder):
    """A row has 1 + S columns for each categorical field, then 2 + T for each number. ``dim`` is 0 until the first
    batch tells how many fields there are."""

    dim = 0
    chunk = 4096

    def __init__(self, buckets: int) -> None:
        self.buckets = buckets

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n :class:`Attributes` of the same fields -> (n, D) float32. Raises ValueError where the fields differ."""
        rows = [self._row(one) for one in batch]
        widths = {len(row) for row in rows} | ({self.dim} if self.dim else set())
        if len(widths) != 1:
            raise ValueError(f"found rows of {sorted(widths)} numbers, expected the same fields for every item")
        self.dim = widths.pop()
        return np.stack(rows)

    def _row(self, one: Attributes) -> Float32:
        return np.concatenate(
            [*(category(values, self.buckets) for values in one.categories), *map(number, one.numbers)]
        )


def category(values: Sequence[str], buckets: int) -> Float32:
    """(1 + S,) float32: 1 where there is a value, then the sum of the values' signs / sqrt(S V), of length near 1."""
    out = np.zeros(1 + buckets, np.float32)
    if values:
        out[0] = 1
        out[1:] = np.sum([signs(value, buckets) for value in values], axis=0) / math.sqrt(buckets * len(values))
    return out


@lru_cache(maxsize=16_384)
def signs(value: str, buckets: int) -> Float32:
    """(S,) float32 of -1 and 1, the first bits of the value's hash."""
    digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=BITS // 8).digest()
    bits = np.unpackbits(np.frombuffer(digest, np.uint8))[:buckets]
    out = (2 * bits.astype(np.float32) - 1).astype(np.float32)
    out.setflags(write=False)  # it is handed out again
    return out


def number(x: float | None) -> Float32:
    """(2 + T,) float32: 1 where it is known, t / :data:`LINE`, then the bumps exp(-((t - centre) / step)^2 / 2)."""
    centres = np.arange(LOWEST, HIGHEST + STEP / 2, STEP)
    out = np.zeros(2 + len(centres), np.float32)
    if x is not None:
        t = math.copysign(math.log1p(abs(x)), x)
        out[:2] = 1, t / LINE
        out[2:] = np.exp(-0.5 * ((min(max(t, LOWEST), HIGHEST) - centres) / STEP) ** 2)
    return out

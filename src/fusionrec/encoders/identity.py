"""Vectors that were computed elsewhere, used as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec
from fusionrec.encoders.weights import fingerprint
from fusionrec.types import Float32


class Identity(EncoderSpec):
    """The output is the input as float32."""

    accepts: ClassVar[Accepts] = "vector"
    kind: Literal["identity"] = "identity"

    def fingerprint(self) -> str:
        return fingerprint(self.kind, dtype="float32", version=1)

    def build(self) -> Encoder:
        return IdentityEncoder()


class IdentityEncoder(Encoder):
    """``dim`` is 0 until the first batch tells it."""

    dim = 0
    chunk = 4096

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n vectors (D,) -> (n, D) float32. Raises ValueError where the lengths differ."""
        out = np.stack([np.asarray(v, np.float32) for v in batch])
        if out.ndim != 2 or self.dim not in (0, out.shape[1]):
            raise ValueError(f"found vectors of shape {out.shape[1:]}, expected ({self.dim},)")
        self.dim = out.shape[1]
        return out

"""The encoder contract: inputs of one kind (texts, pictures, vectors) become float32 rows.

The fingerprint names everything that changes the output: weights digest, pooling, size, template,
precision. The store's key is this fingerprint joined with the content hash.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fusionrec.types import Float32, Spec

Accepts = Literal["text", "image", "audio", "video", "vector", "attributes"]


@dataclass(frozen=True)
class Attributes:
    """What an encoder that reads ``attributes`` gets. ``categories``: for each field its values, different, ascending,
    none where it is unknown; ``numbers``: for each field a finite float, or None where it is unknown."""

    categories: tuple[tuple[str, ...], ...]
    numbers: tuple[float | None, ...]


class Encoder(ABC):
    """A loaded, frozen encoder. ``dim`` is the width of its vectors."""

    dim: int
    chunk: int = 64
    """How many inputs the engine hands over at once (it is also the step of the progress bar)."""

    @abstractmethod
    def encode(self, batch: Sequence[Any]) -> Float32:
        """n inputs -> (n, dim) float32, finite. Row i depends on input i alone, up to rounding."""


class EncoderSpec(Spec):
    """Base of the encoder sections of params.yaml. ``accepts`` says which inputs it reads.

    Importing an encoder file must not import torch; ``build`` does.
    """

    accepts: ClassVar[Accepts]
    kind: Any

    def fingerprint(self) -> str:
        """Hex sha256 over the spec and the sha256 of the weights; does not load the weights.

        Raises ConfigError where the weights are absent, with what to install.
        """
        raise NotImplementedError

    def build(self) -> Encoder:
        """Load the weights (verified against their pinned sha256) and return the encoder."""
        raise NotImplementedError

    def for_queries(self) -> EncoderSpec:
        """What encodes a search query that is compared with this encoder's vectors: itself, unless the model was
        trained to tell questions from passages. The vectors have the same width and may be compared."""
        return self

"""The encoder contract: inputs of one kind (texts, pictures, vectors) become float32 rows.

The fingerprint names everything that changes the output: weights digest, pooling, size, template,
precision. The store's key is this fingerprint joined with the content hash.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from fusionrec.encoders.forward import Precision
from fusionrec.types import Float32, Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

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
    at_once: int = 2
    """How many calls of :meth:`encode` may run at once, in several threads."""

    @abstractmethod
    def encode(self, batch: Sequence[Any]) -> Float32:
        """n inputs -> (n, dim) float32, finite. Row i depends on input i alone, up to rounding; the same batch gives
        the same bits. Raises OutOfMemory where one input alone does not fit into memory."""

    @property
    def halved(self) -> int:
        """How many batches have not fitted into memory so far and were computed in halves."""
        network = getattr(self, "forward", None)  # a :class:`Forward`, where there is one
        return network.halved if network else 0


class Trainee(ABC):
    """An encoder while it learns: a front that stays as it is, and behind it a module whose parameters are trained.

    ``dim``: the width D of its vectors. The front runs once for each input, so whatever does not learn belongs there.
    """

    dim: int
    module: nn.Module
    work: float = math.inf
    """Multiplications of the pieces that have to wait for each other: small ones run on one thread."""

    @abstractmethod
    def prepare(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        """The front: one array an input, a function of that input alone. All of them are kept in memory while the
        module learns."""

    def meet(self, prepared: Sequence[np.ndarray]) -> None:  # noqa: B027  (most need no statistics)
        """Called once before the first step, with what the items of the training split were prepared to."""

    @abstractmethod
    def forward(self, prepared: Sequence[np.ndarray]) -> Tensor:
        """n prepared inputs -> (n, D), on the module's device. Row i depends on input i alone, up to rounding."""


class EncoderSpec(Spec):
    """Base of the encoder sections of params.yaml. ``accepts`` says which inputs it reads.

    ``learnt``: the stage ``learn`` makes its weights, and only :meth:`bound` to them can it be used. ``openable``: how
    many of its last layers can be trained further (:meth:`opened`); 0: only a head on its vectors can.
    Importing an encoder file must not import torch; ``build`` does.
    """

    accepts: ClassVar[Accepts]
    learnt: ClassVar[bool] = False
    openable: ClassVar[int] = 0
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

    @property
    def half(self) -> Precision:
        """What its products are computed in: its ``precision``, or that of the encoder inside of it."""
        return getattr(self, "precision", "fp32")

    def exact(self) -> Self:
        """The same encoder in float32."""
        return self if self.half == "fp32" else self.model_copy(update={"precision": "fp32"})

    def bound(self, folder: Path) -> Self:
        """This encoder with the weights that the stage ``learn`` wrote to ``folder``; a frozen one is itself, and reads
        nothing. Raises IntegrityError where the weights are missing, damaged, or those of other settings."""
        return self

    def opened(self, layers: int) -> Trainee:
        """A copy of the encoder whose last ``layers`` layers learn. Raises NotImplementedError where ``openable``
        is 0."""
        raise NotImplementedError

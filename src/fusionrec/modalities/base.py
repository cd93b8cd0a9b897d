"""The modality contract: catalogue rows become encoder inputs, a present mask and content hashes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusionrec.types import Bool, Spec

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class ModalityRows:
    """What one modality sees of I items, in the order of the rows given.

    ``present`` (I,) bool; ``content`` I hex sha256 digests ("" where absent) over exactly the bytes that
    determine the encoder's input; ``group`` (I,) int16, the sub-population within which the vectors are
    standardised (language for text, else 0); ``group_names`` their names.
    """

    present: Bool
    content: Sequence[str]
    group: NDArray[np.int16]
    group_names: tuple[str, ...] = ("",)


class Modality(ABC):
    """Reads one modality of a catalogue."""

    @abstractmethod
    def rows(self, items: pl.DataFrame, root: Path) -> ModalityRows:
        """``items``: the accepted item table; ``root``: the folder that media paths are relative to."""

    @abstractmethod
    def load(self, index: int) -> Any:
        """The encoder input of the item at ``index`` of the last :meth:`rows` (a string, a picture, a vector).

        Raises MediaError (a ValueError with a reason code) where a file cannot be decoded.
        """


class ModalitySpec(Spec):
    """Base of the modality sections of params.yaml; every one has an ``encoder``."""

    kind: Any
    encoder: Any

    def build(self) -> Modality:
        raise NotImplementedError


def check_accepts(wanted: str) -> Callable[[Any], Any]:
    """A validator of the ``encoder`` field: the encoder must read what this modality gives."""

    def check(encoder: Any) -> Any:
        if encoder.accepts != wanted:
            raise ValueError(f"the encoder {encoder.kind!r} reads {encoder.accepts}, expected one that reads {wanted}")
        return encoder

    return check

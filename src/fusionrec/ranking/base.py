"""The ranker contract: candidates of a request get a probability or a value per task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fusionrec.types import Float32, Int64, ItemSet, Requests, Spec

if TYPE_CHECKING:
    import polars as pl


class Ranker(ABC):
    """Re-scores retrieved candidates. ``tasks`` names its outputs, e.g. ("click", "conversion")."""

    tasks: ClassVar[tuple[str, ...]]

    @abstractmethod
    def fit(self, impressions: pl.DataFrame, items: ItemSet, users: pl.DataFrame | None, *, seed: int = 0) -> None:
        """Learn from impressions with their outcomes."""

    @abstractmethod
    def predict(self, requests: Requests, candidates: Int64) -> dict[str, Float32]:
        """``candidates`` (B, K) item rows, -1 for none -> task -> (B, K) float32, NaN-free."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything learnt, as named arrays."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """The inverse of :meth:`arrays`."""


class RankerSpec(Spec):
    """Base of the ranker sections of params.yaml."""

    kind: Any

    def build(self) -> Ranker:
        raise NotImplementedError

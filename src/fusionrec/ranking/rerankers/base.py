"""The re-ranker contract: the last look at a list as a whole, after every item was judged for itself.

A re-ranker learns nothing: its spec is all there is of it. Legend: B requests, W candidates, K list length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from pydantic import Field, PositiveInt

from fusionrec.types import Float32, Int64, ItemSet, Spec


class Reranker(ABC):
    """Chooses and orders the final list among the best ``depth`` candidates."""

    depth: int

    @abstractmethod
    def attach(self, items: ItemSet) -> None:
        """Bind the catalogue whose rows candidates name from now on."""

    @abstractmethod
    def rerank(self, items: Int64, scores: Float32, k: int) -> tuple[Int64, Float32]:
        """``items`` (B, W) best first with their ``scores``, -1 and -inf for none -> (B, K) of both, K = min(k, W).

        Items are those of the candidates, each once; scores fall along a list; none stands after all that are.
        """


class RerankerSpec(Spec):
    """Base of the re-ranker sections of params.yaml. Importing a re-ranker's file must not import torch."""

    kind: Any
    depth: PositiveInt = Field(50, description="candidates among which the list is chosen")

    def build(self) -> Reranker:
        """An unattached re-ranker."""
        raise NotImplementedError

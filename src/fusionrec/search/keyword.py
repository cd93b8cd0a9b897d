"""The keyword side: BM25 over the items' words.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009; scores of every document are
kept as a sparse matrix (Lù, "BM25S", arXiv 2407.03618). Legend: I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusionrec.search.words import tokens
from fusionrec.types import Float32

K1, B = 1.2, 0.75


class Keywords:
    """An index over I texts ("" where an item has none)."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        lists = [tokens(text) for text in texts]
        self._engine: Any = None
        if any(lists):
            import bm25s

            self._engine = bm25s.BM25(k1=K1, b=B, method="lucene")
            self._engine.index(lists, show_progress=False)

    def scores(self, text: str) -> Float32:
        """(I,) float32, at least 0; 0 where an item has no word of the query. A word that is said twice counts once."""
        known = self.known(text)
        if not known:
            return np.zeros(len(self.texts), np.float32)
        found: Float32 = np.asarray(self._engine.get_scores(known), np.float32)
        return found

    def known(self, text: str) -> list[str]:
        """The query's distinct tokens that some item has, in their order."""
        if self._engine is None:
            return []
        return [token for token in dict.fromkeys(tokens(text)) if token in self._engine.vocab_dict]

    def shared(self, text: str, item: int) -> list[str]:
        """What the query and the item have in common, for people: parts of a longer shared token are left out."""
        have = set(tokens(self.texts[item]))
        both = [token for token in dict.fromkeys(tokens(text)) if token in have]
        return [token for token in both if not any(token != other and token in other for other in both)]

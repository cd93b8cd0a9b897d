"""Content-based (D2): a user is the mean of the fused vectors of what they touched; nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import PositiveInt

from fusionrec.fusion.base import FusionSpec
from fusionrec.fusion.concat import Concat
from fusionrec.fusion.space import FeatureSpace
from fusionrec.recommenders.base import Retriever, RetrieverSpec, Watch
from fusionrec.recommenders.dense import dot_products
from fusionrec.types import Float32, Interactions, ItemSet, Requests


class Content(RetrieverSpec):
    """``kind: content``. Modalities are whitened, then laid side by side; an absent one does not count."""

    kind: Literal["content"] = "content"
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {"width": (16, 32, 64, 128, 256)}
    width: PositiveInt = 64

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return ContentRetriever(self)


class ContentRetriever(Retriever):
    """Score = cosine between the mean of the history's vectors and the item's vector; items without content: -inf."""

    retrieval = "mips"
    folds_in = True
    cold_item = True

    def __init__(self, spec: Content) -> None:
        self.spec = spec

    def _fit(self, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        touched = np.zeros(len(items), bool)
        touched[train.item] = True
        self.space = FeatureSpace(self.spec.width).fit(items, touched)

    def _attached(self) -> None:
        import torch

        x, mask = self.space.apply(self.items)
        self.has = mask.any(1)
        if not x:
            self.vectors = np.zeros((len(self.items), 1), np.float32)
            return
        fuse = Concat().build({m: v.shape[1] for m, v in x.items()}, None)
        with torch.no_grad():
            fused = fuse({m: torch.from_numpy(v) for m, v in x.items()}, torch.from_numpy(mask)).numpy()
        self.vectors = (fused / np.maximum(np.linalg.norm(fused, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    def vectors_item(self) -> Float32:
        return self.vectors

    def vectors_user(self, requests: Requests) -> Float32:
        profile = np.asarray(requests.history @ self.vectors, np.float32)
        return profile / np.maximum(np.linalg.norm(profile, axis=1, keepdims=True), 1e-9)

    def _score(self, requests: Requests) -> Float32:
        scores = dot_products(self.vectors_user(requests), self.vectors)
        scores[:, ~self.has] = -np.inf
        return scores

    def arrays(self) -> dict[str, np.ndarray]:
        return self.space.arrays()

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.space = FeatureSpace.restore(arrays)

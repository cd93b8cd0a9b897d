"""A blend of two retrievers, weighted on validation (D3, and the demo's default: EASE + two towers).

Each part's scores are standardised per user over the items it can score. An item that both can score gets
z(first) + weight * z(second); one that only the second can score (a new one) gets offset + new_weight * z(second),
because the second part alone has to carry what both carry elsewhere. The three numbers come from grids by
validation NDCG@20, zero weight included: a second part that carries nothing is left out. First the weight is
chosen among the items that both score, then offset and new_weight for the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny, TypeAdapter

from fusionrec.evaluation.metrics import per_user
from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.base import Retriever, RetrieverSpec, Watch, top_k
from fusionrec.recommenders.validation import validation_requests
from fusionrec.types import Float32, Interactions, ItemSet, Requests

WEIGHTS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
NEW_WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
OFFSETS = (-8.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
CELLS = 5_000_000  # validation users x items while the grid is searched: more users do not change the choice


def _any_retriever(value: Any) -> Any:
    from fusionrec.recommenders import AnyRetriever  # the registry names this file too, so it is asked late

    return value if isinstance(value, RetrieverSpec) else TypeAdapter(AnyRetriever).validate_python(value)


Part = Annotated[SerializeAsAny[RetrieverSpec], BeforeValidator(_any_retriever)]


class Blend(RetrieverSpec):
    """``kind: blend``. ``first`` is usually collaborative, ``second`` scores new items."""

    kind: Literal["blend"] = "blend"
    first: Part
    second: Part
    weights: tuple[float, float, float] | None = Field(
        None, description="weight, new_weight, offset (see the file's text); null: chosen on validation"
    )

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return BlendRetriever(self, self.first.build(fusion), self.second.build(fusion))


class BlendRetriever(Retriever):
    """Folds in, serves cold users and scores cold items where one of its parts does."""

    retrieval = "dense"
    relative = True  # each part is standardised over the attached catalogue

    def __init__(self, spec: Blend, first: Retriever, second: Retriever) -> None:
        self.spec, self.first, self.second = spec, first, second
        for flag in ("folds_in", "cold_user", "cold_item"):
            setattr(self, flag, getattr(first, flag) or getattr(second, flag))
        self.needs_time = first.needs_time or second.needs_time  # type: ignore[misc]
        self.max_items = min((p.max_items for p in (first, second) if p.max_items), default=None)  # type: ignore[misc]

    def _fit(self, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        self.first.fit(train, valid, items, seed=seed, watch=watch)
        self.second.fit(train, valid, items, seed=seed, watch=watch)
        self.weights = self.spec.weights or (1.0, 1.0, 0.0)
        requests, positives = validation_requests(train, valid, seed)
        limit = max(CELLS // max(len(items), 1), 1)
        if len(requests) > limit:
            rows = np.sort(np.random.default_rng(seed).choice(len(requests), limit, replace=False))
            requests = Requests(user=requests.user[rows], history=requests.history[rows])
            positives = positives[rows]
        if len(requests) == 0 or self.spec.weights is not None:
            return
        a, b = standardise(self.first.score(requests)), standardise(self.second.score(requests))
        seen = (np.repeat(np.arange(len(requests)), np.diff(requests.history.indptr)), requests.history.indices)

        def quality(weights: tuple[float, float, float]) -> float:
            scores = _blend(a, b, weights)
            scores[seen] = -np.inf
            return float(np.nanmean(per_user(top_k(scores, min(20, len(items)))[0], positives, (20,))["ndcg@20"]))

        weight = max(WEIGHTS, key=lambda w: quality((w, 0.0, -np.inf)))
        choices = [(weight, 0.0, OFFSETS[0])]
        if not np.isfinite(a).all():
            choices = [(weight, new, offset) for new in NEW_WEIGHTS for offset in OFFSETS]
        self.weights = max(choices, key=quality)
        watch(
            0,
            {
                **dict(zip(("weight", "new_weight", "offset"), self.weights, strict=True)),
                "valid_ndcg@20": quality(self.weights),
            },
        )

    def _attached(self) -> None:
        self.first.attach(self.items)
        self.second.attach(self.items)

    def _score(self, requests: Requests) -> Float32:
        a, b = standardise(self.first.score(requests)), standardise(self.second.score(requests))
        return _blend(a, b, self.weights)

    def arrays(self) -> dict[str, np.ndarray]:
        out = {f"first.{k}": v for k, v in self.first.arrays().items()}
        out |= {f"second.{k}": v for k, v in self.second.arrays().items()}
        return out | {"blend": np.array(self.weights, np.float64)}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        weight, new, offset = (float(v) for v in arrays["blend"])
        self.weights = (weight, new, offset)
        for name in ("first", "second"):
            part: Retriever = getattr(self, name)
            part.restore(
                {k.removeprefix(f"{name}."): v for k, v in arrays.items() if k.startswith(f"{name}.")}, self.fit_ids
            )


def standardise(scores: Float32) -> Float32:
    """Each row of (B, I) to mean 0 and deviation 1 over its finite entries; -inf stays, a constant row becomes 0."""
    finite = np.isfinite(scores)
    count = np.maximum(finite.sum(1, keepdims=True), 1)
    filled = np.where(finite, scores, 0.0)
    centred = filled - filled.sum(1, keepdims=True) / count
    spread = np.sqrt((np.where(finite, centred, 0.0) ** 2).sum(1, keepdims=True) / count)
    return np.where(finite, centred / np.maximum(spread, 1e-6), -np.inf).astype(np.float32)


def _blend(a: Float32, b: Float32, weights: tuple[float, float, float]) -> Float32:
    """(B, I) from the standardised parts; an item that only the first can score keeps its score."""
    weight, new_weight, offset = (np.float32(w) for w in weights)
    first, z = np.isfinite(a), np.where(np.isfinite(b), b, np.float32(0))
    out = np.where(first, a + weight * z, offset + new_weight * z)
    out[~first & ~np.isfinite(b)] = -np.inf
    return out.astype(np.float32)

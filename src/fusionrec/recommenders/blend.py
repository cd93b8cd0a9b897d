"""A blend of retrievers, weighted on validation (D3; with its parts the house model, D11).

Each part's scores are standardised per user over the items it can score. A known item (with interactions in train) gets
sum_p w_p z_p; a new one gets offset + scale * sum_p v_p z_p over the parts that can score it, because there the parts
with content alone have to carry what all carry elsewhere. A request without any history gets what most users of train
chose: most parts have nothing to say to a stranger. w, v, scale and offset come from grids by the validation
metric, zero included, one weight after the other until none improves: first w among the known items, then v among the
new ones (both then add up to 1), then scale and offset for all together. There the metric is flat: new items cost
hardly more than they bring until they crowd the lists. So of the placements that are within one standard error of the
best (paired over users; the rule of Breiman et al., Classification and Regression Trees, 1984) that one is taken which
finds new items best. A part that adds nothing gets weight 0. Only items that some part places high can reach a list, so
the search looks at those alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny, TypeAdapter, model_validator

from fusionrec.evaluation.metrics import from_hits, hits
from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.base import Retriever, RetrieverSpec, Watch, top_k
from fusionrec.recommenders.validation import validation_requests
from fusionrec.types import Bool, Float32, Float64, Int64, Interactions, ItemSet, Requests

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
SCALES = (1.0, 0.5, 1.5, 2.0)  # the first of equally good choices is taken: it keeps what the parts say
OFFSETS = (-8.0, *(step / 4 for step in range(-6, 9)))
DEPTH = 100  # items of each part that the search looks at
CELLS = 20_000_000  # scores of one part that exist at once
USERS = 6_000  # of validation; more do not change the choice
ROUNDS = 3  # through all weights; a third hardly ever changes one


def _any_retriever(value: Any) -> Any:
    from fusionrec.recommenders import AnyRetriever  # the registry names this file too, so it is asked late

    return value if isinstance(value, RetrieverSpec) else TypeAdapter(AnyRetriever).validate_python(value)


Part = Annotated[SerializeAsAny[RetrieverSpec], BeforeValidator(_any_retriever)]


class Blend(RetrieverSpec):
    """``kind: blend``. At least one part should score new items where there are any."""

    kind: Literal["blend"] = "blend"
    parts: tuple[Part, ...]
    weights: tuple[float, ...] | None = Field(None, description="one a part; null: chosen on validation")
    metric: Literal["ndcg@20", "recall@20"] = Field("ndcg@20", description="what the weights are judged by")

    @model_validator(mode="after")
    def _one_each(self) -> Blend:
        if len(self.parts) < 2:
            raise ValueError(f"parts: found {len(self.parts)}, expected at least 2")
        if self.weights is not None and len(self.weights) != len(self.parts):
            raise ValueError(f"weights: found {len(self.weights)}, expected {len(self.parts)}, one a part")
        if self.weights is not None and not (np.isfinite(self.weights).all() and any(self.weights)):
            raise ValueError(f"weights: found {self.weights}, expected numbers of which one is not 0")
        return self

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return BlendRetriever(self, [part.build(fusion) for part in self.parts])


class BlendRetriever(Retriever):
    """Folds in and scores cold items where one of its parts does. ``count`` (I_fit,): the train users of each item."""

    retrieval = "dense"
    cold_user = True
    relative = True  # each part is standardised over the attached catalogue

    def __init__(self, spec: Blend, parts: Sequence[Retriever]) -> None:
        self.spec, self.parts = spec, list(parts)
        for flag in ("folds_in", "cold_item", "needs_time"):
            setattr(self, flag, any(getattr(p, flag) for p in parts))
        self.max_items = min((p.max_items for p in parts if p.max_items), default=None)  # type: ignore[misc]

    def _fit(self, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        for part in self.parts:
            part.fit(train, valid, items, seed=seed, watch=watch)
        self._count(np.asarray(train.matrix().sum(0)).ravel())
        n = len(self.parts)
        self.weights = np.array(self.spec.weights or np.ones(n), np.float64)
        self.new_weights, self.scale, self.offset = self.weights, 1.0, 0.0
        requests, positives = validation_requests(train, valid, seed, USERS)
        told = np.diff(requests.history.indptr) > 0  # a stranger's list does not depend on the weights
        requests, positives = Requests(requests.user[told], requests.history[told]), positives[told]
        if len(requests) == 0 or self.spec.weights is not None:
            return
        short = _shortlist(self.parts, requests, self.touched)
        k = int(self.spec.metric.partition("@")[2])

        fresh = positives.multiply(~self.touched[None, :]).tocsr()
        fresh.eliminate_zeros()
        judges = [(hits(short.items, p), np.diff(p.indptr).astype(np.float64)) for p in (positives, fresh)]

        def listed(score: Float32, group: int = 0) -> Float64:
            """(B,) the metric of each user over all positives, or over the new ones (NaN where there is none)."""
            wanted, asked = judges[group]
            place, value = top_k(score, min(k, score.shape[1]))
            found = np.take_along_axis(wanted, place, 1) & ~np.isneginf(value)
            padded = np.pad(found, ((0, 0), (0, k - found.shape[1])))
            return np.asarray(from_hits(padded, asked, (k,))[self.spec.metric])

        def judged(score: Float32) -> float:
            return float(listed(score).mean())

        known = np.where(short.new, -np.inf, 0).astype(np.float32)
        self.weights, best = _ascend(lambda w: judged(short.sum(w) + known), np.ones(n, bool))
        self.weights /= self.weights.sum()
        able: Bool = np.any(short.finite & short.new, axis=(1, 2))  # the parts that score new items
        if able.any():
            new = np.where(short.new, 0, -np.inf).astype(np.float32)
            self.new_weights, _ = _ascend(lambda v: judged(short.sum(v) + new), able)
            self.new_weights /= self.new_weights.sum()
            a, b = short.mixed(self.weights), short.mixed(self.new_weights)
            choices = [(scale, offset) for scale in SCALES for offset in OFFSETS]

            def placed(at: int) -> Float32:
                scale, offset = choices[at]
                return np.where(short.new, offset + scale * b, a).astype(np.float32) + short.nothing

            values = [listed(placed(at)) for at in range(len(choices))]
            at = _within_one_error(values, lambda at: float(np.nansum(listed(placed(at), 1))))
            (self.scale, self.offset), best = choices[at], float(values[at].mean())
        else:  # no new item to choose by; on the scale of the known ones all the same
            self.new_weights = np.full(n, 1 / n)
        chosen = {f"weight_{p}": float(w) for p, w in enumerate(self.weights)}
        chosen |= {f"new_weight_{p}": float(w) for p, w in enumerate(self.new_weights)}
        watch(0, {**chosen, "scale": self.scale, "offset": self.offset, f"valid_{self.spec.metric}": best})

    def _attached(self) -> None:
        for part in self.parts:
            part.attach(self.items)
        self.new = ~self.trained(self.touched)
        popular = np.log1p(self.count)[np.where(self.known, self.fit_row, 0)]
        self.popular = np.where(self.known, popular, 0).astype(np.float32)

    def _score(self, requests: Requests) -> Float32:
        known = np.zeros((len(requests), len(self.items)), np.float32)
        new = np.zeros((len(requests), int(self.new.sum())), np.float32)
        some = np.zeros(known.shape, bool)
        for part, w, v in zip(self.parts, self.weights, self.new_weights, strict=True):
            if not w and not (v and self.new.any()):
                continue
            z = standardise(part.score(requests))
            here = np.isfinite(z)
            z[~here] = 0
            known += np.float32(w) * z
            new += np.float32(v) * z[:, self.new]
            some |= here
        known[:, self.new] = np.float32(self.offset) + np.float32(self.scale) * new
        known[~some] = -np.inf
        strangers = np.diff(requests.history.indptr) == 0
        known[strangers] = np.where(some[strangers] | ~self.new, self.popular, -np.inf)
        return known

    def _count(self, count: np.ndarray) -> None:
        self.count = np.asarray(count, np.float32)
        self.touched = self.count > 0

    def arrays(self) -> dict[str, np.ndarray]:
        out = {f"part{p}.{k}": v for p, part in enumerate(self.parts) for k, v in part.arrays().items()}
        blend = np.array([*self.weights, *self.new_weights, self.scale, self.offset], np.float64)
        return out | {"blend": blend, "count": self.count}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        n, blend = len(self.parts), np.asarray(arrays["blend"], np.float64)
        self.weights, self.new_weights = blend[:n], blend[n : 2 * n]
        self.scale, self.offset = float(blend[-2]), float(blend[-1])
        self._count(arrays["count"])
        for p, part in enumerate(self.parts):
            start = f"part{p}."
            own = {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
            part.restore(own, self.fit_ids)


def _within_one_error(values: Sequence[Float64], wish: Callable[[int], float]) -> int:
    """Of the choices whose mean over the users is within one paired standard error of the best, that with the greatest
    ``wish``; the best where several are equal, then the first."""
    means = [float(v.mean()) for v in values]
    best = int(np.argmax(means))
    apart = [values[best] - v for v in values]
    good = [at for at, d in enumerate(apart) if d.mean() <= d.std() / np.sqrt(len(d))]
    return max(good, key=lambda at: (wish(at), means[at], -at))


def standardise(scores: Float32) -> Float32:
    """Each row of (B, I) to mean 0 and deviation 1 over its finite entries; -inf stays, a constant row becomes 0."""
    finite = np.isfinite(scores)
    count = np.maximum(finite.sum(1, keepdims=True), 1)
    filled = np.where(finite, scores, np.float32(0))
    # summed in double precision: a constant row must lose all of it
    centred = filled - (filled.sum(1, keepdims=True, dtype=np.float64) / count).astype(np.float32)
    spread = np.sqrt((np.where(finite, centred, 0.0) ** 2).sum(1, keepdims=True) / count)
    return np.where(finite, centred / np.maximum(spread, 1e-6), -np.inf).astype(np.float32)


class _Shortlist:
    """``items`` (B, C) int64, ascending, so that ties go to the lower row, then -1 for none; ``z`` (P, B, C) float32 of
    each part, 0 where it cannot score; ``finite`` (P, B, C) bool, where it can; ``new`` (B, C) bool."""

    def __init__(self, items: Int64, z: Float32, finite: Bool, touched: Bool) -> None:
        self.items, self.z = items, z
        self.new = ~touched[np.maximum(items, 0)] & (items >= 0)
        self.finite = finite
        self.nothing = np.where(finite.any(0), 0, -np.inf).astype(np.float32)

    def mixed(self, weights: Float64) -> Float32:
        """(B, C) weighted sum of the parts."""
        return np.tensordot(weights.astype(np.float32), self.z, axes=1)

    def sum(self, weights: Float64) -> Float32:
        """(B, C) :meth:`mixed`, -inf where there is no item."""
        return self.mixed(weights) + self.nothing


def _shortlist(parts: Sequence[Retriever], requests: Requests, touched: Bool) -> _Shortlist:
    """The best DEPTH known and DEPTH new unseen items of each part, with all parts' standardised scores of them."""
    n_items = len(touched)
    block = max(CELLS // max(n_items, 1), 1)
    items, values, finite = [], [], []
    for start in range(0, len(requests), block):
        stop = min(start + block, len(requests))
        asked = requests.rows(start, stop)
        z = [standardise(part.score(asked)) for part in parts]
        owner = np.repeat(np.arange(stop - start), np.diff(asked.history.indptr))
        chosen = []
        for scores in z:
            for group in (touched, ~touched):
                if group.any():
                    open_ = np.where(group, scores, -np.inf).astype(np.float32)
                    open_[owner, asked.history.indices] = -np.inf
                    best, value = top_k(open_, min(DEPTH, n_items))
                    chosen.append(np.where(np.isneginf(value), n_items, best))
        union = np.sort(np.concatenate(chosen, axis=1), axis=1)
        union[:, 1:][union[:, 1:] == union[:, :-1]] = n_items  # an item that several parts name counts once
        union = np.sort(union, axis=1)
        at = np.minimum(union, n_items - 1)
        taken = np.stack([np.take_along_axis(scores, at, 1) for scores in z])
        here = np.isfinite(taken) & (union < n_items)
        items.append(np.where(union < n_items, union, -1))
        values.append(np.where(here, taken, 0).astype(np.float32))
        finite.append(here)
    return _Shortlist(np.concatenate(items), np.concatenate(values, 1), np.concatenate(finite, 1), touched)


def _ascend(quality: Callable[[Float64], float], able: Bool) -> tuple[Float64, float]:
    """Weights of the parts ``able`` (P,), others 0, by coordinate ascent from the best single part; their quality."""
    parts = np.flatnonzero(able)
    single = np.eye(len(able))[parts]
    values = [quality(w) for w in single]
    weights, best = single[int(np.argmax(values))], max(values)
    for _ in range(ROUNDS):
        before = best
        for p in parts:
            for value in WEIGHTS:
                tried = weights.copy()
                tried[p] = value
                if value != weights[p] and tried.any() and (found := quality(tried)) > best:
                    weights, best = tried, found
        if best == before:
            break
    return weights, best

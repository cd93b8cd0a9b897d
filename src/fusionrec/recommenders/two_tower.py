"""Two towers over fused content vectors (D3): the model that scores items nobody has touched yet.

Item tower: the fused modality vectors, mapped to D. User tower: the fused vectors of the history, mapped to D
and averaged, plus a vector for the user without history. There is no id embedding of users or items, so a
new item is scored by its content alone and a fresh history changes the answer at once. An item bias takes
up popularity during training, so that the vectors do not have to; a new item gets the mean bias.

Training: each user's items are split at random into a history and targets; the loss is the softmax
cross-entropy of the targets over a sample of the catalogue (all of it where it is small enough).
Covington et al., "Deep neural networks for YouTube recommendations", RecSys 2016; the split as in
Liang et al., "Variational autoencoders for collaborative filtering", WWW 2018, arXiv:1802.05814.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.fusion.concat import Concat
from fusionrec.fusion.space import FeatureSpace
from fusionrec.recommenders.base import Retriever, RetrieverSpec, Watch
from fusionrec.recommenders.dense import dot_products
from fusionrec.recommenders.training import Training, draws, load_state, share, state_arrays, tensor, train
from fusionrec.recommenders.validation import can_judge, validation_by_group
from fusionrec.types import Bool, Float32, Interactions, ItemSet, Requests

if TYPE_CHECKING:
    from torch import Tensor, nn


class TwoTower(RetrieverSpec):
    """``kind: two_tower``."""

    kind: Literal["two_tower"] = "two_tower"
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "dim": (32, 64, 128),
        "rank": (32, 64, 128),
        "dropout": (0.0, 0.1, 0.3),
        "training.lr": (2e-3, 6e-3, 1.5e-2),
        "training.weight_decay": (1e-5, 1e-4, 1e-3),
    }
    dim: PositiveInt = 64
    width: PositiveInt = Field(200, description="whitened components kept of each modality")
    rank: PositiveInt = Field(64, description="directions of taste kept of each modality, at most")
    dropout: float = Field(0.1, ge=0, lt=1)
    modality_dropout: float = Field(
        0.1, ge=0, lt=1, description="chance that a modality of an item is hidden in a step"
    )
    softmax_items: PositiveInt = Field(8192, description="largest number of items in one softmax")
    training: Training = Training(epochs=80, lr=6e-3, patience=12)

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return TwoTowerRetriever(self, fusion or Concat())


class TwoTowerRetriever(Retriever):
    """Score = user vector . item vector + bias."""

    retrieval = "mips"
    folds_in = True
    cold_user = True
    cold_item = True

    def __init__(self, spec: TwoTower, fusion: FusionSpec) -> None:
        self.spec, self.fusion = spec, fusion

    def _fit(self, train_set: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        import torch

        torch.manual_seed(seed)
        x = train_set.matrix()
        self.touched = np.asarray(x.sum(0)).ravel() > 0
        self.space = (
            FeatureSpace(self.spec.width).fit(items, self.touched).focus(items, train_set, self.spec.rank, seed)
        )
        features, mask = self.space.apply(items)
        self.net = _network(self.spec, self.fusion, self.space.dims, x.shape[1])
        users = np.flatnonzero(np.diff(x.indptr) >= 2)
        if len(users) == 0:
            users = np.flatnonzero(np.diff(x.indptr) >= 1)

        def batches(epoch: int) -> Iterator[Callable[[], Tensor]]:
            rng, device = draws(seed, epoch), self.net.bias.device
            tensors = {m: tensor(v, device) for m, v in features.items()}
            order = rng.permutation(users)
            for start in range(0, len(order), self.spec.training.batch):
                rows = share(order[start : start + self.spec.training.batch])
                yield partial(self._loss, x, rows, tensors, mask, rng)

        how = self.spec.training

        judged = can_judge(train_set, valid)

        def validate() -> float:
            self._attached()
            return validation_by_group(self, train_set, valid, how.metric, how.valid_users) if judged else math.nan

        work = how.batch * min(int(self.touched.sum()), self.spec.softmax_items) * self.spec.dim
        train(self.net, batches, validate, how, watch, seed, work)

    def _loss(
        self, x: sparse.csr_matrix, rows: np.ndarray, tensors: dict[str, Tensor], mask: Bool, rng: np.random.Generator
    ) -> Tensor:
        import torch

        device = self.net.bias.device
        part = x[rows]
        owner = np.repeat(np.arange(len(rows)), np.diff(part.indptr))
        is_target = rng.random(len(owner)) < 0.5
        first = part.indptr[:-1]
        is_target[first + rng.integers(0, np.maximum(np.diff(part.indptr), 1))] = True  # everyone has a target
        pool = self._pool(part.indices, x.shape[1], rng)
        at = np.searchsorted(pool, part.indices)
        shown = tensor(mask[pool], device)
        if self.spec.modality_dropout and shown.shape[1] > 1:
            hide = tensor(rng.random(shown.shape) < self.spec.modality_dropout, device)
            kept = shown & ~hide
            shown = torch.where(kept.any(1, keepdim=True), kept, shown)  # never hide the last one
        x_pool = {m: v[pool] for m, v in tensors.items()}
        item_ID, past_ID = self.net.towers(x_pool, shown)
        user_BD = self.net.user(past_ID, at[~is_target], owner[~is_target], len(rows))
        logits = user_BD @ item_ID.T + self.net.bias[pool]
        history = tensor(np.stack([owner[~is_target], at[~is_target]]), device)
        logits = logits.index_put((history[0], history[1]), logits.new_tensor(-1e9))  # what was touched is never asked
        log_p = torch.log_softmax(logits, dim=1)[owner[is_target], at[is_target]]
        weight = 1.0 / np.sqrt(np.bincount(owner[is_target], minlength=len(rows)))[owner[is_target]]
        weight_t = tensor(weight.astype(np.float32), device)
        return -(log_p * weight_t).sum() / weight_t.sum()

    def _pool(self, needed: np.ndarray, n_items: int, rng: np.random.Generator) -> np.ndarray:
        """Sorted item rows of one step: those the batch needs and, up to softmax_items, random touched ones."""
        touched = np.flatnonzero(self.touched)
        if len(touched) <= self.spec.softmax_items:
            return touched
        needed = np.unique(needed)
        extra = rng.choice(touched, max(self.spec.softmax_items - len(needed), 1), replace=False)
        return np.union1d(needed, extra)

    def _attached(self) -> None:
        import torch

        features, mask = self.space.apply(self.items)
        device = self.net.bias.device
        self.net.eval()
        with torch.no_grad():
            item, past = self.net.towers({m: tensor(v, device) for m, v in features.items()}, tensor(mask, device))
            bias = self.net.bias.cpu().numpy()
        mean = float(bias[self.touched].mean()) if self.touched.any() else 0.0
        rows = np.where(self.known, self.fit_row, 0)
        item_bias = np.where(self.trained(self.touched), bias[rows], mean).astype(np.float32)
        self.item_vectors = np.concatenate([item.cpu().numpy(), item_bias[:, None]], axis=1)
        self.past_vectors = past.cpu().numpy()

    def vectors_item(self) -> Float32:
        return self.item_vectors

    def vectors_user(self, requests: Requests) -> Float32:
        import torch

        h = requests.history
        owner = np.repeat(np.arange(len(requests)), np.diff(h.indptr))
        with torch.no_grad():
            past = tensor(self.past_vectors, self.net.bias.device)
            user = self.net.user(past, h.indices, owner, len(requests)).cpu().numpy()
        return np.concatenate([user, np.ones((len(user), 1), np.float32)], axis=1)

    def _score(self, requests: Requests) -> Float32:
        return dot_products(self.vectors_user(requests), self.item_vectors)

    def arrays(self) -> dict[str, np.ndarray]:
        return state_arrays(self.net, "net") | self.space.arrays() | {"touched": self.touched}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.touched = np.asarray(arrays["touched"], bool)
        self.space = FeatureSpace.restore(arrays)
        self.net = _network(self.spec, self.fusion, self.space.dims, len(self.touched))
        load_state(self.net, dict(arrays), "net")
        self.net.eval()


def _network(spec: TwoTower, fusion: FusionSpec, dims: dict[str, int], n_items: int) -> nn.Module:
    import torch
    from torch import nn

    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fuse = fusion.build(dims, spec.dim) if dims else None
            width = self.fuse.dim if self.fuse else 1
            self.item, self.past = (nn.Linear(width, spec.dim, bias=False) for _ in range(2))
            # Both towers start as one map: like goes with like is a good first guess, and learning departs from it.
            nn.init.eye_(self.item.weight)
            nn.init.eye_(self.past.weight)
            self.drop = nn.Dropout(spec.dropout)
            self.nobody = nn.Parameter(torch.zeros(spec.dim))  # the user without history
            self.bias = nn.Parameter(torch.zeros(n_items))

        def towers(self, x: dict[str, Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
            if self.fuse is None:
                blank = torch.zeros(len(mask), 1, device=mask.device)
                return self.item(blank), self.past(blank)
            fused = self.fuse({m: self.drop(v) for m, v in x.items()}, mask)
            return self.item(fused), self.past(fused)

        def user(self, past: Tensor, items: np.ndarray, owner: np.ndarray, n: int) -> Tensor:
            # the sum grows with evidence, sqrt(n) keeps its noise constant
            count = np.maximum(np.bincount(owner, minlength=n), 1)
            offsets = np.searchsorted(owner, np.arange(n))
            total = nn.functional.embedding_bag(
                tensor(np.asarray(items, np.int64), past.device),
                past,
                tensor(offsets.astype(np.int64), past.device),
                mode="sum",
            )
            return total / tensor(np.sqrt(count).astype(np.float32), past.device)[:, None] + self.nobody

    return Towers()

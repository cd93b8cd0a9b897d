"""Trained recommenders of users and items by id: a network gives user vectors (U, D) and item vectors (I, D).

A subclass says how to make its network, an ``nn.Module`` with
- ``loss(users, positives, negatives)``: (B,) int64 -> the batch's scalar loss (no negatives if not ``pairwise``);
- ``vectors()`` -> user (U, D) and item (I, D) tensors, in evaluation mode;
- ``start_epoch(rng)`` where the network changes from epoch to epoch (sampled edges, learnt graphs).

Score = user vector . item vector. Only the vectors are stored, so a fitted model neither needs the graph nor the
features. Users it was not trained on, or who have no training interaction, get the mean user vector; items without
training interactions and items that were not in the fit cannot be scored.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy import sparse

from fusionrec.recommenders.base import Retriever, Watch
from fusionrec.recommenders.dense import dot_products
from fusionrec.recommenders.negatives import Negatives
from fusionrec.recommenders.training import Training, draws, share, tensor, train
from fusionrec.recommenders.validation import can_judge, validation_metric
from fusionrec.types import Bool, Float32, Interactions, ItemSet, Requests

if TYPE_CHECKING:
    from torch import Tensor, nn

# The field's benchmark (MMRec, arXiv:2302.03497): validation after every epoch on all users with a validation positive.
BENCHMARK = Training(
    epochs=1000, batch=2048, lr=1e-3, weight_decay=0.0, patience=20, metric="recall@20", valid_users=100_000
)


class EmbeddedRetriever(Retriever):
    """Fits the network of a subclass and serves its vectors."""

    retrieval = "mips"
    cold_user = True
    pairwise: ClassVar[bool] = True

    def __init__(self, spec: Any) -> None:
        self.spec = spec

    @abstractmethod
    def _network(self, pairs: sparse.csr_matrix, items: ItemSet, prefer: Prefer) -> nn.Module:
        """The untrained network for the binary training matrix (U, I); torch's generator is seeded.

        ``prefer`` gives the validation metric of item weights, for choices that are cheaper to make before training.
        """

    def _fit(self, train_set: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        import torch

        how = self.spec.training
        torch.manual_seed(seed)
        pairs = train_set.matrix()
        self.touched = np.asarray(pairs.sum(0)).ravel() > 0
        active = np.diff(pairs.indptr) > 0
        network = self._network(pairs, items, Prefer(train_set, valid, how))
        users, positives = (part.astype(np.int64) for part in pairs.nonzero())
        negatives = Negatives(pairs, np.flatnonzero(self.touched))

        def batches(epoch: int) -> Iterator[Callable[[], Tensor]]:
            rng = draws(seed, epoch)
            if hasattr(network, "start_epoch"):
                network.start_epoch(rng)
            device = next(network.parameters()).device
            order = rng.permutation(len(users))
            drawn = [users[order], positives[order]]
            if self.pairwise:
                drawn.append(negatives.draw(rng, users)[order])
            for start in range(0, len(order), how.batch):
                batch = [tensor(share(part[start : start + how.batch]), device) for part in drawn]
                yield partial(network.loss, *batch)

        judged = can_judge(train_set, valid)

        def validate() -> float:
            self._take(network, active)
            self._attached()
            return validation_metric(self, train_set, valid, how.metric, how.valid_users) if judged else math.nan

        train(network, batches, validate, how, watch, seed)
        with torch.no_grad():
            self._take(network, active)

    def _take(self, network: nn.Module, active: Bool) -> None:
        """Copy the vectors; the last user row is the mean of those with interactions, who alone have a vector."""
        user, item = (part.detach().cpu().numpy().astype(np.float32) for part in network.vectors())
        mean = user[active].mean(0, dtype=np.float64).astype(np.float32)
        self.user = np.concatenate([np.where(active[:, None], user, mean), mean[None]])
        self.item = item

    def _attached(self) -> None:
        self.item_vectors, self.scored = self._catalogue_vectors()

    def _catalogue_vectors(self) -> tuple[Float32, Bool]:
        """Item vectors (I, D) of the attached catalogue, and which of them mean something (I,)."""
        at = np.where(self.known, self.fit_row, 0)
        return self.item[at], self.trained(self.touched)

    def _score(self, requests: Requests) -> Float32:
        scores = dot_products(self.user[self._user_rows(requests)], self.item_vectors)
        scores[:, ~self.scored] = -np.inf
        return scores

    def vectors_item(self) -> Float32:
        """(I, D + 1): the last number is 0, or -inf where the item cannot be scored."""
        barred = np.where(self.scored, 0, -np.inf).astype(np.float32)
        return np.concatenate([self.item_vectors, barred[:, None]], axis=1)

    def vectors_user(self, requests: Requests) -> Float32:
        return np.concatenate([self.user[self._user_rows(requests)], np.ones((len(requests), 1), np.float32)], axis=1)

    def _user_rows(self, requests: Requests) -> np.ndarray:
        nobody = len(self.user) - 1
        return np.where((requests.user >= 0) & (requests.user < nobody), requests.user, nobody)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"user": self.user, "item": self.item, "touched": self.touched}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.user, self.item = (np.asarray(arrays[k], np.float32) for k in ("user", "item"))
        self.touched = np.asarray(arrays["touched"], bool)


class Prefer:
    """The validation metric of an item graph S: score = history . S', so that an item is raised by its neighbours."""

    def __init__(self, train_set: Interactions, valid: Interactions, how: Training) -> None:
        self._train, self._valid, self._how = train_set, valid, how

    def __call__(self, weights: sparse.csr_matrix) -> float:
        """Mean of ``how.metric`` for the (I, I) graph ``weights``; 0 where there is nothing to validate on."""
        from fusionrec.evaluation.metrics import per_user
        from fusionrec.recommenders.topk import block_rows, top_k
        from fusionrec.recommenders.validation import validation_requests

        requests, positives = validation_requests(self._train, self._valid, max_users=self._how.valid_users)
        k = min(int(self._how.metric.partition("@")[2]), positives.shape[1])
        total, spread = 0.0, weights.T.tocsr()
        block = block_rows(positives.shape[1])
        for start in range(0, len(requests), block):
            history = requests.history[start : start + block]
            scores = np.asarray((history @ spread).todense(), np.float32)
            scores[history.nonzero()] = -np.inf
            found = per_user(top_k(scores, k)[0], positives[start : start + block], (k,))
            total += float(np.nansum(found[f"{self._how.metric.partition('@')[0]}@{k}"]))
        return total / max(len(requests), 1)


def features_of(items: ItemSet) -> dict[str, tuple[Float32, Bool]]:
    """Modality -> (features (I, D_m) with zeros where absent, present (I,)), for those that any item has."""
    out = {}
    for name in items.modalities:
        present = items.present[name]
        if not present.any():
            continue
        x = np.zeros(items.features[name].shape, np.float32)
        x[present] = items.features[name][present]
        out[name] = (x, present)
    return out

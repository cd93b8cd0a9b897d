"""BPR-MF (D1): matrix factorisation by pairwise ranking.

Rendle et al., "BPR: Bayesian personalized ranking from implicit feedback", UAI 2009, arXiv:1205.2618.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import PositiveInt

from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.base import Retriever, RetrieverSpec, Watch
from fusionrec.recommenders.training import Training, draws, sample_negatives, share, tensor, train
from fusionrec.recommenders.validation import validation_metric
from fusionrec.types import Float32, Interactions, ItemSet, Requests


class BPR(RetrieverSpec):
    """``kind: bpr``."""

    kind: Literal["bpr"] = "bpr"
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "dim": (32, 64, 128),
        "training.lr": (1e-3, 3e-3, 1e-2, 3e-2),
        "training.weight_decay": (0.0, 1e-6, 1e-5, 1e-4),
    }
    dim: PositiveInt = 64
    training: Training = Training(epochs=60, batch=2048, lr=1e-2, weight_decay=1e-5)

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return BPRRetriever(self)


class BPRRetriever(Retriever):
    """Score = user vector . item vector + item bias. Users it was not trained on get the mean user vector."""

    retrieval = "mips"
    cold_user = True

    def __init__(self, spec: BPR) -> None:
        self.spec = spec

    def _fit(self, train_set: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        import torch

        generator = torch.Generator().manual_seed(seed)
        x = train_set.matrix()
        self.seen = np.asarray(x.sum(0)).ravel() > 0
        users, positives = x.nonzero()
        module = torch.nn.Module()
        for name, shape in (("user", (x.shape[0], self.spec.dim)), ("item", (x.shape[1], self.spec.dim))):
            module.register_parameter(name, torch.nn.Parameter(torch.randn(shape, generator=generator) * 0.05))
        module.register_parameter("bias", torch.nn.Parameter(torch.zeros(x.shape[1])))

        def batches(epoch: int) -> Iterator[Callable[[], torch.Tensor]]:
            rng = draws(seed, epoch)
            order = rng.permutation(len(users))
            negatives = sample_negatives(rng, users, x)
            for start in range(0, len(order), self.spec.training.batch):
                b = share(order[start : start + self.spec.training.batch])
                yield partial(_loss, module, users[b], positives[b], negatives[b])

        how = self.spec.training

        def validate() -> float:
            self._take(module)
            return validation_metric(self, train_set, valid, how.metric, how.valid_users)

        train(module, batches, validate, how, watch, seed)
        self._take(module)

    def _take(self, module) -> None:  # type: ignore[no-untyped-def]
        user, item, bias = (getattr(module, name).detach().cpu().numpy() for name in ("user", "item", "bias"))
        mean = user.mean(0, keepdims=True)
        self.user = np.concatenate([user, mean]).astype(np.float32)  # last row: a user never seen
        self.item, self.bias = item.astype(np.float32).copy(), bias.astype(np.float32).copy()

    def _score(self, requests: Requests) -> Float32:
        scores = self.user[self._user_rows(requests)] @ self.item.T + self.bias
        scores[:, ~self.seen] = -np.inf
        return self.scores_at_fit(scores)

    def vectors_item(self) -> Float32:
        rows = np.where(self.known, self.fit_row, 0)
        bias = np.where(self.known & self.seen[rows], self.bias[rows], -np.inf).astype(np.float32)
        return np.concatenate([self.item[rows], bias[:, None]], axis=1)

    def vectors_user(self, requests: Requests) -> Float32:
        return np.concatenate([self.user[self._user_rows(requests)], np.ones((len(requests), 1), np.float32)], axis=1)

    def _user_rows(self, requests: Requests) -> np.ndarray:
        nobody = len(self.user) - 1
        return np.where((requests.user >= 0) & (requests.user < nobody), requests.user, nobody)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"user": self.user, "item": self.item, "bias": self.bias, "seen": self.seen}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.user, self.item, self.bias = (np.asarray(arrays[k], np.float32) for k in ("user", "item", "bias"))
        self.seen = np.asarray(arrays["seen"], bool)


def _loss(module, users, positives, negatives):  # type: ignore[no-untyped-def]
    from torch.nn.functional import embedding, logsigmoid

    u, i, j = (tensor(rows, module.user.device) for rows in (users, positives, negatives))
    difference = (embedding(u, module.user) * (embedding(i, module.item) - embedding(j, module.item))).sum(1)
    return -logsigmoid(difference + module.bias[i] - module.bias[j]).mean()

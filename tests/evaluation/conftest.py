"""Small catalogues and a deterministic retriever for the evaluation tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from fusionrec.recommenders.base import Retriever
from fusionrec.types import ItemSet, Requests, item_order


class Table(Retriever):
    """A real retriever whose scores are content: the history's mean feature against every item's, per modality.

    It learns one popularity prior; masked modalities contribute nothing, so a knock-out changes its answer.
    """

    retrieval = "dense"
    folds_in = cold_user = cold_item = True

    def _fit(self, train, valid, items, seed, watch):
        count = np.bincount(train.item, minlength=len(items)).astype(np.float32)
        self.prior = count / max(count.max(), 1)

    def _score(self, requests):
        out = np.zeros((len(requests), len(self.items)), np.float32)
        for name in self.items.modalities:
            x = self.items.features[name] * self.items.present[name][:, None]
            out += (requests.history @ x) @ x.T
        return out + 1e-3 * self.scores_at_fit(np.tile(self.prior, (len(requests), 1)))

    def arrays(self):
        return {"prior": self.prior}

    def _restore(self, arrays):
        self.prior = arrays["prior"]


class World:
    """A planted catalogue: users like one value of a taste that only the given modality shows."""

    def __init__(self, n_users=60, n_items=90, n_cold=25, seed=0, per_user=5):
        from fusionrec.types import Interactions

        rng = np.random.default_rng(seed)
        ids = tuple(item_order(f"item-{i}" for i in range(n_items)))
        text, image = rng.integers(0, 4, n_items), rng.integers(0, 3, n_items)
        has_image = rng.random(n_items) > 0.2
        self.items = ItemSet(
            ids,
            {
                "text": np.eye(4, dtype=np.float32)[text],
                "image": np.eye(3, dtype=np.float32)[image] * has_image[:, None].astype(np.float32),
            },
            {"text": np.ones(n_items, bool), "image": has_image},
            {"text": np.zeros(n_items, np.int16), "image": np.zeros(n_items, np.int16)},
        )
        self.cold = np.zeros(n_items, bool)
        self.cold[rng.permutation(n_items)[:n_cold]] = True
        t, v = rng.integers(0, 4, n_users), rng.integers(0, 3, n_users)
        history = np.zeros((n_users, n_items), np.float32)
        positives = np.zeros((n_users, n_items), np.float32)
        for u in range(n_users):
            like = np.exp(2.0 * (text == t[u]) + 1.5 * (image == v[u])) + 0.05
            warm = like * ~self.cold
            chosen = rng.choice(n_items, per_user, replace=False, p=warm / warm.sum())
            history[u, chosen] = 1
            rest = like * (history[u] == 0)
            positives[u, rng.choice(n_items, 3, replace=False, p=rest / rest.sum())] = 1
        self.history, self.positives = sparse.csr_matrix(history), sparse.csr_matrix(positives)
        self.users = [f"{u:032x}" for u in range(n_users)]
        self.requests = Requests(np.arange(n_users, dtype=np.int64), self.history)
        rows, cols = self.history.nonzero()
        self.train = Interactions(
            rows.astype(np.int32), cols.astype(np.int32), np.arange(len(rows), dtype=np.int64), n_users, n_items
        )

    def model(self) -> Table:
        model = Table()
        model.fit(self.train, self.train, self.items)
        return model


@pytest.fixture
def world() -> World:
    return World()

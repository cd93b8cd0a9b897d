"""The registered model's code (MLflow's models from code): bundle in, item ids and scores out; nothing is pickled.

Input columns: ``history`` (item ids, the earliest choice first, as a JSON list or separated by commas) and optionally
``user`` (a pseudonym, so that models that know users by id can use what they learnt). Parameter ``k``. Output columns,
one row a request: ``items`` and ``scores``, JSON lists, best first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from scipy import sparse


class BundleModel(PythonModel):
    """Answers from the bundle in the model's artifacts, whose every sha256 is checked when it is loaded."""

    def load_context(self, context: Any) -> None:
        from fusionrec.registry.bundle import load_bundle

        self.bundle = load_bundle(Path(context.artifacts["bundle"]), users=False)
        self.recommender = self.bundle.recommender()
        self.row = {item: row for row, item in enumerate(self.bundle.catalogue.items.ids)}
        self.user_row = {int(value): row for row, value in enumerate(self.bundle.users)}

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        from fusionrec.registry.bundle import user_hashes
        from fusionrec.types import Requests

        k = int((params or {}).get("k", 10))
        if not 1 <= k <= 1000:
            raise ValueError(f"k must lie in 1..1000, found {k}")
        histories = [self._rows(text) for text in model_input["history"]]
        users = model_input["user"] if "user" in model_input else [None] * len(histories)
        keys = user_hashes("" if _empty(user) else str(user) for user in users)
        lengths = np.cumsum([0, *(len(h) for h in histories)])
        rows = np.array([row for h in histories for row in sorted(h)], np.int64)
        order = np.array([h[row] for h in histories for row in sorted(h)], np.int64)
        shape = (len(histories), len(self.row))
        history = sparse.csr_matrix((np.ones(lengths[-1], np.float32), rows, lengths), shape=shape)
        times = sparse.csr_matrix((order, rows.copy(), lengths.copy()), shape=shape)  # rankers look at the latest ones
        known = np.array([self.user_row.get(int(key), -1) for key in keys], np.int64)
        requests = Requests(known, history, history_time=times)
        items, scores = self.recommender.recommend(requests, k)
        ids = self.bundle.catalogue.items.ids
        return pd.DataFrame(
            {
                "items": [json.dumps([ids[i] for i in row if i >= 0], ensure_ascii=False) for row in items],
                "scores": [
                    json.dumps([round(float(s), 6) for s, i in zip(line, row, strict=True) if i >= 0])
                    for line, row in zip(scores, items, strict=True)
                ],
            }
        )

    def _rows(self, text: Any) -> dict[int, int]:
        """The catalogue rows of a history, each with the place where it first stands, from 1; items that left the
        catalogue are passed over."""
        if _empty(text):
            return {}
        value = str(text).strip()
        ids = json.loads(value) if value.startswith("[") else [part.strip() for part in value.split(",")]
        places: dict[int, int] = {}
        for place, item in enumerate(ids, 1):
            if isinstance(item, str) and item in self.row:
                places.setdefault(self.row[item], place)
        return places


def _empty(value: Any) -> bool:
    return value is None or value != value or str(value).strip() == ""


set_model(BundleModel())

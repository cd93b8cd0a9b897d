"""What DeepFM, DCN-v2 and the concatenating network share: the fields they read, their training, their predictions.

Fields, each a vector of ``dim``: user and item id, the user's attributes, the context (not the position), the item's
fused content, and the fused content of what the user chose before (its mean). Numbers beside them: how much the item
resembles the user's past in each modality and fused, and how long that past is; with ``own_words`` the user's words
too (:mod:`fusionrec.ranking.words`). An id that training does not know, and
now and then one that it does (``id_dropout``), reads as unknown, so a new item is judged by its content.

Where impressions have a position, clicks and what follows them are p(seen | position) p(wanted): see
:class:`fusionrec.ranking.layers.Examination`.
Legend: N impressions, B rows of a batch, F fields, R different items of a batch, D = dim, W output width.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt

from fusionrec.fusion.base import FusionSpec
from fusionrec.fusion.concat import Concat
from fusionrec.ranking import calibration
from fusionrec.ranking.base import (
    POSITION,
    Impressions,
    Int16,
    Known,
    Ranker,
    RankerSpec,
    UserSet,
    Watch,
    Words,
    labelled,
    silent,
)
from fusionrec.ranking.calibration import Calibrated
from fusionrec.ranking.fields import Fields
from fusionrec.ranking.heads import AnyHead
from fusionrec.ranking.heads.shared_bottom import SharedBottom
from fusionrec.ranking.past import Past, candidate_blocks
from fusionrec.ranking.rated import PastRatings
from fusionrec.ranking.rows import Batch, Rows, met
from fusionrec.ranking.words import Hearing
from fusionrec.recommenders.training import Training, draws, load_state, share, state_arrays, tensor, train
from fusionrec.types import Bool, Float32, Int64, ItemSet, Requests

if TYPE_CHECKING:
    from torch import Tensor, nn

PAIRS = 16_384  # predicted at once


class RankTraining(Training):
    """Early stopping looks at the log likelihood of all labels, the higher the better."""

    metric: Literal["log_likelihood"] = "log_likelihood"  # type: ignore[assignment]


class DeepSpec(RankerSpec):
    """What every ranking network can be told."""

    dim: PositiveInt = 16
    width: PositiveInt = Field(32, description="directions of taste kept of each modality, at most")
    last: PositiveInt = Field(50, description="choices before the impression that count, at most")
    id_dropout: float = Field(0.1, ge=0, lt=1, description="chance that an id is hidden in a step")
    past_rating: bool = Field(
        False, description="the item's mean rating so far joins the fusion, as the modality rating"
    )
    own_words: bool = Field(False, description="what the user wrote and asked before is one more field (stage words)")
    head: AnyHead = SharedBottom()
    training: RankTraining = RankTraining(epochs=30, batch=2048, lr=2e-3, weight_decay=1e-5, patience=3)

    @property
    def hears(self) -> bool:
        return self.own_words

    def deaf(self) -> DeepSpec:
        return self.model_copy(update={"own_words": False})

    def build(self, fusion: FusionSpec | None = None) -> Ranker:
        return DeepRanker(self, fusion or Concat())

    @abstractmethod
    def interaction(self, wide: int) -> nn.Module:
        """``module(vectors (B, F, D), flat (B, wide)) -> (B, module.width)``; ``flat`` is the vectors and the numbers
        behind each other."""


class DeepRanker(Calibrated, Ranker):
    """Fits and predicts through the network of its spec."""

    def __init__(self, spec: DeepSpec, fusion: FusionSpec) -> None:
        self.spec, self.fusion, self.tasks = spec, fusion, spec.tasks

    def fit(
        self, train: Impressions, valid: Impressions, known: Known, *, seed: int = 0, watch: Watch = silent
    ) -> None:
        import torch

        from fusionrec.ranking.network import FOLLOWS_SIGHT

        torch.manual_seed(seed)
        self.tasks = tuple(labelled(train, self.spec.tasks))
        self.fit_ids = known.items.ids
        self.fields = Fields.learn(train, known, self.spec.width, seed, self.spec.ids)
        self.met = met(train, [task for task in self.tasks if task in FOLLOWS_SIGHT], self.fields.places)
        self.rated = PastRatings.learn(train, len(known.items)) if self.spec.past_rating else None
        heard = Hearing.learn(train, known, self.fields.space, self.spec.last) if self.spec.own_words else None
        self.hearing = heard
        self.scale = {task: _scale(train.labels[task]) for task in self.tasks if task in self.values}
        self.net = self._network()
        self.attach(known.items)
        self._train(train, valid, known, seed, watch)
        self.net.eval()
        self._calibrate(Rows(self, valid, Past(known.history, self.spec.last)))

    def _network(self) -> Any:
        from fusionrec.ranking.network import Network

        return Network(self.spec, self.fusion, self.fields, self.met, self.tasks, self.values, self.hearing)

    def _train(self, train_set: Impressions, valid: Impressions, known: Known, seed: int, watch: Watch) -> None:
        past = Past(known.history, self.spec.last)
        how = self.spec.training
        parts = {name: Rows(self, rows, past) for name, rows in (("train", train_set), ("valid", valid))}

        def batches(epoch: int) -> Iterator[Callable[[], Tensor]]:
            rng = draws(seed, epoch)
            order = rng.permutation(len(train_set))
            for start in range(0, len(order), how.batch):
                rows = share(order[start : start + how.batch])
                hidden = rng.random((2 if self.hearing is None else 3, len(rows))) < self.spec.id_dropout
                yield partial(self._loss, parts["train"], rows, hidden)

        judged = any((~np.isnan(label)).any() for label in parts["valid"].labels.values())

        def validate() -> float:
            if not judged:
                return math.nan
            blocks = [np.arange(at, min(at + PAIRS, len(valid))) for at in range(0, len(valid), PAIRS)]
            return -sum(float(self._loss(parts["valid"], rows, None)) * len(rows) for rows in blocks) / len(valid)

        train(self.net, batches, validate, how, watch, seed, how.batch * self.net.work)

    def _calibrate(self, part: Rows) -> None:
        """By these rows, the place taken out: how much it is seen is no part of how much an item is wanted."""
        empty = np.zeros(0, np.float32)
        wanted = {task: [empty] for task in self.tasks if task not in self.values}
        seen = {task: [empty] for task in wanted}
        for start in range(0, len(part.rows), PAIRS):
            rows = np.arange(start, min(start + PAIRS, len(part.rows)))
            for task, (value, place) in self._answers(self._inputs(part.at(rows), None)).items():
                if task in wanted:
                    wanted[task].append(value)
                    seen[task].append(place)
        self.calibration = {
            task: calibration.fit(np.concatenate(values), part.labels[task], np.concatenate(seen[task]))
            for task, values in wanted.items()
        }

    def _answers(self, given: dict[str, Any]) -> dict[str, tuple[Float32, Float32]]:
        """Task -> what the network says of B rows, (B,): of a value the standardised value, else the chance in the
        first place; and how much the row's place is seen, (B,) in (0, 1]."""
        import torch

        from fusionrec.ranking.network import FOLLOWS_SIGHT

        with torch.no_grad():
            out, log_seen = self.net(given), self.net.examination(given["position"])
        found = {}
        for task in self.tasks:
            if task in self.values:
                value, place = out[task], torch.ones_like(log_seen)
            elif task in FOLLOWS_SIGHT:
                value, place = (out[task] - log_seen).exp(), log_seen.exp()
            else:
                value, place = out[task].exp(), torch.ones_like(log_seen)
            found[task] = (value.cpu().numpy(), place.cpu().numpy())
        return found

    def _loss(self, part: Rows, rows: Int64, hidden: Bool | None) -> Tensor:
        import torch

        from fusionrec.ranking.layers import task_losses

        out = self.net(self._inputs(part.at(rows), hidden))
        labels = {task: tensor(part.labels[task][rows], self.net.anchor.device) for task in self.tasks}
        return torch.stack(list(task_losses(out, labels, self.values).values())).sum()

    def _inputs(self, batch: Batch, hidden: Bool | None) -> dict[str, Any]:
        """Tensors of B rows: ``ids`` (B, F) codes; the R different items with their content; where the rows' items
        and pasts lie among them; where ratings are read ``rating`` (B, 1) and ``rated`` (B,)."""
        device = self.net.anchor.device
        ids, item, bags = batch.ids, batch.item, batch.bags
        if hidden is not None:
            ids = ids.copy()
            ids[:, :2][hidden[:2].T] = 0
        different, place = np.unique(np.concatenate([item, bags.items]), return_inverse=True)
        given = {
            "ids": tensor(ids, device),
            "x": {name: tensor(vectors[different], device) for name, vectors in self.vectors.items()},
            "mask": tensor(self.mask[different], device),
            "item": tensor(place[: len(item)], device),
            "past": tensor(place[len(item) :], device),
            "offsets": tensor(bags.offsets, device),
            "count": tensor(bags.counts.astype(np.float32), device),
            "position": tensor(batch.position, device),
        }
        if self.rated is not None:
            rating, rated = self.rated.before(self.fit_row[item], batch.time)
            given |= {"rating": tensor(rating, device), "rated": tensor(rated, device)}
        if batch.said is not None:
            count, alike = batch.said.count.astype(np.float32), batch.said.alike
            if hidden is not None:  # whoever asks where nobody's words are told is met in training too
                count, alike = np.where(hidden[2], 0, count), np.where(hidden[2][:, None], 0, alike)
            told = {"said": batch.said.mean, "said_count": count, "said_alike": alike}
            given |= {name: tensor(value.astype(np.float32), device) for name, value in told.items()}
        return given

    def meet(self, users: UserSet) -> None:
        self.fields.meet(users)

    def hear(self, words: Words | None) -> None:
        if self.hearing is not None:
            self.hearing.hear(words)

    def attach(self, items: ItemSet) -> None:
        self.fields.attach(items)
        self.vectors, self.mask = self.fields.space.apply(items)
        self.fit_row = self.fields.rows(items)
        if self.hearing is not None:
            self.hearing.attach(self.vectors)

    def predict(
        self, requests: Requests, candidates: Int64, context: Mapping[str, Int16] | None = None
    ) -> dict[str, Float32]:
        out = {task: np.zeros(candidates.shape, np.float32) for task in self.tasks}
        self.net.eval()
        spoken = None if self.hearing is None else self.hearing.spans(requests.user, requests.time)
        for r, c, past in candidate_blocks(requests, candidates, self.spec.last, PAIRS):
            item = candidates[r, c]
            given = {name: codes[r, c] for name, codes in (context or {}).items()}
            position = given.get(POSITION, np.ones(len(r), np.int64)).astype(np.int64)
            ids = self.fields.codes(requests.user[r], item, given)
            said = None if self.hearing is None or spoken is None else self.hearing.at(spoken.at(r), item)
            time = None if requests.time is None else requests.time[r]
            answers = self._answers(self._inputs(Batch(ids, item, past, position, time, said), None))
            for task, (value, place) in answers.items():
                out[task][r, c] = (
                    _unscaled(value, self.scale[task])
                    if task in self.values
                    else place * calibration.apply(value, self.calibration[task])
                )
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            **state_arrays(self.net, "net"),
            **self.fields.arrays(),
            **self.calibration_arrays(),
            "met": self.met,
            **({} if self.rated is None else self.rated.arrays()),
            **({} if self.hearing is None else self.hearing.arrays()),
            **{f"task/{n}/{task}": np.array(self.scale.get(task, ())) for n, task in enumerate(self.tasks)},
        }

    def restore(self, arrays: Mapping[str, np.ndarray], fit_ids: tuple[str, ...]) -> None:
        self.fit_ids = tuple(fit_ids)
        self.fields = Fields.restore(arrays, fit_ids)
        # What was written before places were counted reads each place as itself, as it did then.
        self.met = np.asarray(arrays.get("met", np.ones(self.fields.places + 1)), np.int64)
        self.rated = PastRatings.restore(arrays) if self.spec.past_rating else None
        self.hearing = Hearing.restore(arrays, self.fields.space, self.spec.last)
        self.restore_calibration(arrays)
        named = sorted((name.split("/") for name in arrays if name.startswith("task/")), key=lambda n: int(n[1]))
        self.tasks = tuple(name[2] for name in named)
        scales = {name[2]: tuple(arrays["/".join(name)].tolist()) for name in named}
        self.scale = {task: scale for task, scale in scales.items() if scale}
        self.net = self._network()
        load_state(self.net, dict(arrays), "net")
        self.net.eval()


def _scale(values: Float32) -> tuple[float, ...]:
    """Mean, deviation (1 where all are the same), least and greatest of what is there."""
    there = values[~np.isnan(values)].astype(np.float64)
    return float(there.mean()), float(there.std()) or 1.0, float(there.min()), float(there.max())


def _unscaled(value: Float32, scale: tuple[float, ...]) -> Float32:
    """Standardised predictions as ratings: one outside what training met cannot be right."""
    mean, spread, low, high = scale
    return np.clip(value * spread + mean, low, high).astype(np.float32)

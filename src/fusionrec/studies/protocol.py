"""The evaluation protocol of the MMRec toolbox on a folder in its format, in memory: no project, no DVC.

Split: the column x_label, or, where the file has none, iterative 5-core and a random split per user: of fewer than 10
pairs one for validation and one for the test, else a fifth held out, half of it (rounded down) for validation. Users
without a pair in train leave validation and test; items nobody touched in train stay candidates. Every item is ranked,
only what the user touched in train is masked (validation items stay in the list at test time), K = 5, 10, 20, 50, plain
means over the users. Zhou, arXiv:2302.03497. What the toolbox does and this does not: choose by the test set.

Two variants ask more than the toolbox: ``missing`` hides a share of the (item, modality) cells from everything,
training included; ``cold`` removes a share of the items from train, so that they can only be found by content.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import Field, NonNegativeInt, PositiveInt
from scipy import sparse

from fusionrec.data.positives import k_core
from fusionrec.data.sources.mmrec import count_items, feature_files, read_features, read_log
from fusionrec.errors import DataRejected
from fusionrec.evaluation import metrics
from fusionrec.evaluation.missing import lottery, thinned
from fusionrec.evaluation.protocol import Recommends, Result, evaluate
from fusionrec.evaluation.slices import Slice, of_items
from fusionrec.types import Bool, Int64, Interactions, ItemSet, Requests, Spec, concat_interactions, item_order
from fusionrec.types import Columns as C

KS = (5, 10, 20, 50)
METRICS = ("recall", "ndcg", "precision", "map")
CHOICE = "recall@20"
"""What hyper-parameters are chosen by, on validation."""


class Rules(Spec):
    """Which variant of the protocol. ``seed`` draws what is hidden or cold, and a split where the file has none."""

    missing: float = Field(0.0, ge=0, lt=1, description="share of the (item, modality) cells that are hidden")
    cold: float = Field(0.0, ge=0, lt=1, description="share of the items that are removed from train")
    join: bool = Field(
        False,
        description="train and validation are joined, as where published results trained on both; a drawn pair of each "
        "user is held for validation instead, so that it asks every user as often as the test's mean does",
    )
    core: PositiveInt = Field(5, description="iterative k-core where the file has no split")
    seed: NonNegativeInt = 0


@dataclass(frozen=True)
class Validation:
    """What choosing may see: U users and I items in one index space; there is no test in it, nor in its digest."""

    train: Interactions
    valid: Interactions
    items: ItemSet
    digest: str


@dataclass(frozen=True)
class Bench:
    """A folder under some rules. ``masked`` what may not be recommended at test time (train; where train and validation
    were joined, both); ``cold`` (I,) bool: items removed from train; ``digest``: of everything in it."""

    name: str
    known: Validation
    test: Interactions
    masked: Interactions
    cold: Bool
    digest: str


def load(folder: Path, rules: Rules = Rules()) -> Bench:  # noqa: B008  (frozen)
    """Read a folder in the MMRec format. Raises DataRejected for broken files and where nothing is left to train on."""
    log = read_log(folder)
    n_items = count_items(folder, log)
    pairs = log.group_by(C.USER, C.ITEM).agg(*[pl.col(c).min() for c in (C.LABEL,) if c in log.columns])
    pairs = pairs.sort(C.USER, C.ITEM)
    numbers = np.arange(n_items)
    if C.LABEL not in pairs.columns:
        pairs = k_core(pairs, rules.core)
        if pairs.height == 0:
            raise DataRejected(f"nothing to train on: no pair of {folder.name} is left in the {rules.core}-core")
        label = random_labels(pairs[C.USER].to_numpy(), rules.seed)
        numbers = np.unique(pairs[C.ITEM].to_numpy())  # the core is the catalogue
    else:
        label = pairs[C.LABEL].to_numpy()
    items, row_of = _catalogue(folder, numbers, rules)
    cold = lottery(items.ids, "cold", rules.seed) < rules.cold
    item = row_of[pairs[C.ITEM].to_numpy()]
    keep = ~(cold[item] & (label <= (1 if rules.join else 0)))  # what is joined to train is train
    user, n_users, keep = _users(pairs[C.USER].to_numpy(), label, keep)
    parts = [
        Interactions(user[at].astype(np.int32), item[at].astype(np.int32), None, n_users, len(items))
        for at in (np.flatnonzero(keep & (label == part)) for part in range(3))
    ]
    if len(parts[0]) == 0:
        raise DataRejected(f"nothing to train on: of {len(pairs)} pairs of {folder.name} none is in train")
    train, valid, test = parts
    masked = train
    if rules.join:
        masked = concat_interactions([train, valid])
        train, valid = _held(masked, rules)
    digest = _digest(train, valid, items, rules)
    known = Validation(train, valid, items, digest.hexdigest())
    _add(digest, test)
    return Bench(folder.name, known, test, masked, cold, digest.hexdigest())


def random_labels(user: Int64, seed: int) -> Int64:
    """(N,) users of pairs -> (N,) 0 train, 1 valid, 2 test, by the rule in the file's text; fewer than 3 pairs: train.

    Within a user the order is random by ``seed``; of n pairs the last ones are the test, those before validation.
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(user)), user))
    _, start, count = np.unique(user[order], return_index=True, return_counts=True)
    n = np.repeat(count, count)
    left = n - 1 - (np.arange(len(user)) - np.repeat(start, count))  # pairs of the user that come after this one
    held = np.where(n < 3, 0, np.where(n < 10, 2, n // 5))
    asked = held - held // 2
    out = np.empty(len(user), np.int64)
    out[order] = np.where(left < asked, 2, np.where(left < held, 1, 0))
    return out


def _users(raw: Int64, label: Int64, keep: Bool) -> tuple[Int64, int, Bool]:
    """Users with a pair in train, numbered by the hash of their id (-1: others), how many, and the rows they keep."""
    known = np.unique(raw[keep & (label == 0)])
    order = {int(name): row for row, name in enumerate(item_order(str(u) for u in known))}
    row = np.array([order[int(u)] for u in known], np.int64)
    at = np.minimum(np.searchsorted(known, raw), max(len(known) - 1, 0))  # ids may be of any size
    user = np.where(known[at] == raw, row[at], -1) if len(known) else np.full(len(raw), -1, np.int64)
    return user, len(known), keep & (user >= 0)


def _catalogue(folder: Path, numbers: Int64, rules: Rules) -> tuple[ItemSet, Int64]:
    """The items in canonical order, some cells hidden, and number -> row (-1: no item)."""
    ids = item_order(str(n) for n in numbers)
    row_of = np.full(int(numbers.max()) + 1, -1, np.int64)
    at = np.array([int(i) for i in ids])
    row_of[at] = np.arange(len(ids))
    features, present = {}, {}
    for name, path in feature_files(folder).items():
        vectors, here = read_features(path)
        features[name], present[name] = vectors[at], here[at]
    group = {m: np.zeros(len(ids), np.int16) for m in features}
    items = ItemSet(tuple(ids), features, present, group)
    luck = {m: lottery(items.ids, m, rules.seed) for m in features}
    items = thinned(items, items.modalities, rules.missing, luck)
    gone = {m: np.where(items.present[m][:, None], x, np.float32(0)) for m, x in items.features.items()}
    return replace(items, features=gone), row_of


def _held(joined: Interactions, rules: Rules) -> tuple[Interactions, Interactions]:
    """Train and a drawn pair of each user as validation; a user's and an item's last pair stay in train."""
    rng = np.random.default_rng([rules.seed, len(joined)])
    held, asked = np.zeros(len(joined), bool), np.zeros(joined.n_users, bool)
    of_user = np.bincount(joined.user, minlength=joined.n_users)
    of_item = np.bincount(joined.item, minlength=joined.n_items)
    for row in rng.permutation(len(joined)):
        u, i = joined.user[row], joined.item[row]
        if not asked[u] and of_user[u] > 1 and of_item[i] > 1:
            held[row] = asked[u] = True
            of_item[i] -= 1
    return joined.select(~held), joined.select(held)


def _digest(train: Interactions, valid: Interactions, items: ItemSet, rules: Rules) -> hashlib._Hash:
    digest = hashlib.sha256(rules.model_dump_json().encode())
    digest.update("\n".join(items.ids).encode())
    for part in (train, valid):
        _add(digest, part)
    for name in items.modalities:
        digest.update(name.encode() + items.present[name].tobytes() + items.features[name].tobytes())
    return digest


def _add(digest: hashlib._Hash, part: Interactions) -> None:
    order = np.lexsort((part.item, part.user))
    digest.update(part.user[order].tobytes() + b"/" + part.item[order].tobytes() + b";")


def validate(model: Recommends, known: Validation) -> float:
    """Mean Recall@20 over all users with a validation positive; 0 where there is none."""
    asked, positives = requests(known.train, known.valid)
    k = int(CHOICE.rpartition("@")[2])
    return evaluate(model, asked, [Slice("all", positives)], (k,)).mean("all", CHOICE)[0]


def test_slices(bench: Bench) -> dict[str, sparse.csr_matrix]:
    """Slice -> (B, I) positives of the users with a test positive, in the order of their rows."""
    positives = requests(bench.masked, bench.test)[1]
    if not bench.cold.any():
        return {"all": positives}
    cold = of_items(positives, bench.cold)
    return {"all": positives, "warm": of_items(positives, ~bench.cold), "cold": cold, "cold_only": cold}


def test_result(model: Recommends, bench: Bench) -> Result:
    """The test, with lists of 50; ``cold_only`` ranks the cold items among themselves."""
    asked = requests(bench.masked, bench.test)[0]
    parts = [
        Slice(name, positives, bench.cold if name == "cold_only" else None)
        for name, positives in test_slices(bench).items()
    ]
    return evaluate(model, asked, parts, KS, depth=max(KS))


def requests(history: Interactions, target: Interactions) -> tuple[Requests, sparse.csr_matrix]:
    """Requests of the users of ``target``, with what they touched, and their positives (B, I) CSR."""
    positives = target.matrix()
    users = np.flatnonzero(np.diff(positives.indptr) > 0)
    return Requests(users.astype(np.int64), history.matrix()[users]), metrics.canonical(positives[users])

"""An encoder learns what people choose together: the objective behind the stage ``learn``.

Encoding is what costs, so a step encodes few items and asks about all that was done with them: it draws users and takes
what they chose until it has its items, then takes everybody who chose two of those. Each user's choices are split at
random into a history and targets (Liang et al., WWW 2018, arXiv 1802.05814, as the recommender of two towers does); the
user is the mean of the history's vectors, and the loss is the softmax cross-entropy of the targets among the items of
the step (in-batch softmax; Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations",
RecSys 2019, without the correction: items come as often as they were chosen, so the vectors need not hold popularity;
a recommender learns that by itself). Lengths are taken out of the vectors, a learnt factor puts one back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from fusionrec.encoders.base import Trainee
from fusionrec.encoders.learnt import Learning
from fusionrec.recommenders.base import Retriever, Watch, silent
from fusionrec.recommenders.dense import dot_products
from fusionrec.recommenders.training import Training, draws, share, tensor, train
from fusionrec.recommenders.validation import validation_by_group
from fusionrec.types import Bool, Float32, Interactions, ItemSet, Requests

if TYPE_CHECKING:
    from torch import Tensor, nn

BLOCK = 128  # items in one pass of validation
STEPS = 4  # in an epoch, at least: of a small catalogue each takes a part or all of it
SCALE = (
    2.0  # where the factor of the cosines starts: from a larger one the first thing learnt is to make all items alike
)


@dataclass(frozen=True)
class Learned:
    """``before`` and ``best``: the validation metric untrained and of the weights that were kept; ``curve``: one row an
    epoch."""

    before: float
    best: float
    curve: list[dict[str, float]] = field(default_factory=list)


def learn(
    trainee: Trainee,
    prepared: Sequence[np.ndarray | None],
    train_set: Interactions,
    valid: Interactions,
    how: Learning,
    watch: Watch = silent,
) -> Learned:
    """Train ``trainee.module``, which ends on the weights of the best epoch, or on those it began with where no epoch
    was better on validation.

    ``prepared``: of each of the I items what the trainee's front made of it, None where the item lacks the modality.
    Raises ValueError where there is nothing to learn from or to stop by, and where the loss is not finite.
    """
    import torch

    present = np.array([p is not None for p in prepared], bool)
    x = _kept(train_set.matrix(), present)
    users = np.flatnonzero(np.diff(x.indptr) >= 2)
    _require(users, x, valid, present)
    touched = np.flatnonzero(np.asarray(x.sum(0)).ravel() > 0)
    trainee.meet([p for p in (prepared[i] for i in touched.tolist()) if p is not None])
    own = trainee.module

    class Objective(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = own
            self.scale = torch.nn.Parameter(torch.tensor(math.log(SCALE)))

    module = Objective()

    def batches(epoch: int) -> Iterator[Callable[[], Tensor]]:
        rng = draws(how.seed, epoch)
        for _ in range(max(STEPS, -(-len(touched) // how.items))):
            pool = drawn_items(x, users, how.items, rng)
            part = x[:, pool]
            rows = np.flatnonzero(np.diff(part.indptr) >= 2)
            rows = np.sort(rng.choice(rows, how.users, replace=False)) if len(rows) > how.users else rows
            yield partial(_loss, trainee, module, [prepared[i] for i in pool], part[share(rows)], rng)

    judge = _MeanOfHistory(present)

    def validate() -> float:
        judge.vectors = vectors(trainee, prepared)
        return validation_by_group(judge, train_set, valid, how.metric)

    own.eval()
    before, started = validate(), {name: value.clone() for name, value in own.state_dict().items()}
    curve: list[dict[str, float]] = []

    def watched(epoch: int, values: Mapping[str, float]) -> None:
        curve.append({"epoch": epoch, **values})
        watch(epoch, values)

    same = {k: getattr(how, k) for k in ("epochs", "lr", "weight_decay", "patience", "metric")}
    best = train(module, batches, validate, Training(**same), watched, how.seed, trainee.work)
    if best <= before:  # learning did harm: what it started from is better, and stays
        own.load_state_dict(started)
    return Learned(before, max(before, best), curve)


def vectors(trainee: Trainee, prepared: Sequence[np.ndarray | None]) -> Float32:
    """(I, D) float32 of unit length, zero rows where an item has nothing."""
    import torch

    rows = [i for i, p in enumerate(prepared) if p is not None]
    # Alike lengths together: the longest of a block sets how far the others are filled up.
    rows.sort(key=lambda i: len(prepared[i]))  # type: ignore[arg-type]
    out = np.zeros((len(prepared), trainee.dim), np.float32)
    with torch.no_grad():
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            z = trainee.forward([prepared[i] for i in part])  # type: ignore[misc]
            out[part] = torch.nn.functional.normalize(z, dim=1).cpu().numpy()
    return out


def _loss(
    trainee: Trainee, module: nn.Module, prepared: Sequence[Any], x_BP: sparse.csr_matrix, rng: np.random.Generator
) -> Tensor:
    """The mean loss over B users, whose choices among the P items of the step are ``x_BP``, two at least of each."""
    import torch

    z_PD = torch.nn.functional.normalize(trainee.forward(prepared), dim=1)
    device, owner, item = z_PD.device, np.repeat(np.arange(x_BP.shape[0]), np.diff(x_BP.indptr)), x_BP.indices
    asked = halves(x_BP.indptr, rng)
    past_BP = sparse.csr_matrix((np.ones((~asked).sum(), np.float32), (owner[~asked], item[~asked])), x_BP.shape)
    history_BP = tensor(past_BP.toarray(), device)
    user_BD = torch.nn.functional.normalize(history_BP @ z_PD, dim=1)
    logits = (user_BD @ z_PD.T * module.scale.exp()).masked_fill(history_BP > 0, -1e9)
    log_p = torch.log_softmax(logits, 1)[tensor(owner[asked], device), tensor(item[asked].astype(np.int64), device)]
    weight = 1.0 / np.sqrt(np.bincount(owner[asked], minlength=x_BP.shape[0]))[owner[asked]]
    weight_N = tensor(weight.astype(np.float32), device)
    return -(log_p * weight_N).sum() / weight_N.sum()


def drawn_items(x: sparse.csr_matrix, users: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Sorted rows of at most ``most`` items: what ``users``, in random order, chose in ``x`` (U, I), until it is
    enough.

    So two of the items were chosen by the same user at least, in a large catalogue too. ``most`` is at least 2.
    """
    found: set[int] = set()
    for user in rng.permutation(users):
        own = x.indices[x.indptr[user] : x.indptr[user + 1]]
        found.update(
            rng.permutation(own)[: most - len(found)].tolist() if len(own) > most - len(found) else own.tolist()
        )
        if len(found) >= most:
            break
    return np.array(sorted(found), np.int64)


def halves(indptr: np.ndarray, rng: np.random.Generator) -> Bool:
    """(N,) bool of the entries of a CSR matrix whose rows have two at least: which are targets, each by the toss of a
    coin; of every row one is a target and one is not."""
    count = np.diff(indptr)
    asked = rng.random(indptr[-1]) < 0.5
    first = indptr[:-1] + rng.integers(0, count)
    second = indptr[:-1] + (first - indptr[:-1] + rng.integers(1, count)) % count
    asked[first], asked[second] = True, False
    return asked


def _kept(x: sparse.csr_matrix, present: Bool) -> sparse.csr_matrix:
    """The choices of items that have the modality."""
    out = x.multiply(present[None, :].astype(np.float32)).tocsr()
    out.eliminate_zeros()
    out.sort_indices()
    return out


def _require(users: np.ndarray, x: sparse.csr_matrix, valid: Interactions, present: Bool) -> None:
    if not present.any():
        raise ValueError("no item of the training split has the modality; there is nothing to learn from")
    if len(users) == 0:
        raise ValueError(
            f"found {x.nnz} choices of items that have the modality and no user with two of them in the training "
            "split; expected such users: an encoder learns from what is chosen together. Use a pretrained encoder"
        )
    if len(valid) == 0 or not present[valid.item].any():
        raise ValueError(
            "the validation split holds no choice of an item that has the modality, so nothing says when to stop; "
            "choose a split with a validation part, or a pretrained encoder"
        )


class _MeanOfHistory(Retriever):
    """Cosine between the mean of the history's vectors and the item's: the objective itself, as a retriever."""

    retrieval = "mips"

    def __init__(self, present: Bool) -> None:
        self.present = present
        self.items = ItemSet(tuple(map(str, range(len(present)))))
        self.vectors: Float32 = np.zeros((len(present), 1), np.float32)

    def _fit(self, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        raise NotImplementedError("its vectors are given")

    def _score(self, requests: Requests) -> Float32:
        user = np.asarray(requests.history @ self.vectors, np.float32)
        user /= np.maximum(np.linalg.norm(user, axis=1, keepdims=True), 1e-9)
        scores = dot_products(user, self.vectors)
        scores[:, ~self.present] = -np.inf
        return scores

    def arrays(self) -> dict[str, np.ndarray]:
        return {"vectors": self.vectors}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.vectors = np.asarray(arrays["vectors"], np.float32)

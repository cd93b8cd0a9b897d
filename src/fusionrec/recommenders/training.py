"""The one training loop: seeded, stopped early on validation, ending on the best weights seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from fusionrec.recommenders.base import Watch
from fusionrec.types import Spec

if TYPE_CHECKING:
    from scipy import sparse
    from torch import Tensor, nn


class Training(Spec):
    """How a trained model learns. Adam, mini-batches, early stopping on a validation metric."""

    epochs: PositiveInt = 60
    batch: PositiveInt = 256
    lr: PositiveFloat = 3e-3
    weight_decay: float = Field(1e-4, ge=0)
    patience: NonNegativeInt = Field(8, description="validations without a better value before it stops; 0: never")
    metric: Literal["ndcg@20", "recall@20"] = Field("ndcg@20", description="what early stopping looks at")
    valid_every: PositiveInt = Field(1, description="epochs from one validation to the next")
    valid_users: PositiveInt = Field(2000, description="users that validation asks, at most")
    decay: float = Field(1.0, gt=0, le=1, description="the learning rate of epoch e is lr x decay^e")


def train(
    module: nn.Module,
    batches: Callable[[int], Iterable[Callable[[], Tensor]]],
    validate: Callable[[], float],
    how: Training,
    watch: Watch,
) -> float:
    """Run epochs until ``how.epochs`` or until validation stops improving; returns the best validation value.

    ``batches(epoch)`` yields closures that compute the loss of one batch; ``validate()`` is called after each
    epoch in evaluation mode without gradients. The module ends with the weights of the best epoch.
    """
    import torch

    optimiser = torch.optim.Adam(module.parameters(), lr=how.lr, weight_decay=how.weight_decay)
    best, best_state, since = -np.inf, None, 0
    for epoch in range(how.epochs):
        for group in optimiser.param_groups:
            group["lr"] = how.lr * how.decay**epoch
        module.train()
        losses = []
        for loss_of_batch in batches(epoch):
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of_batch()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        mean_loss = float(np.mean(losses)) if losses else 0.0
        if not np.isfinite(mean_loss):
            raise ValueError(f"the loss is {mean_loss} in epoch {epoch}: lower the learning rate (lr is {how.lr})")
        if (epoch + 1) % how.valid_every and epoch + 1 < how.epochs:
            watch(epoch, {"loss": mean_loss})
            continue
        module.eval()
        with torch.no_grad():
            value = validate()
        watch(epoch, {"loss": mean_loss, f"valid_{how.metric}": value})
        if value > best:
            best, since = value, 0
            best_state = {k: v.detach().clone() for k, v in module.state_dict().items()}
        else:
            since += 1
            if how.patience and since >= how.patience:
                break
    if best_state is not None:
        module.load_state_dict(best_state)
    module.eval()
    return best


def share(rows: np.ndarray) -> np.ndarray:
    """This process's part of one batch's rows (N,): every world-th one. Alone it is ``rows`` itself.

    Every process draws the same batches and takes its part. Parts are equally long (rows from the beginning fill
    the last ones up), so that the mean over processes is the mean over the batch, and nobody's part is empty.
    """
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    return np.resize(rows, -(-len(rows) // world) * world)[rank::world] if len(rows) else rows


def state_arrays(module: nn.Module, prefix: str) -> dict[str, np.ndarray]:
    """The weights as named float arrays, ``prefix/name``."""
    return {f"{prefix}/{k}": v.detach().cpu().numpy().copy() for k, v in module.state_dict().items()}


def load_state(module: nn.Module, arrays: dict[str, np.ndarray], prefix: str) -> None:
    """The inverse of :func:`state_arrays`; shapes must agree."""
    import torch

    own = {
        k.removeprefix(f"{prefix}/"): torch.from_numpy(np.array(v))
        for k, v in arrays.items()
        if k.startswith(f"{prefix}/")
    }
    module.load_state_dict(own, strict=True)


def sample_negatives(rng: np.random.Generator, users: np.ndarray, matrix: sparse.csr_matrix) -> np.ndarray:
    """One uniform item per entry of ``users`` (N,) that the user has no training interaction with, (N,) int64.

    Rejection by binary search in the CSR's row-column keys; a user who has touched everything keeps a random item.
    """
    n_items = matrix.shape[1]
    keys = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr)) * n_items + matrix.indices
    out = rng.integers(0, n_items, len(users))
    todo = np.arange(len(users))
    for _ in range(50):
        wanted = users[todo].astype(np.int64) * n_items + out[todo]
        at = np.searchsorted(keys, wanted)
        hit = (at < len(keys)) & (keys[np.minimum(at, len(keys) - 1)] == wanted)
        todo = todo[hit]
        if len(todo) == 0:
            break
        out[todo] = rng.integers(0, n_items, len(todo))
    return out

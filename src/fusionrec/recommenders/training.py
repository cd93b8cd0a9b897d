"""The one training loop: seeded, stopped early on validation, ending on the best weights seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from fusionrec.recommenders.base import Watch
from fusionrec.recommenders.checkpoints import resumable
from fusionrec.recommenders.devices import share, tensor
from fusionrec.threads import threads_for
from fusionrec.types import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "Training",
    "draws",
    "load_state",
    "resumable",
    "share",
    "state_arrays",
    "tensor",
    "train",
]


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


def draws(seed: int, epoch: int) -> np.random.Generator:
    """The generator that ``batches(epoch)`` draws its order, negatives and whatever else from.

    One generator an epoch, so that a resumed training needs no random state and draws what the straight one drew. It
    is the same in every process; take it at the beginning of ``batches`` and keep it no longer than the epoch.
    """
    return np.random.default_rng([seed, epoch])


def train(
    module: nn.Module,
    batches: Callable[[int], Iterable[Callable[[], Tensor]]],
    validate: Callable[[], float],
    how: Training,
    watch: Watch,
    seed: int = 0,
    work: float = math.inf,
) -> float:
    """Run epochs until ``how.epochs`` or until validation stops improving; returns the best validation value.

    ``batches(epoch)`` yields closures that compute the mean loss over this process's :func:`share` of one batch, on
    the module's device; all that is random in it comes from :func:`draws` or from torch's own generator, which is
    seeded by (``seed``, epoch, process). ``validate()`` is called in evaluation mode without gradients (in process 0
    alone; the others get its value); NaN says that there is nothing to judge by. The module ends on the CPU with the
    weights of the best epoch, without anything to judge by of the last. Inside
    :func:`resumable` it goes on from the newest checkpoint, after ``watch`` has seen the epochs before it. ``work``:
    multiplications of a step (:func:`fusionrec.threads.threads_for`).
    Raises ValueError where a loss is not finite.
    """
    from fusionrec.recommenders.loop import Loop

    with threads_for(work):
        return Loop(module, how, seed).run(batches, validate, watch)


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

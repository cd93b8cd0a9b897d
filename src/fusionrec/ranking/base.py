"""The ranker contract: candidates of a request get a probability or a value per task.

Legend: N impressions, B requests, K candidates a request, U users, I items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fusionrec.fusion.base import FusionSpec
from fusionrec.types import Bool, Float32, Int32, Int64, Interactions, ItemSet, Requests, Spec

Int16 = NDArray[np.int16]

Watch = Callable[[int, Mapping[str, float]], None]
"""Called once an epoch with (epoch, values), as by retrievers."""

POSITION = "position"
"""The context column that says where in the list an item stood, from 1; 0: unknown."""


TASKS = ("click", "conversion", "ad_click", "like", "rating")
"""What a ranker predicts where nobody says it: those of them that have a label."""


def silent(epoch: int, values: Mapping[str, float]) -> None:
    """A watch that shows nothing."""


@dataclass(frozen=True)
class UserSet:
    """``ids``: U pseudonyms in the order of ``Requests.user``; ``codes``: attribute -> (U,) int32, 0 for unknown;
    ``sizes``: attribute -> number of codes, 0 included."""

    ids: tuple[str, ...]
    codes: Mapping[str, Int32] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Impressions:
    """What was shown and what came of it, N rows.

    ``user`` (N,) int32 in [-1, U), -1 for a user that training does not know; ``item`` (N,) int32 in [0, I); ``time``
    (N,) int64 UTC microseconds, or None; ``context``: name -> (N,) int16 codes, 0 for unknown (``position`` is one);
    ``labels``: task -> (N,) float32, 0 or 1 or a value, NaN where nothing is known of it.
    """

    user: Int32
    item: Int32
    time: Int64 | None
    context: Mapping[str, Int16]
    labels: Mapping[str, Float32]

    def __post_init__(self) -> None:
        columns: dict[str, NDArray[Any]] = {"user": self.user, "item": self.item, **self.context, **self.labels}
        columns |= {} if self.time is None else {"time": self.time}
        sizes = {name: len(column) for name, column in columns.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"lengths differ: {', '.join(f'{name} {size}' for name, size in sizes.items())}")

    def __len__(self) -> int:
        return len(self.user)

    def select(self, rows: NDArray[Any]) -> Impressions:
        """The impressions at ``rows`` (a boolean mask or positions)."""
        return Impressions(
            self.user[rows],
            self.item[rows],
            None if self.time is None else self.time[rows],
            {name: column[rows] for name, column in self.context.items()},
            {name: column[rows] for name, column in self.labels.items()},
        )


@dataclass(frozen=True)
class Words:
    """What users wrote and asked, W texts: ``user`` (W,) int32 in [0, U); ``time`` (W,) int64 UTC microseconds;
    ``vectors`` (W, D) float32 by the encoder of the ``modality``; ``language`` (W,) its code as text."""

    user: Int32
    time: Int64
    vectors: Float32
    language: NDArray[np.str_]
    modality: str

    def __post_init__(self) -> None:
        sizes = {len(self.user), len(self.time), len(self.vectors), len(self.language)}
        if len(sizes) > 1:
            raise ValueError(f"lengths differ: {', '.join(map(str, sorted(sizes)))}")

    def __len__(self) -> int:
        return len(self.user)

    def before(self, time: int) -> Words:
        """Those said strictly before."""
        here = self.time < time
        return Words(self.user[here], self.time[here], self.vectors[here], self.language[here], self.modality)


@dataclass(frozen=True)
class Known:
    """What a ranker may know beside the impressions: the catalogue, the users, and the positives of train and what
    users said, both with their times: it takes those strictly before each impression."""

    items: ItemSet
    users: UserSet
    history: Interactions
    words: Words | None = None


class Ranker(ABC):
    """Re-scores retrieved candidates. ``tasks`` names its outputs, e.g. ("click", "conversion")."""

    tasks: tuple[str, ...]
    fit_ids: tuple[str, ...] = ()
    values: ClassVar[frozenset[str]] = frozenset({"rating"})
    """The tasks whose output is a value; that of the others is a probability."""

    @abstractmethod
    def fit(
        self, train: Impressions, valid: Impressions, known: Known, *, seed: int = 0, watch: Watch = silent
    ) -> None:
        """Learn from impressions with their outcomes; ``valid`` is for early stopping only, and may be empty.

        Raises ValueError without impressions, and where no task has a label.
        """

    @abstractmethod
    def attach(self, items: ItemSet) -> None:
        """Bind the catalogue whose rows ``candidates`` name from now on. No training happens."""

    def meet(self, users: UserSet) -> None:  # noqa: B027  (a ranker may read no attributes)
        """Bind the attributes of the users of the fit, in its order; after :meth:`restore` all of them are unknown.

        They are personal, so :meth:`arrays` leaves them out: whoever holds the table of users tells who they are.
        """

    def hear(self, words: Words | None) -> None:  # noqa: B027  (a ranker may read no words)
        """Bind what the users of the fit wrote and asked; after :meth:`restore` nobody has said anything, as with None.

        Words are personal, so :meth:`arrays` leaves them out. Of them a request knows those strictly before its time;
        one without a time knows them all.
        """

    @abstractmethod
    def predict(
        self, requests: Requests, candidates: Int64, context: Mapping[str, Int16] | None = None
    ) -> dict[str, Float32]:
        """``candidates`` (B, K) item rows, -1 for none -> task -> (B, K) float32, NaN-free.

        ``context``: name -> (B, K) int16 codes as in :class:`Impressions`; without it every candidate is judged as if
        it stood first, so that where it stands does not enter.
        """

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything learnt, as named arrays."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, np.ndarray], fit_ids: tuple[str, ...]) -> None:
        """The inverse of :meth:`arrays`; :meth:`attach` must follow before predicting."""


class RankerSpec(Spec):
    """Base of the ranker sections of params.yaml."""

    reads_content: ClassVar[bool] = True
    """Whether there is anything that it reads besides who and which."""
    kind: Any
    tasks: tuple[str, ...] = Field(TASKS, min_length=1, description="those without a label are left out")
    ids: bool = Field(True, description="false: who and which stay hidden, content and attributes decide alone")

    @property
    def hears(self) -> bool:
        """Whether it reads what users wrote and asked."""
        return False

    def deaf(self) -> RankerSpec:
        """The same without what users wrote and asked."""
        return self

    def build(self, fusion: FusionSpec | None = None) -> Ranker:
        """An unfitted model. ``fusion`` is injected into the models that read content through one."""
        raise NotImplementedError


def labelled(train: Impressions, tasks: tuple[str, ...]) -> dict[str, Bool]:
    """Task -> (N,) bool: rows with a label, for the tasks that have any. Raises ValueError where none has, where there
    is no impression, and for a label that is infinite."""
    if len(train) == 0:
        raise ValueError("nothing to train on: no impressions")
    here = {task: ~np.isnan(train.labels[task]) for task in tasks if task in train.labels}
    for task in here:
        endless = int(np.isinf(train.labels[task]).sum())
        if endless:
            raise ValueError(
                f"{endless} labels of {task} are infinite; expected numbers, or NaN where nothing is known"
            )
    found = {task: rows for task, rows in here.items() if rows.any()}
    if not found:
        raise ValueError(f"nothing to train on: no impression has a label of {', '.join(tasks)}")
    return found

"""What rankers read of an impression besides its past: who, what, the user's attributes, the context, the content.

An id that training did not know, an item that it never showed, an attribute that nobody has told and a context that it
never met read as 0, unknown. Legend: B rows, F fields, A attributes, U users and I items of the fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fusionrec.fusion.space import FeatureSpace
from fusionrec.ranking.base import POSITION, Impressions, Known, UserSet
from fusionrec.ranking.past import content_space
from fusionrec.types import Bool, Int32, Int64, ItemSet


@dataclass
class Fields:
    """Learnt: ``fit_ids``, ``touched`` (I,) the items that training showed, ``space`` of the content, ``users`` U, the
    number of codes of each of ``attributes`` and ``context`` (without the place), ``places`` the last one of a list;
    without ``ids`` every user and every item reads as unknown.

    Told by :meth:`attach`: ``code`` of each item of the catalogue. Told by :meth:`meet`: ``attribute`` (U, A) codes.
    """

    fit_ids: tuple[str, ...]
    touched: Bool
    space: FeatureSpace
    users: int
    attributes: Mapping[str, int]
    context: Mapping[str, int]
    places: int
    ids: bool = True

    def __post_init__(self) -> None:
        self.attribute: Int32 = np.zeros((self.users, len(self.attributes)), np.int32)
        self.code: Int64 = np.zeros(0, np.int64)

    @classmethod
    def learn(cls, train: Impressions, known: Known, width: int, seed: int, ids: bool = True) -> Fields:
        """From the impressions of training, met and attached to what is ``known``."""
        touched = np.zeros(len(known.items), bool)
        touched[train.item] = True
        highest = {name: int(train.context[name].max(initial=0)) for name in sorted(train.context)}
        places = highest.pop(POSITION, 0)
        fields = cls(
            known.items.ids,
            touched,
            content_space(known, touched, width, seed),
            len(known.users),
            dict(known.users.sizes),
            {name: code + 1 for name, code in highest.items()},
            places,
            ids,
        )
        fields.meet(known.users)
        fields.attach(known.items)
        return fields

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of codes of each column of :meth:`codes`."""
        ids = (self.users + 1, len(self.touched) + 1) if self.ids else (1, 1)
        return (*ids, *self.attributes.values(), *self.context.values())

    def attach(self, items: ItemSet) -> None:
        """Bind the catalogue whose rows :meth:`codes` is given."""
        row = self.rows(items)
        self.code = np.where((row >= 0) & self.touched[np.maximum(row, 0)], row + 1, 0)

    def rows(self, items: ItemSet) -> Int64:
        """(I',) the row at the fit of each item of a catalogue, -1 for a new one."""
        at = {item: row for row, item in enumerate(self.fit_ids)}
        return np.array([at.get(item, -1) for item in items.ids], np.int64)

    def meet(self, users: UserSet) -> None:
        """Bind the attributes of the users of the fit; 0 where ``users`` tells nothing, or a code beyond the size."""
        for column, (name, size) in enumerate(self.attributes.items()):
            codes = users.codes.get(name, np.zeros(self.users, np.int32))
            self.attribute[:, column] = np.where((codes >= 0) & (codes < size), codes, 0)

    def codes(self, user: Int64, item: Int64, context: Mapping[str, np.ndarray]) -> Int64:
        """(B, F) of users (-1: unknown) and items of the attached catalogue; the place is no field."""
        who = np.where((user >= 0) & (user < self.users), user, -1)
        columns = [who + 1, self.code[item]] if self.ids else [np.zeros_like(who)] * 2
        columns += [np.where(who >= 0, column[who], 0) for column in self.attribute.T]
        for name, size in self.context.items():
            given = context.get(name, np.zeros(len(user), np.int16))
            columns.append(np.where((given >= 0) & (given < size), given, 0))
        return np.stack(columns, axis=1).astype(np.int64)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything learnt; of :meth:`meet` nothing."""
        return {
            **self.space.arrays(),
            "touched": self.touched,
            "users": np.array([self.users], np.int64),
            "places": np.array([self.places], np.int64),
            "ids": np.array([self.ids]),
            **_counts("attribute", self.attributes),
            **_counts("context", self.context),
        }

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray], fit_ids: tuple[str, ...]) -> Fields:
        """The inverse of :meth:`arrays`; not attached, and nobody met."""
        return cls(
            tuple(fit_ids),
            np.asarray(arrays["touched"], bool),
            FeatureSpace.restore(arrays),
            int(arrays["users"][0]),
            _counted("attribute", arrays),
            _counted("context", arrays),
            int(arrays["places"][0]),
            bool(arrays["ids"][0]),
        )


def _counts(kind: str, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """``kind/<place>/<name>`` -> its number of codes."""
    return {f"{kind}/{at}/{name}": np.array([size], np.int64) for at, (name, size) in enumerate(sizes.items())}


def _counted(kind: str, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The inverse of :func:`_counts`, in its order."""
    parts = [name.split("/", 2) for name in arrays if name.startswith(f"{kind}/")]
    return {name: int(arrays[f"{kind}/{at}/{name}"][0]) for _, at, name in sorted(parts, key=lambda p: int(p[1]))}

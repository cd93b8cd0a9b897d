"""What rankers read of users and items: codes, 0 for what nobody told, and the same after they were written."""

from __future__ import annotations

import numpy as np

from fusionrec.ranking.base import Impressions, Known, UserSet
from fusionrec.ranking.fields import Fields
from fusionrec.types import Interactions, ItemSet

CODES = {"x": np.array([1, 2], np.int32), "a/b": np.array([3, 0], np.int32)}
USERS = UserSet(("u", "v"), CODES, {"x": 3, "a/b": 4})
ITEMS = ItemSet(("i", "j", "k"))


def learnt() -> Fields:
    none = np.zeros(0, np.int32)
    context = {n: np.array(c, np.int16) for n, c in {"surface": [1, 2], "position": [1, 7], "device": [0, 4]}.items()}
    shown = Impressions(np.array([0, 1], np.int32), np.array([0, 2], np.int32), None, context, {})
    return Fields.learn(shown, Known(ITEMS, USERS, Interactions(none, none, None, 2, 3)), 8, 0)


def codes(fields: Fields, user: list[int], item: list[int], **context: list[int]) -> list[list[int]]:
    given = {name: np.array(value, np.int16) for name, value in context.items()}
    return fields.codes(np.array(user), np.array(item), given).tolist()


def test_user_item_attributes_and_context_become_codes() -> None:
    fields = learnt()
    assert list(fields.context) == ["device", "surface"] and fields.places == 7 and fields.sizes == (3, 4, 3, 4, 5, 3)
    assert codes(fields, [0, 1], [2, 0], surface=[1, 2], device=[4, 1]) == [[1, 3, 1, 3, 4, 1], [2, 1, 2, 0, 1, 2]]


def test_what_is_not_known_is_0() -> None:
    fields = learnt()
    strangers = codes(fields, [-1, 2], [1, 0], surface=[9, -1])
    assert strangers == [[0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]], "item j was never shown, surface 9 never met"
    fields.attach(ItemSet(("new", "k")))
    assert [row[1] for row in codes(fields, [0, 0], [0, 1])] == [0, 3]
    fields.meet(UserSet(("u", "v"), {"x": np.array([1, 9], np.int32), "more": np.array([1, 1], np.int32)}))
    assert [row[2:4] for row in codes(fields, [0, 1], [1, 1])] == [[1, 0], [0, 0]], "9 is beyond the size, a/b untold"


def test_what_is_written_comes_back_without_the_users() -> None:
    fields = learnt()
    arrays = fields.arrays()
    assert not any((array == CODES["x"]).all() for array in arrays.values() if array.shape == (2,))
    again = Fields.restore(dict(sorted(arrays.items())), ITEMS.ids)
    again.attach(ITEMS)
    assert again.sizes == fields.sizes and list(again.attributes) == ["x", "a/b"] and again.places == 7
    assert codes(again, [0], [0], surface=[1]) == [[1, 1, 0, 0, 0, 1]]
    again.meet(USERS)
    assert codes(again, [0, 1], [0, 2], device=[1, 1]) == codes(fields, [0, 1], [0, 2], device=[1, 1])

"""Past ratings: worked by hand, strictly before, and what is kept of them."""

from __future__ import annotations

import numpy as np
import pytest

from fusionrec.errors import ConfigError
from fusionrec.ranking.base import Impressions
from fusionrec.ranking.rated import PRIOR, PastRatings

NAN = np.nan


def shown(item: list[int], time: list[int] | None, rating: list[float]) -> Impressions:
    n = len(item)
    return Impressions(
        np.zeros(n, np.int32),
        np.array(item, np.int32),
        None if time is None else np.array(time, np.int64),
        {},
        {"rating": np.array(rating, np.float32)},
    )


# Ratings 5, 1, 3, 3: mean 3, deviation sqrt(2); item 2 has 5 at t = 10 and 1 at t = 30, item 0 has 3 at 10 and 20.
ROWS = shown([2, 0, 1, 2, 0], [30, 20, 15, 10, 10], [1, 3, NAN, 5, 3])
HIGH = np.sqrt(2)


def test_it_is_the_shrunken_mean_of_what_came_strictly_before() -> None:
    found = PastRatings.learn(ROWS, 4)
    item, time = np.array([2, 2, 2, 2, 0, 1, 3]), np.array([10, 11, 30, 31, 99, 99, 99])
    value, there = found.before(item, time)
    assert there.tolist() == [False, True, True, True, True, False, False]
    expected = [0, HIGH / (1 + PRIOR), HIGH / (1 + PRIOR), 0, 0, 0, 0]
    np.testing.assert_allclose(value[:, 0], expected, atol=1e-6)
    assert value.shape == (7, 1) and value.dtype == np.float32


def test_after_training_all_of_it_counts_and_new_items_have_none() -> None:
    found = PastRatings.learn(shown([2, 0, 2], [1, 2, 3], [5, 1, 5]), 4)
    value, there = found.before(np.array([2, 0, -1]), None)
    assert there.tolist() == [True, True, False] and value[0] > 0 > value[1] and value[2] == 0


def test_what_is_kept_answers_the_same_at_every_time() -> None:
    found = PastRatings.learn(ROWS, 4)
    again = PastRatings.restore(found.arrays())
    item = np.tile(np.array([2, 0, 1, 3, -1]), 6)
    time = np.repeat(np.array([np.iinfo(np.int64).min, 10, 11, 20, 30, 99]), 5)
    for moment in (time, None):
        for kept, learnt in zip(again.before(item, moment), found.before(item, moment), strict=True):
            np.testing.assert_array_equal(kept, learnt)
    older = {"rated/total": np.zeros(4), "rated/count": np.zeros(4, np.int64)}
    with pytest.raises(ConfigError, match="without the times of its ratings.*run the stage rank again"):
        PastRatings.restore(older)


def test_ratings_that_are_all_the_same_say_nothing() -> None:
    value, there = PastRatings.learn(shown([0, 1], [1, 2], [4, 4]), 2).before(np.array([0, 1]), None)
    assert not value.any() and there.all()


@pytest.mark.parametrize(
    ("time", "rating", "found"), [(None, [4, 2], "no timestamps"), ([1, 2], [NAN, NAN], "no ratings")]
)
def test_without_ratings_or_times_it_is_refused(time: list[int] | None, rating: list[float], found: str) -> None:
    with pytest.raises(ValueError, match=f"past_rating: found {found} in training"):
        PastRatings.learn(shown([0, 1], time, rating), 2)

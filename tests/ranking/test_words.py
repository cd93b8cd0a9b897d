"""The user's own words: worked by hand, strictly before, of nobody alone; and what a planted world says of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from fusionrec.evaluation.probabilities import Judged, measure
from fusionrec.fusion.space import FeatureSpace
from fusionrec.ranking.base import Impressions, Known, Ranker, UserSet, Words
from fusionrec.ranking.deepfm import DeepFM
from fusionrec.ranking.happened import predictions
from fusionrec.ranking.words import ALL, Hearing
from fusionrec.types import Interactions, ItemSet, Requests, item_order

NONE = np.zeros(0, np.int32)


def words(user: list[int], time: list[int], x: list[list[float]], language: list[str] | None = None) -> Words:
    names = np.array(language or ["en"] * len(user))
    return Words(np.array(user, np.int32), np.array(time, np.int64), np.array(x, np.float32), names, "text")


def shown(time: list[int] | None, n: int = 1) -> Impressions:
    at = None if time is None else np.array(time, np.int64)
    zero = np.zeros(n if at is None else len(at), np.int32)
    return Impressions(zero, zero, at, {}, {"click": zero.astype(np.float32)})


def known(said: Words | None, items: ItemSet | None = None) -> Known:
    items = items or ItemSet(("a", "b", "c"))
    users = UserSet(tuple(f"u{n}" for n in range(7)))
    return Known(items, users, Interactions(NONE, NONE, None, 7, len(items)), said)


# User 0 said 0 and then 2, users 1 to 4 said 2: each user weighs the same, so the mean is (1 + 4 x 2) / 5 = 1.8 and the
# variance (1.64 + 4 x 0.04) / 5 = 0.36. The second number is the first times ten. User 5 spoke too late.
SAID = words([0, 0, 1, 2, 3, 4, 5], [10, 20, 10, 10, 10, 10, 99], [[v, 10 * v] for v in (0, 2, 2, 2, 2, 2, 500)])


def learnt(said: Words = SAID) -> Hearing:
    found = Hearing.learn(shown([50, 90]), known(said), FeatureSpace(), last=3)
    assert found is not None
    return found


def test_how_words_are_distributed_weighs_each_user_the_same_and_knows_nothing_of_later_ones() -> None:
    np.testing.assert_allclose(learnt().scale[ALL], [[1.8, 18], [0.6, 6]], rtol=1e-5)
    assert set(learnt().scale) == {ALL, "en"}


def test_only_what_was_said_strictly_before_counts() -> None:
    hearing = learnt()
    user, time = np.array([0, 0, 0, 1, 5, 6, -1]), np.array([10, 20, 21, 10, 100, 100, 100])
    said = hearing.at(hearing.spans(user, time), np.zeros(7, np.int64))
    assert said.count.tolist() == [0, 1, 2, 0, 1, 0, 0]
    low, high = (0 - 1.8) / 0.6, (2 - 1.8) / 0.6
    np.testing.assert_allclose(said.mean[:3], [[0, 0], [low, low], [(low + high) / 2] * 2], rtol=1e-4)
    assert not said.mean[[3, 5, 6]].any() and said.alike.shape == (7, 0)


def test_who_asks_without_a_time_knows_all_and_impressions_without_times_nothing() -> None:
    hearing = learnt()
    item = np.zeros(2, np.int64)
    assert hearing.at(hearing.spans(np.array([0, 5]), None), item).count.tolist() == [2, 1]
    assert hearing.at(hearing.spans(np.array([0, 5]), None, timed=False), item).count.tolist() == [0, 0]
    assert Hearing.learn(shown(None), known(SAID), FeatureSpace(), 3) is None


def test_at_most_the_last_ones_count() -> None:
    many = words([0] * 5 + [1, 2, 3, 4], [1, 2, 3, 4, 5, 1, 1, 1, 1], [[float(n), 1] for n in range(9)])
    hearing = learnt(many)
    said = hearing.at(hearing.spans(np.array([0]), np.array([60])), np.zeros(1, np.int64))
    mean, deviation = hearing.scale[ALL][:, 0]
    assert said.count.tolist() == [3]
    np.testing.assert_allclose(said.mean[0, 0], (np.mean([2, 3, 4]) - mean) / deviation, rtol=1e-5)


def test_of_fewer_than_five_users_nothing_is_learnt() -> None:
    four = words([0, 1, 2, 3, 3, 3], [1, 1, 1, 1, 2, 3], [[float(n), 1] for n in range(6)])
    assert Hearing.learn(shown([50]), known(four), FeatureSpace(), 3) is None
    assert Hearing.learn(shown([50]), known(None), FeatureSpace(), 3) is None
    mixed = replace(SAID, language=np.array(["en", "zh", "en", "en", "en", "zh", "en"]))
    assert set(learnt(mixed).scale) == {ALL}, "a language of two users is read as all are"


def test_words_of_another_encoder_are_refused() -> None:
    with pytest.raises(ValueError, match="words have 3 numbers, the ranker learnt 2"):
        learnt().hear(words([0], [1], [[1.0, 2, 3]]))


USERS, ITEMS, D, TOPICS = 40, 30, 11, 5
TOPIC = np.random.default_rng(0).normal(size=(TOPICS, D)).astype(np.float32)


class World:
    """A user asks for a topic, another one each time, and is then shown items of any; those asked for are clicked.

    What was clicked before tells nothing of the next topic. Words lie elsewhere than items, on another scale."""

    def __init__(self, n: int, seed: int, start: int) -> None:
        rng = np.random.default_rng(seed)
        kind = np.arange(ITEMS) % TOPICS
        x = TOPIC[kind] + 0.3 * np.random.default_rng(1).normal(size=(ITEMS, D)).astype(np.float32)
        ids = tuple(item_order(f"item-{i}" for i in range(ITEMS)))
        self.items = ItemSet(ids, {"text": x}, {"text": np.ones(ITEMS, bool)}, {"text": np.zeros(ITEMS, np.int16)})
        self.user = rng.integers(0, USERS, n).astype(np.int32)
        self.item = rng.integers(0, ITEMS, n).astype(np.int32)
        self.time = start + 10 * np.arange(n, dtype=np.int64)
        asked = rng.integers(0, TOPICS, n)
        said = 3 + 2 * (TOPIC[asked] + 0.3 * rng.normal(size=(n, D)).astype(np.float32))
        self.words = Words(self.user, self.time - 1, said.astype(np.float32), np.array(["en"] * n), "text")
        self.click = (rng.random(n) < np.where(kind[self.item] == asked, 0.8, 0.1)).astype(np.float32)
        self.shown = Impressions(self.user, self.item, self.time, {}, {"click": self.click})


TRAIN, VALID, TEST = World(2500, 1, 0), World(500, 2, 10**6), World(700, 3, 10**7)


def joined(*parts: Words) -> Words:
    each = [(p.user, p.time, p.vectors, p.language) for p in parts]
    return Words(*(np.concatenate(columns) for columns in zip(*each, strict=True)), "text")  # type: ignore[arg-type]


ALL_WORDS = joined(TRAIN.words, VALID.words, TEST.words)


def fit(own_words: bool, said: Words | None) -> Ranker:
    section = {"tasks": ("click",), "own_words": own_words, "training": {"epochs": 6, "batch": 256, "lr": 0.01}}
    ranker = DeepFM.model_validate(section).build()
    liked = TRAIN.click > 0
    history = Interactions(TRAIN.user[liked], TRAIN.item[liked], TRAIN.time[liked], USERS, ITEMS)
    users = UserSet(tuple(f"u{n}" for n in range(USERS)))
    ranker.fit(TRAIN.shown, VALID.shown, Known(TRAIN.items, users, history, said))
    return ranker


@cache
def fitted(own_words: bool) -> Ranker:
    return fit(own_words, joined(TRAIN.words, VALID.words))


def judged(ranker: Ranker) -> float:
    p = predictions(ranker, TEST.shown, Interactions(NONE, NONE, np.zeros(0, np.int64), USERS, ITEMS))["click"]
    return measure(Judged(TEST.user.astype(np.int64), TEST.click > 0.5, p.astype(np.float64)), repeats=1).mean["auc"]


def asked(user: np.ndarray, time: np.ndarray | None) -> Requests:
    history = Interactions(NONE, NONE, None, len(user), ITEMS).matrix()
    return Requests(user.astype(np.int64), history, time=time)


def test_who_asks_for_it_clicks_it_and_that_is_learnt() -> None:
    hears, deaf = fitted(True), fitted(False)
    hears.hear(ALL_WORDS)
    assert judged(deaf) < 0.6
    assert judged(hears) > 0.75, "the truth itself reaches 0.81"
    hears.hear(None)
    assert judged(hears) < 0.6, "nothing but words tells"


def test_a_word_of_now_or_later_changes_no_prediction_to_the_bit() -> None:
    user, time = TEST.user[:20], TEST.time[:20]
    own = TEST.words.time < TEST.time[10]
    other = replace(TEST.words, vectors=np.where(own[:, None], TEST.words.vectors, -7))
    other = replace(other, time=np.where(own, other.time, other.time + 1))  # the very moment of the impression
    ranker, rows = fitted(True), np.arange(20, dtype=np.int64)[:, None] % ITEMS
    said = []
    for one in (TEST.words, other):
        ranker.hear(joined(TRAIN.words, VALID.words, one))
        said.append(ranker.predict(asked(user, time), rows)["click"])
    np.testing.assert_array_equal(said[0][:10], said[1][:10])
    assert not np.array_equal(said[0][10:], said[1][10:])


def test_what_is_said_after_training_changes_nothing_that_is_learnt_to_the_bit() -> None:
    later = ALL_WORDS.time > VALID.time.max()
    changed = replace(ALL_WORDS, vectors=np.where(later[:, None], np.float32(9), ALL_WORDS.vectors))
    one, other = (fit(True, said).arrays() for said in (ALL_WORDS, changed))
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_a_stranger_has_said_nothing() -> None:
    ranker, rows = fitted(True), np.arange(6, dtype=np.int64).reshape(3, 2)
    strangers = asked(np.full(3, -1), None)
    ranker.hear(None)
    silent = ranker.predict(strangers, rows)["click"]
    known_one = ranker.predict(asked(np.arange(3), None), rows)["click"]
    ranker.hear(ALL_WORDS)
    np.testing.assert_array_equal(ranker.predict(strangers, rows)["click"], silent)
    assert not np.array_equal(ranker.predict(asked(np.arange(3), None), rows)["click"], known_one)


def test_what_is_kept_holds_no_word_and_predicts_the_same_once_they_are_told() -> None:
    ranker = fitted(True)
    arrays = ranker.arrays()
    assert not any(len(ALL_WORDS) in a.shape or len(TRAIN.words) + len(VALID.words) in a.shape for a in arrays.values())
    other = DeepFM.model_validate(ranker.spec.model_dump()).build()  # type: ignore[attr-defined]
    other.restore(arrays, ranker.fit_ids)
    other.attach(TRAIN.items)
    request, rows = asked(np.arange(4), None), np.arange(12, dtype=np.int64).reshape(4, 3)
    ranker.hear(None)
    np.testing.assert_array_equal(other.predict(request, rows)["click"], ranker.predict(request, rows)["click"])
    for one in (ranker, other):
        one.hear(ALL_WORDS)
    np.testing.assert_array_equal(other.predict(request, rows)["click"], ranker.predict(request, rows)["click"])


def test_without_words_a_ranker_that_would_read_them_is_the_same_as_one_that_does_not() -> None:
    one, other = fit(True, None).arrays(), fitted(False).arrays()
    assert list(one) == list(other)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)

"""The log at full size (no media): counts, windows, position bias, and that tastes act only where they are planted."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from fusionrec.demo import behaviour, truth, world
from fusionrec.demo.factors import FACTORS, PRESENT
from tests.demo.conftest import Full

MODALITIES = tuple(FACTORS)


def test_counts_are_as_designed(full: Full) -> None:
    per_event = dict(full.log.group_by("event").len().iter_rows())
    assert 300_000 <= per_event["impression"] <= 400_000
    assert 70_000 <= per_event["click"] <= 90_000
    assert per_event["click"] > per_event["cart"] > per_event["purchase"] > per_event["rating"] > 1000
    assert 100 < per_event["ad_click"] < 5000
    assert full.log.filter(pl.col("review").is_not_null()).height > 500
    parts = np.bincount(full.pairs.part)
    assert parts[0] == pytest.approx(60_000, rel=0.1) and 8_000 <= parts[2] <= 9_500


def test_each_late_window_has_at_least_150_new_items(full: Full) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    first = full.log.filter(pl.col("event") == "click").group_by("item_id").agg(pl.col("timestamp").min())
    for low, high in ((70, 80), (80, 90)):
        bounds = start + timedelta(days=low), start + timedelta(days=high)
        window = pl.col("timestamp").is_between(*bounds, closed="left")
        assert first.filter(window).height >= 150
    test = full.pairs.part == 2
    trained = np.unique(full.pairs.item[full.pairs.part == 0])
    cold = ~np.isin(full.pairs.item[test], trained)
    assert 0.20 <= cold.mean() <= 0.35
    known = np.unique(full.pairs.user[full.pairs.part == 0])
    assert 40 <= len(set(full.pairs.user[test].tolist()) - set(known.tolist())) <= 200


def test_nothing_is_shown_before_its_launch_nor_outside_the_90_days(full: Full) -> None:
    assert (full.world.items.launch[full.sessions.shown] <= full.sessions.day[:, None]).all()
    assert (full.sessions.day >= full.world.users.first_day[full.sessions.user]).all()
    assert full.log["timestamp"].min() >= datetime(2026, 1, 1, tzinfo=UTC)  # type: ignore[operator]
    assert full.log["timestamp"].max() < datetime(2026, 4, 1, tzinfo=UTC)  # type: ignore[operator]
    ordered = np.sort(full.sessions.shown, axis=1)
    assert (np.diff(ordered, axis=1) > 0).all(), "an item twice in one list"


def test_events_follow_each_other_within_a_session(full: Full) -> None:
    wide = full.log.filter(pl.col("impression_id").is_not_null()).pivot(
        "event", index=["impression_id", "session_id", "user_id", "item_id"], values="timestamp"
    )
    assert wide["impression"].null_count() == 0, "an event without its impression, or with another user or item"
    order = (("impression", "click"), ("click", "cart"), ("cart", "purchase"), ("impression", "ad_click"))
    for earlier, later in order:
        both = wide.filter(pl.col(later).is_not_null())
        assert both.height and (both[later] > both[earlier]).all()
    bought = full.log.filter(pl.col("event") == "purchase").select("user_id", "item_id")
    rated = full.log.filter(pl.col("event") == "rating")
    assert rated.join(bought, on=["user_id", "item_id"], how="anti").height == 0
    assert set(rated["value"].unique()) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert full.log["timestamp"].is_sorted()


def test_searches_name_what_was_shown_and_clicked(full: Full) -> None:
    shown = full.log.filter((pl.col("event") == "click") & pl.col("query_id").is_not_null())
    clicked = full.queries.filter(pl.col("clicked_item_id").is_not_null())
    joined = clicked.join(shown, left_on=["query_id", "clicked_item_id"], right_on=["query_id", "item_id"], how="left")
    assert joined["event"].null_count() == 0 and (joined["timestamp_right"] > joined["timestamp"]).all()
    assert set(full.log.filter(pl.col("query_id").is_not_null())["surface"]) == {"search"}
    s = full.sessions
    hit = full.world.items.category[s.shown[s.search]] == s.category[s.search][:, None]
    assert hit[~s.random_slot[s.search]].mean() > 0.5 > 0.25 > hit[s.random_slot[s.search]].mean()


def test_position_biases_clicks_but_not_what_is_shown(full: Full) -> None:
    rate = full.sessions.clicked.mean(axis=0)
    assert (np.diff(rate[:6]) < 0).all() and rate[0] > 2.5 * rate[-1]
    utility = full.world.utility[full.sessions.user[:, None], full.sessions.shown]
    place = np.broadcast_to(np.arange(12), utility.shape)
    assert abs(np.corrcoef(place.ravel(), utility.ravel())[0, 1]) < 0.01


def test_random_slots_are_a_quarter_and_click_less(full: Full) -> None:
    s = full.sessions
    assert s.random_slot.mean() == pytest.approx(0.25)
    assert s.clicked[s.random_slot].mean() < 0.5 * s.clicked[~s.random_slot].mean()


def test_the_oracle_is_far_above_popularity(full: Full) -> None:
    shape = full.world.utility.shape
    history, counts = full.pairs.matrix((0, 1), shape), full.pairs.matrix((0,), shape).sum(axis=0)
    popularity = np.broadcast_to(counts.astype(np.float32), shape)
    best = truth.oracle(full.world, full.sessions)
    for name, (positives, candidates) in truth.slices(full.world, full.pairs).items():
        top = truth.per_user(best, positives, history, candidates)["recall@20"].mean()
        floor = truth.per_user(popularity, positives, history, candidates)["recall@20"].mean()
        assert top > 3 * floor, name
        if name == "all":
            assert 0.45 <= top <= 0.55  # tastes show, and nobody's choices are certain


def test_no_other_planted_ranking_beats_the_oracle(full: Full) -> None:
    shape = full.world.utility.shape
    history = full.pairs.matrix((0, 1), shape)
    positives, candidates = truth.slices(full.world, full.pairs)["all"]
    best = truth.per_user(truth.oracle(full.world, full.sessions), positives, history, candidates)["ndcg@20"].mean()
    for part in (*MODALITIES, "collaborative", "appeal"):
        alone = world.part(full.world.items, full.world.users, part)
        assert truth.per_user(alone, positives, history, candidates)["ndcg@20"].mean() < best
    assert truth.per_user(full.world.utility, positives, history, candidates)["ndcg@20"].mean() < 1.05 * best


def test_ceiling_has_intervals_around_its_means(full: Full) -> None:
    out = truth.ceiling(full.world, full.sessions, full.log)
    assert set(out["scores"]) == {"all", "warm", "cold", "cold_only"}
    for metrics in out["scores"].values():
        for value in metrics.values():
            assert 0 < value["low"] < value["mean"] < value["high"] < 1
    chance = out["random"]["cold_only"]["recall@10"]["mean"]
    assert out["scores"]["cold_only"]["recall@10"]["low"] > 3 * chance
    assert out["n_pairs"] == (full.pairs.part == 2).sum() == out["n"]["warm"]["pairs"] + out["n"]["cold"]["pairs"]


@pytest.mark.parametrize("modality", MODALITIES)
def test_parts_are_standardised_and_absent_where_the_item_lacks_the_modality(full: Full, modality: str) -> None:
    items = full.world.items
    assert items.present[modality].mean() == pytest.approx(PRESENT[modality], abs=1e-3)
    x = world.part(items, full.world.users, modality)
    here = items.present[modality]
    assert np.count_nonzero(x[:, ~here]) == 0
    assert x[:, here].mean() == pytest.approx(0, abs=1e-4) and x[:, here].std() == pytest.approx(1, abs=1e-3)


def taste_z(hidden: world.World, modality: str) -> float:
    """z-score of the difference in the modality's taste between clicked and unclicked slots of the same list."""
    s = behaviour.simulate(hidden)
    part = world.part(hidden.items, hidden.users, modality)[s.user[:, None], s.shown]
    mixed = s.clicked.any(axis=1) & ~s.clicked.all(axis=1)
    yes = np.where(s.clicked, part, 0).sum(axis=1)[mixed] / s.clicked.sum(axis=1)[mixed]
    no = np.where(~s.clicked, part, 0).sum(axis=1)[mixed] / (~s.clicked).sum(axis=1)[mixed]
    per_user = np.bincount(s.user[mixed], yes - no, len(hidden.users))
    return float(per_user.sum() / np.sqrt((per_user**2).sum()))


@pytest.mark.parametrize("modality", MODALITIES)
def test_strength_zero_removes_the_taste_from_the_clicks(modality: str) -> None:
    size: dict[str, Any] = {"n_items": 300, "n_users": 500}
    assert taste_z(world.build(**size), modality) > 6
    assert abs(taste_z(world.build(strengths={modality: 0.0}, **size), modality)) < 3.5


def test_a_strength_changes_nothing_but_the_utility() -> None:
    a, b = world.build(n_items=60, n_users=40), world.build(n_items=60, n_users=40, strengths={"image": 0.0})
    np.testing.assert_array_equal(a.items.launch, b.items.launch)
    np.testing.assert_array_equal(a.users.tastes["image"]["colour"], b.users.tastes["image"]["colour"])
    difference = a.utility - b.utility
    np.testing.assert_allclose(difference, 1.5 * world.part(a.items, a.users, "image"), atol=1e-5)


def test_factors_are_independent_of_each_other_and_of_the_category() -> None:
    items = world.build(n_items=1000, n_users=20).items
    columns = {f: v for table in items.factors.values() for f, v in table.items()}
    columns |= {"category": items.category, "language": items.language, "late": (items.launch > 70).astype(np.int64)}
    names = sorted(columns)
    worst = 0.0
    for i, a in enumerate(names):
        for b in names[:i]:
            counts = np.zeros((columns[a].max() + 1, columns[b].max() + 1))
            np.add.at(counts, (columns[a], columns[b]), 1)
            expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
            freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
            worst = max(worst, (((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))
    assert worst < 5


def test_inclusion_admits_the_asked_number_and_follows_the_draws() -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (1, 40)).astype(np.float32)
    p = behaviour.inclusion(logits, 7)[0]
    assert p.sum() == pytest.approx(7, abs=1e-3)
    drawn = np.argsort(-(logits + rng.gumbel(size=(4000, 40))), axis=1)[:, :7]
    share = np.bincount(drawn.ravel(), minlength=40) / 4000
    assert np.abs(share - p).max() < 0.06

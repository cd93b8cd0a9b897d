"""Knock-out and the missing-modality curve: planted modalities are found, absent ones cost nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from fusionrec.evaluation import metrics, missing, slices
from fusionrec.evaluation.knockout import EVERY, KnockOut, having, knock_out, reasons
from fusionrec.evaluation.protocol import evaluate
from fusionrec.types import item_order


def parts_of(world, *names):
    every = slices.build(world.requests, world.positives, world.cold, world.items.present)
    return [p for p in every if not names or p.name in names]


def test_knock_out_finds_the_planted_modality(world):
    model = world.model()
    parts = [p for p in parts_of(world) if p.name in ("all", "cold")]
    full = evaluate(model, world.requests, parts, (10,))
    found = {k.modality: k for k in knock_out(model, world.requests, parts, full, "ndcg@10", repeats=500)}
    assert set(found) == {"text", "image", EVERY}
    for one in found.values():
        assert one.loss["all"].difference == pytest.approx(one.full["all"] - one.masked["all"])
        assert one.loss["all"].low < one.loss["all"].difference < one.loss["all"].high
    assert found["text"].loss["all"].low > 0  # the stronger taste
    # the catalogue is whole again, and the answers are those of before
    assert model.items is world.items
    again = evaluate(model, world.requests, parts, (10,))
    np.testing.assert_array_equal(again.lists["all"], full.lists["all"])


def test_knock_out_of_an_unused_modality_loses_nothing(world):
    items = replace(
        world.items,
        features={**world.items.features, "blank": np.zeros((len(world.items), 2), np.float32)},
        present={**world.items.present, "blank": np.ones(len(world.items), bool)},
        group={**world.items.group, "blank": np.zeros(len(world.items), np.int16)},
    )
    model = world.model()
    model.attach(items)
    part = parts_of(world)[:1]
    full = evaluate(model, world.requests, part, (10,))
    blank = next(k for k in knock_out(model, world.requests, part, full, "ndcg@10") if k.modality == "blank")
    assert blank.loss["all"].difference == 0 and blank.loss["all"].p == 1.0


def test_re_attaches_after_a_failure(world):
    model = world.model()
    part = parts_of(world)[:1]
    full = evaluate(model, world.requests, part, (10,))
    model._score = lambda requests: np.full(requests.history.shape, np.nan, np.float32)
    with pytest.raises(ValueError, match="NaN"):
        knock_out(model, world.requests, part, full, "ndcg@10")
    assert model.items is world.items


def rare(world, share=0.12):
    """The world with a third modality that shows the text's taste, on few items only, and no text."""
    has = missing.lottery(world.items.ids, "rare", 3) < share
    clip = world.items.features["text"] * has[:, None]
    items = replace(
        world.items,
        features={"image": world.items.features["image"], "rare": clip.astype(np.float32)},
        present={"image": world.items.present["image"], "rare": has},
        group={m: np.zeros(len(has), np.int16) for m in ("image", "rare")},
    )
    return items, has


def test_a_rare_modality_shows_where_the_items_have_it(world):
    items, has = rare(world, 0.25)
    model = world.model()
    model.attach(items)
    parts = parts_of(world, "all", "cold_only")
    full = evaluate(model, world.requests, parts, (10,))
    found = {k.modality: k for k in knock_out(model, world.requests, parts, full, "ndcg@10", repeats=500)}["rare"]
    assert set(found.loss) == {"all", "cold_only", "all_has_it", "cold_only_has_it"}
    assert found.loss["all_has_it"].difference > 1.5 * abs(found.loss["all"].difference)
    assert found.loss["all_has_it"].low > 0
    # by hand: the metric of the same lists, over the positives that have it
    about = slices.of_items(world.positives, has)
    values = metrics.per_user(full.lists["all"], about, (10,))["ndcg@10"]
    assert found.full["all_has_it"] == pytest.approx(np.nanmean(values))
    assert found.loss["all_has_it"].n == int((np.diff(about.indptr) > 0).sum()) < len(world.users)


def test_slices_of_items_that_have_it_keep_their_candidates(world):
    has = world.items.present["image"]
    made = {p.name: p for p in having(parts_of(world), has)}
    assert set(made) == {"all_has_it", "cold_only_has_it"}
    assert made["all_has_it"].candidates is None
    np.testing.assert_array_equal(made["cold_only_has_it"].candidates, world.cold)
    assert has[made["all_has_it"].positives.indices].all()


def test_why_an_item_is_there():
    """Places by hand: item 1 leaves without a, item 2 without either (further down without b), 3 stays, 4 needs any."""
    full = np.array([[1, 2, 3, 4, 7, 8]])

    def without(name, row):
        return KnockOut(name, {}, {}, {}, np.array([row]))

    knocked = [
        without("a", [2, 3, 4, 5, 1, 6]),
        without("b", [1, 3, 4, 5, 6, 9]),
        without(EVERY, [3, 5, 6, 9, 10, 11]),
    ]
    assert reasons(full, knocked, 4) == [["a", "b", "history", "several"]]
    assert reasons(full, knocked[:1], 4) == [["a", "history", "history", "history"]]
    assert reasons(np.array([[1, -1]]), [without("a", [1, -1])], 2)[0][0] == "history"


def curve_of(world, model, **options):
    full = evaluate(model, world.requests, parts_of(world, "all"), (10,))
    points = missing.degradation(model, world.requests, world.positives, full, "ndcg@10", repeats=200, **options)
    return full, {(p.hidden, p.share): p for p in points}


def test_the_curve_starts_full_and_ends_at_the_knock_out(world):
    model = world.model()
    full, points = curve_of(world, model, shares=(0.0, 0.3, 0.6, 1.0))
    assert {hidden for hidden, _ in points} == {EVERY, "text", "image"}
    knocked = {k.modality: k for k in knock_out(model, world.requests, parts_of(world, "all"), full, "ndcg@10")}
    for name in (EVERY, "text", "image"):
        assert points[name, 0.0].mean == pytest.approx(full.mean("all", "ndcg@10")[0])
        assert points[name, 1.0].mean == pytest.approx(knocked[name].masked["all"])
        assert points[name, 0.0].mean > points[name, 0.6].mean > points[name, 1.0].mean or name == "image"
    for point in points.values():
        assert point.low <= point.mean <= point.high and point.n == 60
    assert model.items is world.items, "the catalogue is whole again"


def test_losses_grow_with_the_share_and_ignore_other_items():
    ids = item_order(f"i{n}" for n in range(4001))
    luck = missing.lottery(ids, "text", 0)
    assert 0 <= luck.min() and luck.max() < 1
    for share in missing.SHARES:
        assert (luck < share).mean() == pytest.approx(share, abs=0.03)
    assert np.corrcoef(luck, missing.lottery(ids, "image", 0))[0, 1] == pytest.approx(0, abs=0.05)
    assert (luck != missing.lottery(ids, "text", 1)).any()
    rows = [i for i in range(4001) if i % 3]
    np.testing.assert_array_equal(missing.lottery([ids[i] for i in rows], "text", 0), luck[rows])


def test_only_the_named_modality_is_lost(world):
    luck = {m: missing.lottery(world.items.ids, m, 0) for m in world.items.modalities}
    less, more = (missing.thinned(world.items, ("image",), share, luck) for share in (0.3, 0.6))
    np.testing.assert_array_equal(less.present["text"], world.items.present["text"])
    assert (more.present["image"] <= less.present["image"]).all(), "what is lost early stays lost"
    assert (less.present["image"] <= world.items.present["image"]).all()
    assert 0 < more.present["image"].sum() < less.present["image"].sum() < world.items.present["image"].sum()


def test_a_large_catalogue_is_measured_on_fewer_users(world, monkeypatch):
    monkeypatch.setattr(missing, "MIN_USERS", 7)
    _, points = curve_of(world, world.model(), cells=13 * len(world.items))
    assert {p.n for p in points.values()} == {13}
    _, again = curve_of(world, world.model(), cells=13 * len(world.items))
    assert points == again


def test_nothing_to_lose_gives_no_curve(world):
    model = world.model()
    model.attach(world.items.only())
    assert curve_of(world, model)[1] == {}
    full = evaluate(model, world.requests, parts_of(world, "all"), (10,))
    nobody = sparse.csr_matrix(world.positives.shape)
    assert missing.degradation(world.model(), world.requests, nobody, full, "ndcg@10") == []

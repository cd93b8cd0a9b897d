"""What the model makes of a batch: real retrievers, fitted on a small log, saved and loaded as the stage does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fusionrec.monitoring import predictions
from fusionrec.monitoring.predictions import FORESEEN, MIN_ITEMS, SURE, Asked
from fusionrec.monitoring.spec import Monitor
from fusionrec.monitoring.verdict import Measure, judge
from fusionrec.recommenders.content import Content
from fusionrec.recommenders.ease import EASE
from fusionrec.recommenders.popularity import Popularity
from fusionrec.registry.model import LoadedModel, load_model, save_model
from fusionrec.types import Columns as C
from fusionrec.types import Interactions, ItemSet, item_order

START = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = Monitor()
KINDS, ITEMS = 4, 84
IDS = tuple(item_order(f"i{k:03d}" for k in range(ITEMS)))
KIND = np.array([int(i[1:]) % KINDS for i in IDS])


def choices(seed: int, n_users: int, per_user: int = 5, loyal: float = 6.0, faithful: int = 99) -> list[list[int]]:
    """Rows of ``IDS`` by user: everyone prefers one kind by ``loyal`` (log-odds), and avoids it by as much from the
    choice number ``faithful`` on."""
    rng = np.random.default_rng([seed, 7])
    out = []
    for _ in range(n_users):
        likes = loyal * (rng.integers(KINDS) == KIND)
        order = np.argsort(-(likes + rng.gumbel(size=ITEMS)))
        late = np.argsort(-(rng.gumbel(size=ITEMS) - likes))
        first = order[:faithful][:per_user].tolist()
        out.append(first + [int(k) for k in late if k not in first][: per_user - len(first)])
    return out


def catalogue(seed: int = 0, noise: float = 0.3, ids: Sequence[str] = IDS) -> ItemSet:
    """Pictures (9 numbers) that tell the kinds apart, the less the more ``noise``."""
    rng = np.random.default_rng([seed, 8])
    kinds = np.array([int(i[1:]) % KINDS for i in ids])
    x = np.eye(9)[kinds] + noise * rng.normal(size=(len(ids), 9))
    n = len(ids)
    return ItemSet(
        tuple(ids), {"image": x.astype(np.float32)}, {"image": np.ones(n, bool)}, {"image": np.zeros(n, np.int16)}
    )


def asked(lists: list[list[int]], items: ItemSet | None = None, prefix: str = "u") -> Asked:
    rows: list[dict[str, Any]] = [
        {C.USER: f"{prefix}{u:04d}", C.ITEM: IDS[k], C.TIME: START + timedelta(days=u % 5, seconds=at)}
        for u, row in enumerate(lists)
        for at, k in enumerate(row)
    ]
    schema = {C.USER: pl.String, C.ITEM: pl.String, C.TIME: pl.Datetime("us", "UTC")}
    return Asked(pl.DataFrame(rows, schema=schema), items or catalogue())


LOG = asked(choices(1, 400, 8), prefix="t").pairs


def trained(folder: Path, kind: str, items: ItemSet | None = None) -> LoadedModel:
    """A retriever fitted on :data:`LOG`, 400 users of the same world, saved and loaded again."""
    spec = {"ease": EASE(l2=(30.0,)), "content": Content(width=5), "popularity": Popularity()}[kind]
    item = np.concatenate(choices(1, 400, 8)).astype(np.int32)
    log = Interactions(np.repeat(np.arange(400, dtype=np.int32), 8), item, None, 400, ITEMS)
    retriever = spec.build(None)
    retriever.fit(log, log.select(np.arange(40)), items or catalogue())
    modalities = {"image": {"encoder": {}, "fingerprint": "0"}} if kind == "content" else {}
    train = {"retriever": spec.model_dump(mode="json")}
    save_model(folder / kind, retriever, spec=train, label=kind, modalities=modalities, seed=0, train_end=None)
    return load_model(folder / kind)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedModel]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: trained(folder, kind) for kind in ("ease", "content", "popularity")}


def found(
    model: LoadedModel | None, reference: Asked, current: Asked, why: str = "", trained: pl.DataFrame = LOG
) -> dict[str, Measure]:
    measures = predictions.measures(model, why, reference, current, trained, SPEC)
    assert [m.name for m in measures] == [SURE, FORESEEN]
    for m in measures:  # strict JSON knows no NaN, and no sentence may show one
        text = json.dumps(asdict(m), allow_nan=False)
        assert "nan" not in text.lower() and "  " not in text
        assert m.computed == (not m.why) == bool(m.words)
    return {m.name: m for m in measures}


def reasons(found: dict[str, Measure]) -> set[str]:
    assert not any(m.computed for m in found.values())
    return {m.why for m in found.values()}


def test_without_a_model_the_reason_is_said() -> None:
    sides = asked(choices(2, 130)), asked(choices(3, 90))
    assert reasons(found(None, *sides)) == {"there is no model"}
    assert reasons(found(None, *sides, why="data/model is missing")) == {"data/model is missing"}


def test_a_reason_from_outside_holds_though_a_model_is_there(models: dict[str, LoadedModel]) -> None:
    sides = asked(choices(2, 130)), asked(choices(3, 90))
    why = "the model was trained with another encoder of image: run the stage train"
    assert reasons(found(models["ease"], *sides, why=why)) == {why}


def test_a_model_that_reads_no_history_cannot_be_asked(models: dict[str, LoadedModel]) -> None:
    sides = asked(choices(2, 130)), asked(choices(3, 90))
    why = "popularity gives every stranger one answer, whatever they chose"
    assert reasons(found(models["popularity"], *sides)) == {why}


def test_a_modality_without_vectors_on_one_side(models: dict[str, LoadedModel]) -> None:
    good, bare = asked(choices(2, 130)), asked(choices(3, 90), ItemSet(IDS))
    for sides in ((good, bare), (bare, good)):
        assert reasons(found(models["content"], *sides)) == {"the model reads image, of which one side has no vectors"}


def test_vectors_of_another_width_do_not_compare(models: dict[str, LoadedModel]) -> None:
    good, items = asked(choices(2, 130)), catalogue()
    wider = replace(items, features={"image": np.pad(items.features["image"], ((0, 0), (0, 4)))})
    why = "the model reads image, whose vectors of 9 and of 13 numbers do not compare"
    assert reasons(found(models["content"], good, asked(choices(3, 90), wider))) == {why}
    assert found(models["ease"], good, asked(choices(3, 90), wider))[SURE].computed  # reads no picture


def test_too_few_shared_items_that_training_saw(models: dict[str, LoadedModel]) -> None:
    sides = asked(choices(2, 130)), asked(choices(3, 90))
    few = IDS[: MIN_ITEMS - 1]
    why = f"the batch shares {MIN_ITEMS - 1} trained items with the reference, needed are {MIN_ITEMS}"
    assert reasons(found(models["ease"], *sides, trained=LOG.filter(pl.col(C.ITEM).is_in(few)))) == {why}
    of_batch = asked(choices(3, 90), catalogue(ids=few))
    assert reasons(found(models["ease"], sides[0], of_batch)) == {why}
    new = asked(choices(3, 90), catalogue(ids=tuple(f"i{900 + k}" for k in range(67))))
    assert reasons(found(models["ease"], sides[0], new)) == {
        f"the batch shares 0 trained items with the reference, needed are {MIN_ITEMS}"
    }


def test_too_few_users_with_enough_choices(models: dict[str, LoadedModel]) -> None:
    reference = asked(choices(2, 130))
    nobody = found(models["ease"], reference, asked([]))
    assert reasons(nobody) == {"the batch has 0 values, needed are 20"}
    assert reasons(found(models["ease"], reference, asked(choices(3, 90, 2)))) == reasons(nobody)
    only_past = found(models["ease"], reference, asked(choices(3, 90, 3)))
    assert only_past[SURE].computed and only_past[FORESEEN].why == "the batch has 0 values, needed are 20"


def test_a_model_of_another_catalogue_scores_nothing(tmp_path: Path) -> None:
    """The split was made again, the model was not: it knows not one of the items."""
    stale = trained(tmp_path, "ease", catalogue(ids=tuple(item_order(f"x{k}" for k in range(ITEMS)))))
    said = reasons(found(stale, asked(choices(2, 130)), asked(choices(3, 90))))
    assert said == {"the reference has 0 values, needed are 20"}


def test_scores_that_are_all_the_same_are_no_confidence(tmp_path: Path) -> None:
    spec = EASE(l2=(30.0,))
    alone = np.arange(ITEMS, dtype=np.int32)
    retriever = spec.build(None)  # every user touched one item: nothing goes with anything
    retriever.fit(*[Interactions(alone, alone, None, ITEMS, ITEMS)] * 2, catalogue())
    train = {"retriever": spec.model_dump(mode="json")}
    save_model(tmp_path / "flat", retriever, spec=train, label="flat", modalities={}, seed=0, train_end=None)
    said = reasons(found(load_model(tmp_path / "flat"), asked(choices(2, 130)), asked(choices(3, 90))))
    assert said == {"the reference has 0 values, needed are 20"}


@pytest.mark.parametrize("kind", ["ease", "content"])
def test_the_same_distribution_is_no_alarm(models: dict[str, LoadedModel], kind: str) -> None:
    """20 pairs of new users: binomial(20, 0.05) is above 5 in less than 0.04 % of cases."""
    low = {SURE: 0, FORESEEN: 0}
    for k in range(20):
        sides = asked(choices(100 + 2 * k, 230)), asked(choices(101 + 2 * k, 170), prefix="n")
        measures = found(models[kind], *sides)
        for name, m in measures.items():
            assert m.p is not None
            low[name] += m.p <= 0.05
    assert max(low.values()) <= 5, low
    same = asked(choices(100, 230))
    again = found(models[kind], same, same)
    assert all((m.p, m.effect) == (1.0, 0.0) for m in again.values())
    verdict = judge(list(again.values()), SPEC.alpha, SPEC.min_effect)
    assert (verdict.status, verdict.blamed) == ("no drift", None)


def test_a_batch_that_repeats_the_training_log_is_no_alarm(models: dict[str, LoadedModel]) -> None:
    """An export of everything: a model foresees what it was trained on, which says nothing about the batch."""
    held = asked(choices(2, 230))
    again = Asked(pl.concat([LOG.sample(fraction=1.0, shuffle=True, seed=5), held.pairs]), held.items)
    assert all((m.p, m.effect) == (1.0, 0.0) for m in found(models["ease"], held, again).values())
    assert reasons(found(models["ease"], held, Asked(LOG, held.items))) == {"the batch has 0 values, needed are 20"}


def test_the_order_of_the_rows_does_not_matter(models: dict[str, LoadedModel]) -> None:
    sides = [asked(choices(2, 130)), asked(choices(3, 90))]
    mixed = [Asked(s.pairs.sample(fraction=1.0, shuffle=True, seed=4), s.items) for s in sides]
    assert found(models["ease"], *sides) == found(models["ease"], *mixed)


@pytest.mark.parametrize("kind", ["ease", "content"])
def test_choices_that_the_model_ranks_low(models: dict[str, LoadedModel], kind: str) -> None:
    """The batch's users have the same past, but choose next what the model puts last; and the other way round."""
    usual, turned = asked(choices(2, 230)), asked(choices(3, 170, faithful=3))
    measures = found(models[kind], usual, turned)
    m = measures[FORESEEN]
    assert float(m.before) > 0.8 and float(m.after) < 0.5
    assert (
        m.words
        == f"what users choose is less foreseeable from their past: mean rank (1 is best) {m.before} -> {m.after}"
    )
    verdict = judge(list(measures.values()), SPEC.alpha, SPEC.min_effect)
    assert (verdict.status, verdict.blamed) == ("drift", "behaviour")
    assert [v.name for v in verdict.measures if v.alarm] == [FORESEEN]  # the pasts are alike, so the model is as sure

    back = found(models[kind], turned, usual)[FORESEEN]
    assert (back.before, back.after) == (m.after, m.before)
    assert back.words.startswith("what users choose is more foreseeable from their past: mean rank (1 is best) 0.")


def test_pictures_that_say_less_make_the_model_less_sure(models: dict[str, LoadedModel]) -> None:
    """The batch's own vectors of the same items, with more noise; and the other way round."""
    clear, dim = asked(choices(2, 230)), asked(choices(3, 170), catalogue(1, noise=2.0))
    measures = found(models["content"], clear, dim)
    m = measures[SURE]
    assert float(m.after) < float(m.before)
    assert m.words == f"the model is less sure of its first ten items: standardised score {m.before} -> {m.after}"
    verdict = judge([m], SPEC.alpha, SPEC.min_effect)
    assert (verdict.status, verdict.blamed) == ("drift", "predictions")
    back = found(models["content"], dim, clear)[SURE]
    assert back.words == f"the model is more sure of its first ten items: standardised score {m.after} -> {m.before}"
    assert judge([back], SPEC.alpha, SPEC.min_effect).status == "drift"


def test_a_spread_that_changed_is_not_called_a_direction() -> None:
    before, after = np.linspace(0.4, 0.6, 51), np.linspace(0.1, 0.9, 37)
    said = predictions._sentence(FORESEEN, before, after)
    assert said.startswith("what users choose is about as foreseeable from their past")
    assert said.endswith("0.5 -> 0.5 (the mean stays, the spread changed)")


def test_known_ranks_and_confidence(tmp_path: Path) -> None:
    """One user, a model whose scores are known: EASE's own, standardised by hand over the unseen items."""
    model = trained(tmp_path, "ease")
    past = [3, 11, 40]
    side = asked([[*past, 57, 60]])
    sure, rank = predictions.answers(model, side, sorted(IDS))
    weight = np.zeros((ITEMS, ITEMS))
    arrays = model.retriever.arrays()
    weight[np.ix_(arrays["rows"], arrays["rows"])] = arrays["weight"]
    scores = weight[past].sum(axis=0)
    unseen = np.delete(scores, past)
    expected = np.sort((unseen - unseen.mean()) / unseen.std())[::-1][:10].mean()
    assert sure == pytest.approx([expected], rel=1e-5)
    assert rank == pytest.approx([(unseen < scores[57]).sum() / (len(unseen) - 1)])

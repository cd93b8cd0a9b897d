"""Generated vectors: planted relations between modalities, what is never touched, what is not worth generating."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import TypeAdapter

from fusionrec.fusion.concat import Concat
from fusionrec.recommenders import AnyRetriever
from fusionrec.recommenders.base import EnoughTime
from fusionrec.recommenders.generated import GeneratedRetriever
from fusionrec.studies.space import space_of
from fusionrec.types import Interactions, ItemSet, item_order
from tests.contracts import world as w

I, LATENT, NEW = 300, 4, 60
DIMS = {"image": 9, "sound": 6, "text": 13}
DAY = 86_400_000_000


def planted(seed: int = 0, noise: float = 0.3, lost: float = 0.3) -> tuple[ItemSet, ItemSet]:
    """(what is seen, the truth): image and text are linear in four hidden numbers plus noise; sound is noise alone.

    A ``lost`` share of each modality is missing; the first item lacks nothing, the second everything, the third to
    fifth all but the image. The last NEW items have no interactions. Text has two groups, far apart.
    """
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(I, LATENT))
    group = (rng.random(I) < 0.5).astype(np.int16)
    truth, present = {}, {}
    for name, dim in DIMS.items():
        told = hidden @ rng.normal(size=(LATENT, dim)) if name != "sound" else 0.0
        truth[name] = (told + noise * rng.normal(size=(I, dim)) + 5).astype(np.float32)
        present[name] = rng.random(I) >= lost
        present[name][0], present[name][1] = True, False
        present[name][2:5] = name == "image"
    truth["text"] = truth["text"] + 40 * group[:, None].astype(np.float32)
    groups = {m: group if m == "text" else np.zeros(I, np.int16) for m in DIMS}
    whole = ItemSet(tuple(item_order(f"i{n}" for n in range(I))), truth, {m: np.ones(I, bool) for m in DIMS}, groups)
    seen = {m: np.where(present[m][:, None], truth[m], 0).astype(np.float32) for m in DIMS}
    return replace(whole, features=seen, present=present), whole


def log(n_items: int = I) -> Interactions:
    rng = np.random.default_rng(1)
    user, item = np.nonzero(rng.random((31, n_items - NEW)) < 0.3)
    time = np.arange(len(user), dtype=np.int64) * DAY
    return Interactions(user.astype(np.int32), item.astype(np.int32), time, 31, n_items)


def unfitted(**keys) -> GeneratedRetriever:
    section = {"kind": "generated", "of": {"kind": "content", "width": 5}, "latent": 8, "hidden": 32, **keys}
    return TypeAdapter(AnyRetriever).validate_python(section).build(Concat())


def fitted(items: ItemSet, seed: int = 0, **keys) -> GeneratedRetriever:
    model = unfitted(**keys)
    train = log(len(items))
    model.fit(train, train.select(np.zeros(len(train), bool)), items, seed=seed)
    return model


@pytest.fixture(scope="module")
def model() -> GeneratedRetriever:
    return fitted(planted()[0], training={"epochs": 150, "lr": 5e-3})


@pytest.fixture
def copy(model) -> GeneratedRetriever:
    other = unfitted()
    other.restore(model.arrays(), model.fit_ids)
    return other


def test_generated_vectors_follow_a_planted_relation_also_for_new_items(model):
    seen, truth = planted()
    full = model.complete(seen)
    for name, other in (("image", "text"), ("text", "image")):
        rows = np.flatnonzero(~seen.present[name] & seen.present[other])
        assert full.present[name][rows].all()
        for part in (rows, rows[rows >= I - NEW]):
            have = seen.features[name][seen.present[name]]
            groups = seen.group[name]
            mean = np.stack([have[groups[seen.present[name]] == groups[r]].mean(0) for r in part])
            made, real = full.features[name][part], truth.features[name][part]
            error, plain = ((made - real) ** 2).sum(), ((mean - real) ** 2).sum()
            assert len(part) > 5 and error < 0.35 * plain, "noise alone would leave about 0.05"
            together = np.corrcoef((made - mean).ravel(), (real - mean).ravel())[0, 1]
            assert together > 0.8, "chance is 0 +- 0.1"


def test_what_nothing_foretells_is_not_made_up(model):
    seen, _ = planted()
    worth = dict(zip(model.space.modalities, model.worth, strict=True))
    assert worth["image"] > 0.5 and worth["text"] > 0.5 and worth["sound"] < 0.1
    if worth["sound"] <= 0:
        np.testing.assert_array_equal(model.complete(seen).present["sound"], seen.present["sound"])


def test_what_an_item_has_stays_to_the_bit_and_an_item_without_anything_stays_without(model):
    seen, _ = planted()
    full = model.complete(seen)
    for name in DIMS:
        here = seen.present[name]
        assert full.features[name][here].tobytes() == seen.features[name][here].tobytes()
        assert full.present[name][here].all() and full.present[name][0] and not full.present[name][1]
        assert full.features[name].dtype == np.float32
    assert full.ids == seen.ids and not seen.present["text"][2] and full.present["text"][2]
    whole = planted(lost=0.0)[1]
    again = model.complete(whole)
    assert all(again.features[m] is whole.features[m] and again.present[m] is whole.present[m] for m in DIMS)


def test_the_retriever_inside_sees_the_completed_catalogue_when_fitted_and_when_attached(model, copy):
    seen, truth = planted()
    assert model.items is seen or model.items.present["text"].sum() == seen.present["text"].sum()
    assert model.of.items.present["text"].sum() > seen.present["text"].sum()
    copy.attach(truth)
    np.testing.assert_array_equal(copy.of.items.features["text"], truth.features["text"])
    copy.attach(seen.without("text"))
    filled = copy.of.items
    have = seen.present["image"] | seen.present["sound"]
    np.testing.assert_array_equal(filled.present["text"], have)
    np.testing.assert_array_equal(np.isfinite(filled.features["text"]).all(1), True)


def test_a_modality_that_the_catalogue_lost_altogether_is_left_to_the_retriever_inside(copy):
    seen, _ = planted()
    copy.attach(seen.only("image", "sound"))
    assert copy.of.items.modalities == ("image", "sound")


def test_the_same_seed_gives_the_same_bits_and_another_one_others():
    seen, _ = planted()
    quick = {"training": {"epochs": 10}}
    first, again, other = fitted(seen, 3, **quick), fitted(seen, 3, **quick), fitted(seen, 4, **quick)
    a, b, c = ({k: v.tobytes() for k, v in m.arrays().items()} for m in (first, again, other))
    assert a == b and not any(a[k] == c[k] for k in a if k.startswith("vae/"))
    assert first.complete(seen).features["text"].tobytes() == again.complete(seen).features["text"].tobytes()


def test_values_of_what_is_missing_have_no_influence(model):
    seen, _ = planted()
    dirty = {m: np.where(seen.present[m][:, None], x, np.nan).astype(np.float32) for m, x in seen.features.items()}
    one, two = model.complete(seen), model.complete(replace(seen, features=dirty))
    for name in DIMS:
        here = one.present[name]
        np.testing.assert_array_equal(one.features[name][here], two.features[name][here])


@pytest.mark.parametrize("what", ["one modality", "none", "few items"])
def test_where_nothing_can_be_learnt_nothing_is_generated(what):
    seen, _ = planted()
    items = {"one modality": seen.only("text"), "none": ItemSet(seen.ids), "few items": seen.only("text", "image")}[
        what
    ]
    if what == "few items":
        rare = seen.present["text"] & (np.arange(I) < 10)
        items = replace(items, present={**items.present, "text": rare})
    model = fitted(items)
    assert model.net is None and model.complete(items) is items
    other = unfitted()
    other.restore(model.arrays(), model.fit_ids)
    other.attach(items)
    request = w.requests(log(), [3, 1, 4])
    np.testing.assert_array_equal(other.score(request), model.score(request))


def test_it_learns_on_items_with_interactions_alone():
    seen, _ = planted()
    moved = {m: x.copy() for m, x in seen.features.items()}
    for x in moved.values():
        x[-NEW:] += 100
    quick = {"training": {"epochs": 10}}
    one, two = fitted(seen, **quick), fitted(replace(seen, features=moved), **quick)
    assert {k: v.tobytes() for k, v in one.arrays().items() if k.startswith("vae")} == {
        k: v.tobytes() for k, v in two.arrays().items() if k.startswith("vae")
    }


def test_a_watch_is_told_under_names_of_its_own_and_can_end_it():
    seen, _ = planted()
    told: list[dict[str, float]] = []

    def watch(epoch, values):
        told.append(dict(values))
        if len(told) == 4:
            raise EnoughTime

    model = unfitted()
    train = log()
    model.fit(train, train.select(np.zeros(len(train), bool)), seen, watch=watch)
    own = [row for row in told if "vae_loss" in row]
    assert len(own) == 4 and not any(name.startswith("valid_") for row in own for name in row)


def test_its_space_holds_that_of_the_retriever_inside():
    section = {"kind": "generated", "of": {"kind": "two_tower", "dim": 5}}
    space = space_of(TypeAdapter(AnyRetriever).validate_python(section))
    assert {"width", "latent", "training.lr", "of.dim", "of.training.lr"} <= set(space.choices)
    assert space.choices["of.dim"] == (5, 32, 64, 128)


def test_params_name_the_retriever_inside():
    found = TypeAdapter(AnyRetriever).validate_python({"kind": "generated", "of": {"kind": "two_tower", "dim": 5}})
    assert found.of.dim == 5 and found.model_dump(mode="json")["of"]["kind"] == "two_tower"
    assert found.build(Concat()).retrieval == "mips"
    with pytest.raises(ValueError, match="of"):
        TypeAdapter(AnyRetriever).validate_python({"kind": "generated", "of": {"kind": "nothing"}})
    with pytest.raises(ValueError, match="of"):
        TypeAdapter(AnyRetriever).validate_python({"kind": "generated"})

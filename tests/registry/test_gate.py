"""Who may become champion: known comparisons, known common sets, and models that are broken."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from fusionrec.data.split import SplitData, requests
from fusionrec.evaluation.protocol import Result
from fusionrec.recommenders.ease import EASE
from fusionrec.recommenders.popularity import Popularity
from fusionrec.registry import gate
from fusionrec.registry.bundle import load_bundle
from fusionrec.registry.gate import Rules

from .conftest import START, bundled

RULES = Rules("ndcg", 3, 0.05, 50, 0.9, ("train",), 500, 0)


@pytest.fixture(scope="module")
def data(world) -> SplitData:
    return SplitData(
        world.items.ids,
        tuple(world.users),
        {
            "train": world.trained,
            "valid": world.trained.clear(),
            "test": world.later,
        },
    )


@pytest.fixture(scope="module")
def bundles(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("gate")
    bundled(world, EASE(), root / "good")
    bundled(world, Popularity(), root / "weak")
    bundled(world, EASE(), root / "recent", train_end=(START + timedelta(days=2, minutes=100)).isoformat())
    bundled(
        world,
        EASE(),
        root / "untimed",
        train_end=None,
        temporal=False,
        trained=pl.concat([world.trained, world.later.head(40)]),
    )
    return {name: load_bundle(root / name) for name in ("good", "weak", "recent", "untimed")}


def verdict(data, world, a, b, rules=RULES):
    common = gate.common_set(data, [a, b])
    one, two = (gate.contender(n, x, world.items, {"text": "f" * 64}) for n, x in (("ours", a), ("theirs", b)))
    return gate.judge(one, two, common, world.items, rules)


def test_a_better_model_passes(data, world, bundles):
    found = verdict(data, world, bundles["good"], bundles["weak"])
    assert found["verdict"] == "passed" and found["reasons"] == []
    assert found["p"] < 0.05 and found["difference"] > 0 and found["low"] > 0
    assert found["window"]["kind"] == "time" and found["window"]["pairs"] == world.later.height


def test_an_equal_model_is_refused(data, world, bundles):
    found = verdict(data, world, bundles["good"], bundles["good"])
    assert found["verdict"] == "refused" and found["p"] == 1.0 and found["difference"] == 0.0
    assert found["reasons"][0].startswith("not better than theirs")


def test_a_worse_model_is_refused(data, world, bundles):
    found = verdict(data, world, bundles["weak"], bundles["good"])
    assert found["verdict"] == "refused" and found["difference"] < 0
    assert any("slice warm" in reason for reason in found["reasons"])


def test_too_few_pairs_are_not_comparable(data, world, bundles):
    n = world.later.height
    found = verdict(data, world, bundles["good"], bundles["weak"], replace(RULES, min_pairs=n + 1))
    assert found["verdict"] == "refused" and found["reasons"][0].startswith(f"not comparable: {n} test pairs")
    assert verdict(data, world, bundles["good"], bundles["weak"], replace(RULES, min_pairs=n))["verdict"] == "passed"


def test_the_window_lies_after_both_cutoffs(data, world, bundles):
    """Test pair n is at day 2 + n minutes; the more recent model saw the log up to minute 100."""
    common = gate.common_set(data, [bundles["good"], bundles["recent"]])
    assert common.kind == "time" and common.pairs == world.later.height - 101
    assert common.data.frames["test"]["timestamp"].min() == START + timedelta(days=2, minutes=101)
    swapped = gate.common_set(data, [bundles["recent"], bundles["good"]])
    assert swapped.digest == common.digest != gate.common_set(data, [bundles["good"]]).digest


def test_without_time_the_common_set_is_what_neither_saw(data, world, bundles):
    common = gate.common_set(data, [bundles["good"], bundles["untimed"]])
    assert common.kind == "unseen" and common.pairs == world.later.height - 40
    assert common.data.frames["test"].equals(world.later.slice(40))
    untimed = replace(
        data,
        frames={n: f.with_columns(timestamp=pl.lit(None, pl.Datetime("us", "UTC"))) for n, f in data.frames.items()},
    )
    assert gate.common_set(untimed, [bundles["good"], bundles["weak"]]).kind == "unseen"


def test_each_model_sees_its_own_user_rows(data, world, bundles):
    asked = requests(data, "test", ("train",))
    renumbered = replace(bundles["good"], users=bundles["good"].users[::-1][:-5])
    one = gate.contender("a", bundles["good"], world.items, {}).requests(asked)
    two = gate.contender("b", renumbered, world.items, {}).requests(asked)
    row = {user: at for at, user in enumerate(world.users)}
    assert one.user.tolist() == [row[u] for u in asked.users]
    n = len(world.users)
    assert two.user.tolist() == [n - 1 - row[u] if n - 1 - row[u] < n - 5 else -1 for u in asked.users]


def test_another_encoder_means_the_models_own_vectors(world, bundles):
    """The current catalogue lost two items and gained one; the old model keeps what it knew of the others."""
    ids = ("brand-new", *world.items.ids[2:])
    now = replace(
        world.items,
        ids=ids,
        features={"text": np.full((len(ids), 3), 9, np.float32)},
        present={"text": np.ones(len(ids), bool)},
        group={"text": np.zeros(len(ids), np.int16)},
    )
    old = gate.contender("old", bundles["good"], now, {"text": "e" * 64}).recommender.retriever.items
    assert np.array_equal(old.features["text"][1:], world.items.features["text"][2:])
    assert not old.present["text"][0] and not old.features["text"][0].any()
    same = gate.contender("same", bundles["good"], now, {"text": "f" * 64}).recommender.retriever.items
    assert same.features["text"].shape == (len(ids), 3)
    bundles["good"].model.retriever.attach(world.items)


@pytest.mark.parametrize("how", ["nan", "shape", "nothing", "raises"])
def test_a_broken_model_never_passes(data, world, bundles, how, monkeypatch):
    broken = gate.contender("broken", bundles["good"], world.items, {"text": "f" * 64})
    real = type(broken.recommender.retriever)._score

    def score(self, requests):
        out = np.array(real(self, requests))
        if how == "nan":
            out[0, 0] = np.nan
        elif how == "shape":
            return out[:, 1:]
        elif how == "nothing":
            out[:] = -np.inf
        else:
            raise RuntimeError("size mismatch")
        return out

    monkeypatch.setattr(type(broken.recommender.retriever), "_score", score)
    weak = gate.contender("weak", bundles["weak"], world.items, {"text": "f" * 64})
    found = gate.judge(broken, weak, gate.common_set(data, [bundles["good"]]), world.items, RULES)
    assert found["verdict"] == "refused" and found["reasons"][0].startswith("canary: ")


def result(name, **parts):
    return Result(name, {part: {"ndcg@3": np.asarray(v, float)} for part, v in parts.items()}, {})


@pytest.mark.parametrize("cold, n, passes", [(0.5, 40, True), (0.45, 40, True), (0.44, 40, False), (0.1, 29, True)])
def test_slice_floors(cold, n, passes):
    """The champion has 0.5 on cold items: the floor is 0.45, and 29 users are too few to tell."""
    nothing = np.full(40 - n, np.nan)
    ours = result("ours", all=np.full(40, 0.9), cold=np.r_[np.full(n, cold), nothing])
    theirs = result("theirs", all=np.full(40, 0.5), cold=np.r_[np.full(n, 0.5), nothing])
    found = gate._compare(ours, theirs, "ndcg@3", RULES)
    assert (found["verdict"] == "passed") is passes
    assert passes or found["reasons"] == [f"slice cold: ndcg@3 {cold:.4f} is below 0.9 of theirs's 0.5000 (40 users)"]


def test_popularity_is_fitted_on_the_training_split(data, world):
    floor = gate.popularity(data.train, world.items, data.users)
    counts = np.zeros(len(world.items))
    np.add.at(counts, world.train.item, 1)
    assert np.array_equal(floor.recommender.retriever.arrays()["count"], counts)

"""A bundle with a ranker: verified and registered as one thing, and who the users are stays at home."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fusionrec.errors import ConfigError, IntegrityError
from fusionrec.ranking.attributes import Coding
from fusionrec.ranking.base import Impressions, Known
from fusionrec.ranking.logistic import Logistic
from fusionrec.recommenders.ease import EASE
from fusionrec.registry import bundle, gate, mlflow_store, tracking
from fusionrec.registry.card import model_card
from fusionrec.registry.description import changes, facts
from fusionrec.registry.ranker import build_reranker, save_ranker
from fusionrec.types import Interactions, Requests

from .conftest import N_ITEMS, N_USERS, World, fitted, register


def regions(world: World) -> pl.DataFrame:
    return pl.DataFrame({"user_id": world.users, "region": [("north", "south")[n % 2] for n in range(N_USERS)]})


def ranker(world: World, folder: Path, trust: float = 0.25) -> Path:
    """One that learnt that the north clicks on even rows and the south on odd ones; nothing else is to be learnt."""
    coding = Coding.learn(regions(world), world.users)
    pairs = np.array([(u, i) for u in range(N_USERS) for i in range(N_ITEMS)], np.int32)
    clicked = ((pairs[:, 0] + pairs[:, 1]) % 2 == 0).astype(np.float32)
    shown = Impressions(pairs[:, 0], pairs[:, 1], None, {}, {"click": clicked})
    none = np.zeros(0, np.int32)
    history = Interactions(none, none, None, N_USERS, N_ITEMS)
    model = Logistic(strength=(1.0,)).build()
    model.fit(shown, shown.select(none), Known(world.items, coding.of(regions(world), world.users), history))
    save_ranker(
        folder,
        model,
        spec={"ranker": Logistic(strength=(1.0,)).model_dump(mode="json")},
        label="logistic",
        modalities={"text": {"encoder": {"kind": "identity"}, "fingerprint": "f" * 64}},
        surfaces=(),
        coding=coding,
        seed=0,
        behind={"task": "click", "depth": 20, "trust": trust, "tried": []},
    )
    return folder


def made(world: World, folder: Path, **kwargs: object) -> Path:
    place = folder / "bundle"
    fitted(world, EASE(), folder / "model")
    bundle.save_bundle(
        place,
        folder / "model",
        table=world.table,
        items=world.items,
        fingerprints={"text": "f" * 64},
        histories=world.trained,
        trained=world.trained,
        users=world.users,
        metrics={"ndcg@20": 0.5},
        **{"ranker": ranker(world, folder / "ranker"), "attributes": regions(world), **kwargs},  # type: ignore[arg-type]
    )
    return place


def asked(world: World, rows: int = 20) -> Requests:
    return Requests(np.arange(rows), world.train.matrix()[:rows])


def test_the_candidates_come_in_the_rankers_order(world: World, tmp_path: Path) -> None:
    loaded = bundle.load_bundle(made(world, tmp_path))
    assert loaded.ranker is not None and loaded.modalities == ("text",)
    both = loaded.recommender()
    assert (both.task, both.depth, both.trust) == ("click", 20, 0.25)
    items, _ = both.recommend(asked(world), 5)
    alone, _ = both.retriever.recommend(asked(world), 5)
    assert not np.array_equal(items, alone)


def test_who_the_users_are_lies_in_the_private_part_alone(world: World, tmp_path: Path) -> None:
    folder = made(world, tmp_path)
    shared = [*folder.glob("ranker/*"), *folder.glob("model/*"), *folder.glob("catalogue/*"), folder / "bundle.json"]
    assert not any(user.encode() in file.read_bytes() for file in shared for user in world.users[:5])
    arrays = bundle.load_bundle(folder).ranker.ranker.arrays()  # type: ignore[union-attr]
    assert not any(a.dtype.kind == "i" and N_USERS in a.shape for a in arrays.values())
    told = pl.read_parquet(folder / "users" / "attributes.parquet")
    assert told.equals(regions(world).sort("user_id"))


def test_of_a_person_only_what_the_ranker_reads_is_kept(world: World, tmp_path: Path) -> None:
    more = regions(world).with_columns(email=pl.lit("a@b.example"), tags=pl.lit(["x"]))
    stranger = more.head(1).with_columns(user_id=pl.lit("f" * 32))
    folder = made(world, tmp_path, attributes=pl.concat([stranger, more]))
    assert pl.read_parquet(folder / "users" / "attributes.parquet").equals(regions(world).sort("user_id"))


def test_attributes_reach_the_ranker_by_user_and_are_unknown_without_them(world: World, tmp_path: Path) -> None:
    loaded = bundle.load_bundle(made(world, tmp_path))
    judge = loaded.recommender().ranker
    candidates = np.zeros((4, 1), np.int64)
    known = judge.predict(asked(world, 4), candidates)["click"]  # type: ignore[union-attr]
    loaded.attached(world.items, regions(world).sample(fraction=1, shuffle=True, seed=1))
    np.testing.assert_array_equal(judge.predict(asked(world, 4), candidates)["click"], known)  # type: ignore[union-attr]
    swapped = regions(world).with_columns(region=pl.col("region").replace({"north": "south", "south": "north"}))
    loaded.attached(world.items, swapped)
    assert not np.allclose(judge.predict(asked(world, 4), candidates)["click"], known)  # type: ignore[union-attr]


def test_the_ranker_is_part_of_the_digest_and_a_flipped_bit_refused(world: World, tmp_path: Path) -> None:
    folder = made(world, tmp_path)
    about = bundle.read_bundle_json(folder)
    assert about["bundle"] == bundle.bundle_digest(about) != bundle.bundle_digest({**about, "ranker": None})
    file = folder / "ranker" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match=r"model.safetensors does not match its recorded sha256"):
        bundle.load_bundle(folder)


def test_a_ranker_that_bundle_json_does_not_name_is_refused(world: World, tmp_path: Path) -> None:
    folder = made(world, tmp_path, ranker=None)
    assert bundle.load_bundle(folder).ranker is None
    (folder / "ranker").mkdir()
    with pytest.raises(IntegrityError, match=r"bundle/ranker does not belong to a bundle"):
        bundle.load_bundle(folder)


def test_the_registry_gets_the_ranker_and_no_attributes_and_answers_by_it(
    world: World, home: Path, tmp_path: Path
) -> None:
    import mlflow
    import pandas as pd

    version = register(home, made(world, tmp_path))
    assert version.tags["ranker_digest"] == bundle.read_bundle_json(tmp_path / "bundle")["ranker"]
    (tmp_path / "fetched").mkdir()
    got = mlflow_store.download(home, version, tmp_path / "fetched")
    assert {p.name for p in got.iterdir()} == {"bundle.json", "catalogue", "model", "ranker", "train_pairs.safetensors"}
    with tracking.client(home):
        served = mlflow.pyfunc.load_model("models:/fusionrec@challenger")
    history = [world.items.ids[i] for i in world.train.matrix()[0].indices]
    answer = served.predict(pd.DataFrame({"history": [json.dumps(history)], "user": [world.users[0]]}), {"k": 5})
    plain = bundle.load_bundle(got, users=False).recommender().recommend(asked(world, 1), 5)[0][0]
    assert json.loads(answer["items"][0]) == [world.items.ids[i] for i in plain]


def test_the_gate_compares_what_is_served(world: World, tmp_path: Path) -> None:
    loaded = bundle.load_bundle(made(world, tmp_path))
    told = gate.contender("version 1", loaded, world.items, {"text": "f" * 64}, regions(world))
    direct = bundle.load_bundle(tmp_path / "bundle").recommender().recommend(asked(world), 5)
    again = told.recommender.recommend(asked(world), 5)
    np.testing.assert_array_equal(again[0], direct[0])
    np.testing.assert_allclose(again[1], direct[1], rtol=1e-5)


def test_approvers_read_that_there_is_a_ranker(world: World, tmp_path: Path) -> None:
    folder = made(world, tmp_path)
    loaded = bundle.load_bundle(folder)
    manifest = loaded.ranker.manifest  # type: ignore[union-attr]
    card = model_card(loaded.model.manifest, loaded.about, name="shop", rows=[], sizes={}, protocol={}, ranker=manifest)
    assert "first 20 candidates" in card and "(weight 0.25)" in card and loaded.about["ranker"] in card
    plain = bundle.load_bundle(made(world, tmp_path / "other", ranker=None))
    assert "ranker: gone (was none)" in changes(facts(loaded), facts(plain))
    assert any(line.startswith("ranker.kind: logistic") for line in changes(facts(loaded), facts(plain)))


def test_a_re_ranker_that_this_version_does_not_know_is_named() -> None:
    with pytest.raises(ConfigError, match=r"cannot be rebuilt: .*; install the fusionrec that wrote the bundle"):
        build_reranker({"kind": "tomorrow"})

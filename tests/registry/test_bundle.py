"""What is written is what is loaded, and nothing else is ever opened."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from fusionrec.data.files import to_json
from fusionrec.errors import ConfigError, IntegrityError
from fusionrec.recommenders.ease import EASE
from fusionrec.recommenders.popularity import Popularity
from fusionrec.registry import bundle, model
from fusionrec.registry.sealed import digest_of, sha256_file
from fusionrec.types import Requests

from .conftest import bundled, fitted


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def requests(world, rows=5) -> Requests:
    return Requests(np.arange(rows), world.train.matrix()[:rows])


def test_a_loaded_model_answers_as_the_saved_one(world, tmp_path):
    retriever = EASE().build()
    retriever.fit(world.train, world.train.select(np.zeros(len(world.train), bool)), world.items)
    fitted(world, EASE(), tmp_path / "m")
    loaded = model.load_model(tmp_path / "m")
    loaded.retriever.attach(world.items)
    ours, theirs = retriever.recommend(requests(world), 3), loaded.retriever.recommend(requests(world), 3)
    assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])
    assert (loaded.label, loaded.modalities) == ("ease", ("text",))
    assert loaded.manifest["train_end"] == "2024-01-02"


def test_same_fit_same_bytes(world, tmp_path):
    assert fitted(world, EASE(), tmp_path / "a") == fitted(world, EASE(), tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert bundled(world, EASE(), tmp_path / "c") == bundled(world, EASE(), tmp_path / "d")
    assert contents(tmp_path / "c") == contents(tmp_path / "d")


def test_manifest_follows_the_contract(world, tmp_path):
    digest = fitted(world, EASE(), tmp_path / "m")
    manifest = json.loads((tmp_path / "m/manifest.json").read_text("utf-8"))
    assert set(manifest) == {
        "format_version",
        "kind",
        "spec",
        "label",
        "modalities",
        "fit_ids_sha256",
        "train_end",
        "seed",
        "arrays",
        "files",
        "digest",
    }
    assert manifest["digest"] == digest == digest_of(manifest)
    assert json.loads((tmp_path / "m/fit_ids.json").read_text("utf-8")) == list(world.items.ids)
    assert (tmp_path / "m/curve.csv").read_text() == "step,epoch,loss\n0,0,0.5\n1,1,0.25\n"


def test_replacing_a_model_leaves_nothing_of_the_old_one(world, tmp_path):
    fitted(world, EASE(), tmp_path / "m")
    (tmp_path / "m/left.txt").write_text("x")
    fitted(world, Popularity(), tmp_path / "m")
    assert set(contents(tmp_path / "m")) == {"manifest.json", "model.safetensors", "fit_ids.json", "curve.csv"}
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_object_arrays_are_refused(world, tmp_path):
    retriever = Popularity().build()
    retriever.fit(world.train, world.train, world.items)
    retriever.count = np.array([object()])
    with pytest.raises(ValueError, match="plain dtypes"):
        model.save_model(
            tmp_path / "m",
            retriever,
            spec={"retriever": {"kind": "popularity"}},
            label="x",
            modalities={},
            seed=0,
            train_end=None,
        )
    assert not (tmp_path / "m").exists()


FILES = [
    "model/model.safetensors",
    "model/fit_ids.json",
    "model/curve.csv",
    "model/manifest.json",
    "bundle.json",
    "catalogue/items.parquet",
    "catalogue/features.safetensors",
    "catalogue/manifest.json",
    "users/histories.parquet",
    "users/manifest.json",
    "train_pairs.safetensors",
]


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    bundled(world, EASE(), root / "bundle")
    renamed = {i: f"{i}'" for i in world.items.ids}  # another catalogue: no file of its bundle equals one of ours
    other = replace(
        world,
        items=replace(world.items, ids=tuple(renamed.values()), features={"text": -world.items.features["text"]}),
        table=world.table.with_columns(pl.col("item_id").replace_strict(renamed)),
        trained=world.trained.with_columns(pl.col("item_id").replace_strict(renamed)),
    )
    bundled(other, Popularity(), root / "other", loss=0.125)
    return root


@pytest.mark.parametrize("how", ["flip", "truncate", "remove", "empty", "pickle", "link"])
@pytest.mark.parametrize("name", FILES)
def test_an_altered_file_is_named_and_not_loaded(whole, tmp_path, name, how):
    shutil.copytree(whole / "bundle", tmp_path / "bundle")
    path, marker = tmp_path / "bundle" / name, tmp_path / "marker"
    content = path.read_bytes()
    if how == "flip":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif how == "truncate":
        path.write_bytes(content[:-1])
    elif how == "remove":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "pickle":
        path.write_bytes(pickle.dumps(Evil(str(marker))))
    else:  # a dangling link
        path.unlink()
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(IntegrityError, match=path.name.replace(".", r"\.")):
        bundle.load_bundle(tmp_path / "bundle")
    assert not marker.exists()


class Evil:
    """Unpickling this leaves a marker."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self):
        return (open, (self.marker, "w"))


def test_the_canary_sings(tmp_path):
    pickle.loads(pickle.dumps(Evil(str(tmp_path / "marker")))).close()  # noqa: S301
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("extra", ["model/model.pkl", "catalogue/evil.npy", "users/x", "x.txt", "model/sub/x"])
def test_an_added_file_is_named(whole, tmp_path, extra):
    shutil.copytree(whole / "bundle", tmp_path / "bundle")
    (tmp_path / "bundle" / extra).parent.mkdir(exist_ok=True)
    (tmp_path / "bundle" / extra).write_bytes(b"x")
    with pytest.raises(IntegrityError, match=Path(extra).parts[min(1, len(Path(extra).parts) - 1)]):
        bundle.load_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("part", [*FILES, "model", "catalogue", "users"])
def test_a_part_of_another_bundle_is_refused(whole, tmp_path, part):
    shutil.copytree(whole / "bundle", tmp_path / "bundle")
    ours, theirs = tmp_path / "bundle" / part, whole / "other" / part
    if ours.is_dir():
        shutil.rmtree(ours)
        shutil.copytree(theirs, ours)
    else:
        assert ours.read_bytes() != theirs.read_bytes()
        shutil.copy(theirs, ours)
    with pytest.raises(IntegrityError):
        bundle.load_bundle(tmp_path / "bundle")


def test_a_whole_other_bundle_is_refused_by_the_recorded_digest(whole):
    recorded = bundle.read_bundle_json(whole / "bundle")["bundle"]
    assert bundle.load_bundle(whole / "bundle", recorded).digest == recorded
    with pytest.raises(IntegrityError, match="another bundle"):
        bundle.load_bundle(whole / "other", recorded)


@pytest.mark.parametrize("name", ["model/manifest.json", "catalogue/manifest.json", "bundle.json"])
@pytest.mark.parametrize("version", [3, 0, "1", None])
def test_an_unknown_format_is_a_config_error(whole, tmp_path, name, version):
    shutil.copytree(whole / "bundle", tmp_path / "bundle")
    path = tmp_path / "bundle" / name
    manifest = json.loads(path.read_text("utf-8"))
    manifest["format_version"] = version
    manifest["digest"] = digest_of(manifest)
    path.write_bytes(to_json(manifest))
    with pytest.raises(ConfigError, match="format_version"):
        bundle.load_bundle(tmp_path / "bundle")


def test_the_first_format_is_refused_with_what_to_do(whole, tmp_path):
    shutil.copytree(whole / "bundle", tmp_path / "bundle")
    rewritten(tmp_path / "bundle", format_version=1)
    said = r"bundle/bundle\.json has format_version 1, this version reads 2: .*, or run the pipeline again"
    with pytest.raises(ConfigError, match=said):
        bundle.load_bundle(tmp_path / "bundle")


def rewritten(folder: Path, own: bool = True, **values) -> str:
    """Other values in bundle.json under digests that fit, that of the bundle where ``own``; returns the latter."""
    about = json.loads((folder / "bundle.json").read_text("utf-8")) | values
    if own:
        about["bundle"] = bundle.bundle_digest(about)
    about["digest"] = digest_of(about)
    (folder / "bundle.json").write_bytes(to_json(about))
    return about["bundle"]


def altered(folder: Path, what: str) -> dict:
    """What a bundle.json says of a bundle that somebody altered with care; the file of the pairs is written."""
    if what == "temporal":
        return {"temporal": False}
    held = model.bytes_to_arrays((folder / bundle.PAIRS).read_bytes())
    arrays = {"pairs": held["pairs"][1:]} if what == "pairs" else {"users": held["users"][::-1].copy()}
    (folder / bundle.PAIRS).write_bytes(model.arrays_to_bytes(held | arrays))
    return {"files": {bundle.PAIRS: sha256_file(folder / bundle.PAIRS)}}


@pytest.mark.parametrize("what", ["pairs", "users", "temporal"])
def test_the_recorded_digest_covers_what_the_gate_reads(whole, tmp_path, what):
    shutil.copytree(whole / "bundle", tmp_path / "bundle")
    recorded = bundle.load_bundle(tmp_path / "bundle").digest
    values = altered(tmp_path / "bundle", what)
    rewritten(tmp_path / "bundle", own=False, **values)
    with pytest.raises(IntegrityError, match=r"bundle\.json was changed"):
        bundle.load_bundle(tmp_path / "bundle", recorded)
    assert rewritten(tmp_path / "bundle", **values) != recorded
    bundle.load_bundle(tmp_path / "bundle")
    with pytest.raises(IntegrityError, match="another bundle"):
        bundle.load_bundle(tmp_path / "bundle", recorded)


def test_what_is_told_alone_is_outside_the_digest(whole, tmp_path):
    """The same bundle measured again, or after a user asked to be forgotten, is no other version."""
    shutil.copytree(whole / "bundle", tmp_path / "bundle")
    recorded = bundle.load_bundle(tmp_path / "bundle").digest
    assert rewritten(tmp_path / "bundle", metrics={"ndcg@20": 0.75}, users="0" * 64) == recorded


def test_the_same_model_with_another_window_is_another_bundle(world, whole, tmp_path):
    more = pl.concat([world.trained, world.later.select(world.trained.columns).head(9)])
    one, two, three = (
        bundled(world, EASE(), tmp_path / "one"),
        bundled(world, EASE(), tmp_path / "two", trained=more),
        bundled(world, EASE(), tmp_path / "three", temporal=False),
    )
    assert one == bundle.read_bundle_json(whole / "bundle")["bundle"] and len({one, two, three}) == 3


@pytest.mark.parametrize("evil", ["../outside", "/etc/hostname", "a/b", ".hidden", "manifest.json", ""])
def test_a_manifest_cannot_name_files_elsewhere(whole, tmp_path, evil):
    shutil.copytree(whole / "bundle", tmp_path / "bundle")
    path = tmp_path / "bundle/model/manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["files"][evil] = "0" * 64
    manifest["digest"] = digest_of(manifest)
    path.write_bytes(to_json(manifest))
    with pytest.raises(IntegrityError, match="manifest.json"):
        model.load_model(tmp_path / "bundle/model")


def test_an_unknown_retriever_says_what_to_do(whole, tmp_path):
    shutil.copytree(whole / "bundle/model", tmp_path / "m")
    manifest = json.loads((tmp_path / "m/manifest.json").read_text("utf-8"))
    manifest["spec"]["retriever"] = {"kind": "os.system"}
    manifest["digest"] = digest_of(manifest)
    (tmp_path / "m/manifest.json").write_bytes(to_json(manifest))
    with pytest.raises(ConfigError, match="install the fusionrec"):
        model.load_model(tmp_path / "m")


def test_the_bundle_is_ready_to_answer(whole, world):
    loaded = bundle.load_bundle(whole / "bundle")
    items, scores = loaded.recommender().recommend(requests(world), 3)
    assert items.shape == (5, 3) and (items >= 0).all() and np.isfinite(scores).all()
    assert loaded.catalogue.table["title"].to_list() == [f"title of {i}" for i in world.items.ids]
    assert loaded.histories().sort("timestamp").equals(world.trained.sort("timestamp"))
    assert np.array_equal(loaded.users, bundle.user_hashes(world.users))


def test_users_stay_at_home_and_the_rest_still_loads(whole, tmp_path):
    shutil.copytree(whole / "bundle", tmp_path / "b", ignore=shutil.ignore_patterns("users"))
    assert bundle.load_bundle(tmp_path / "b", users=False).catalogue.items.modalities == ("text",)
    with pytest.raises(IntegrityError, match="users"):
        bundle.load_bundle(tmp_path / "b")


def test_pair_hashes_tell_pairs_apart():
    hashes = bundle.pair_hashes(["ab", "a", "a", "x"], ["c", "bc", "bc", "名"])
    assert len(hashes) == 4 and len(np.unique(hashes)) == 3 and hashes[1] == hashes[2]
    assert set(bundle.pair_hashes(["x"], ["名"])) <= set(hashes)
    assert not set(bundle.pair_hashes(["名"], ["x"])) & set(hashes)


def test_a_restored_model_fits_a_changed_catalogue(whole, world):
    """An item that left and one that came: attaching needs no training."""
    loaded = bundle.load_bundle(whole / "bundle").model.retriever
    items = replace(
        world.items,
        ids=("new", *world.items.ids[1:]),
        features=world.items.features,
    )
    loaded.attach(items)
    scores = loaded.score(Requests(np.array([-1]), sparse.csr_matrix(([1.0], ([0], [2])), shape=(1, len(items)))))
    assert scores[0, 0] == -np.inf and np.isfinite(scores[0, 1:]).all()

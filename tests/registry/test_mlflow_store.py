"""A real sqlite MLflow; made once, copied for each test because its first start takes seconds."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from fusionrec.errors import ConfigError, IntegrityError, Unavailable
from fusionrec.recommenders.ease import EASE
from fusionrec.registry import bundle, mlflow_store, recording, registering, tracking

from .conftest import bundled


def entry(folder: Path, **kwargs) -> recording.Entry:
    return recording.Entry(
        bundle=folder,
        params={"train": {"seed": 3, "retriever": {"kind": "ease", "reg": 2.5}, "baselines": []}},
        metrics={"ease": {"all": {"ndcg@20": 0.25, "note": "x", "gone": float("nan")}}},
        datasets=[recording.Dataset("train", "training", "data/splits/train.parquet", "d" * 32, "dvc.md5", 99)],
        texts={"card.md": "# <b>card</b>"},
        curve=[{"step": 0, "epoch": 0, "loss": 0.5}, {"step": 1, "epoch": 1, "loss": 0.25}],
        tags={"git_commit": "unknown", "data_version": "v"},
        **kwargs,
    )


def register(home: Path, folder: Path, **kwargs) -> mlflow_store.Registered:
    about = bundle.read_bundle_json(folder)
    return registering.register(home, "fusionrec", "exp", about, lambda: entry(folder, **kwargs))


def test_registering_records_everything_once(home, ease_bundle, world, tmp_path):
    first = register(home, ease_bundle, example=json.dumps([world.items.ids[0]]))
    start = time.monotonic()
    second = register(home, ease_bundle)
    assert time.monotonic() - start < 4  # 0.2 s on an idle machine
    assert first.created and not second.created
    assert (first.version, first.run_id) == (second.version, second.run_id) == (1, first.run_id)
    assert second.aliases == ("challenger",)
    assert not (tmp_path / "mlruns").exists()

    from mlflow import MlflowClient

    client = MlflowClient(tracking.locate(home).uri)
    assert len(client.search_model_versions("name = 'fusionrec'")) == 1
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.retriever.kind"] == "ease" and run.data.params["train.seed"] == "3"
    assert run.data.metrics["ease/all/ndcg_at_20"] == 0.25 and "ease/all/gone" not in run.data.metrics
    assert [(m.step, m.value) for m in client.get_metric_history(first.run_id, "curve/loss")] == [(0, 0.5), (1, 0.25)]
    logged = run.inputs.dataset_inputs[0]
    assert (logged.dataset.name, logged.dataset.digest) == ("train", "d" * 32)
    about = bundle.read_bundle_json(ease_bundle)
    tags = client.get_model_version("fusionrec", "1").tags
    assert (tags["bundle_digest"], tags["model_digest"]) == (about["bundle"], about["model"])
    assert run.data.tags["bundle_digest"] == about["bundle"]
    # personal data and pickles never leave the project
    names = {p.name for p in (home / "mlflow/artifacts").rglob("*") if p.is_file()}
    assert "histories.parquet" not in names and {"model.safetensors", "bundle.json", "MLmodel"} <= names
    assert not [n for n in names if n.endswith((".pkl", ".pickle", ".joblib"))]
    assert world.users[3].encode() not in b"".join(p.read_bytes() for p in (home / "mlflow").rglob("*") if p.is_file())

    with tracking.client(home):
        import mlflow

        served = mlflow.pyfunc.load_model("models:/fusionrec@challenger")
    asked = [world.items.ids[0], world.items.ids[3]]
    answer = served.predict(pd.DataFrame({"history": [json.dumps(asked), ",".join(asked[:1]), ""]}), params={"k": 4})
    lists = [json.loads(text) for text in answer["items"]]
    assert [len(x) for x in lists[:2]] == [4, 4] and not set(lists[0]) & set(asked)
    assert [len(json.loads(s)) for s in answer["scores"]] == [len(x) for x in lists]
    direct, _ = bundle.load_bundle(ease_bundle).recommender().recommend(_request(world, [0, 3]), 4)
    assert lists[0] == [world.items.ids[i] for i in direct[0]]

    got = mlflow_store.download(home, first, tmp_path / "down")
    assert bundle.load_bundle(got, about["bundle"], users=False).digest == about["bundle"]


def _request(world, rows):
    import numpy as np
    from scipy import sparse

    from fusionrec.types import Requests

    return Requests(
        np.array([-1]),
        sparse.csr_matrix((np.ones(len(rows), np.float32), ([0] * len(rows), rows)), shape=(1, len(world.items))),
    )


def test_a_wiped_store_and_lost_artifacts_get_their_version_back(home, empty_store, ease_bundle):
    assert register(home, ease_bundle).created
    shutil.rmtree(home / "mlflow/artifacts")
    again = register(home, ease_bundle)
    assert again.created and again.version == 2
    assert not register(home, ease_bundle).created
    # this process keeps the old database open, so the wiped one lives at another path
    shutil.copytree(empty_store, home.with_name("wiped"))
    back = register(home.with_name("wiped"), ease_bundle)
    assert back.created and back.version == 1 and back.aliases == ("challenger",)


def test_a_folder_with_spaces_and_other_letters_registers_once(home, ease_bundle):
    odd = home.rename(home.with_name("我的 project 50%"))
    assert register(odd, ease_bundle).created
    again = register(odd, ease_bundle)
    assert not again.created and again.version == 1


def test_the_same_model_with_another_window_is_another_version(home, ease_bundle, world, tmp_path):
    assert register(home, ease_bundle).version == 1
    more = pl.concat([world.trained, world.later.select(world.trained.columns).head(9)])
    bundled(world, EASE(), tmp_path / "more", trained=more)
    second = register(home, tmp_path / "more")
    assert second.created and second.version == 2
    got = bundle.load_bundle(mlflow_store.download(home, second, tmp_path / "down"), second.tags["bundle_digest"],
                             users=False)  # fmt: skip
    assert len(got.pairs) == len(world.trained) + 9


def test_a_full_disk_is_told_and_is_no_fault_of_the_version(home, ease_bundle, tmp_path):
    """The disk of a process that may write no more than 99 bytes into a file; whoever it belongs to."""
    registered = register(home, ease_bundle)
    code = (
        "import resource, sys; from pathlib import Path; from fusionrec.registry import mlflow_store; "
        "home, target = map(Path, sys.argv[1:]); found = mlflow_store.find(home, 'fusionrec', version=1); "
        "mlflow_store.load(); resource.setrlimit(resource.RLIMIT_FSIZE, (99, 99))\n"
        "try: mlflow_store.download_about(home, found, target)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    command = [sys.executable, "-B", "-c", code, str(home), str(tmp_path / "full")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("Unavailable the bundle of version 1 of fusionrec could not be fetched into ")
    assert re.search(rf"File too large: .*bundle\.json' \({tmp_path}/full: \d+ bytes free\)\nnothing is lost", said)
    assert mlflow_store.download_about(home, registered, tmp_path / "room").joinpath("bundle.json").is_file()
    next((home / "mlflow/artifacts").rglob("bundle.json")).unlink()
    with pytest.raises(IntegrityError, match="has no bundle in its artifacts"):
        mlflow_store.download_about(home, registered, tmp_path / "gone")


def test_a_tampered_bundle_is_not_registered(home, ease_bundle):
    path = ease_bundle / "model/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        register(home, ease_bundle)
    assert mlflow_store.find(home, "fusionrec", version=1) is None


def test_an_altered_artifact_is_not_served_or_promoted(home, ease_bundle, tmp_path):
    registered = register(home, ease_bundle)
    path = next((home / "mlflow/artifacts").rglob("model.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    got = mlflow_store.download(home, registered, tmp_path / "down")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        bundle.load_bundle(got, registered.tags["bundle_digest"], users=False)


def test_a_dead_server_is_said_within_a_minute(tmp_path, ease_bundle, monkeypatch):
    import socket

    with socket.socket() as silent:  # accepts and never answers, like a stopped process
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        for uri in (f"http://u:secret@127.0.0.1:{silent.getsockname()[1]}", "http://127.0.0.1:9"):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            start = time.monotonic()
            with pytest.raises(Unavailable, match=r"nothing is lost") as caught:
                register(tmp_path / "home", ease_bundle)
            assert time.monotonic() - start < 30
            assert caught.value.exit_code == 69 and "fusionrec register" in str(caught.value)
            assert "secret" not in str(caught.value)


def test_an_odd_uri_is_a_config_error(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        tracking.locate(tmp_path)


def test_an_older_schema_says_how_to_upgrade(home):
    with sqlite3.connect(home / "mlflow/mlflow.db") as db:
        db.execute("update alembic_version set version_num = '0a8213491aaa'")
    # the client caches one store for each URI, so this database gets another path
    shutil.move(home, home.with_name("older"))
    with pytest.raises(ConfigError, match="mlflow db upgrade"):
        mlflow_store.find(home.with_name("older"), "fusionrec", version=1)


def test_names_that_mlflow_takes():
    nested = {"a": {"ndcg@20": 1, "ndcg 20": 2, "ndcg/20": 3, "x": True, "y": None, "z": float("inf")}, "..": {"é": 4}}
    flat = recording.safe_metrics(nested)
    assert flat["a/ndcg_at_20"] == 1.0 and sorted(flat.values()) == [1.0, 2.0, 3.0, 4.0] and len(flat) == 4
    assert dict(recording.flatten({"a": {"b": [1, {"c": 2}]}, "e": {}})) == {"a.b.0": 1, "a.b.1.c": 2, "e": {}}

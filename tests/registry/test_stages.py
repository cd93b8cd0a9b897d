"""The stages bundle and register on a small project, the model card, and a real MLflow server."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import polars as pl
import pytest
import yaml

from fusionrec import config
from fusionrec.data.split import Splits, write
from fusionrec.errors import DataRejected
from fusionrec.paths import Paths
from fusionrec.recommenders.ease import EASE
from fusionrec.registry import mlflow_store, tracking
from fusionrec.registry.bundle import load_bundle, read_bundle_json, save_model
from fusionrec.registry.card import inert, model_card
from fusionrec.stages import bundle, promote, register

HOSTILE = "<script>alert(1)</script>|[x](javascript:y)\n# h `c`"


@pytest.fixture
def paths(home, tmp_path, world) -> Paths:
    paths = Paths(tmp_path / "project", home)
    write(
        paths,
        Splits(
            list(world.items.ids), {"train": world.trained, "valid": world.trained.clear(), "test": world.later}, {}
        ),
    )
    (paths.tables / "items").mkdir(parents=True)
    world.table.with_columns(title=pl.lit(HOSTILE)).write_parquet(paths.tables / "items/00-0.parquet")
    (paths.tables / "ledger.json").write_text("{}")
    retriever = EASE().build()
    retriever.fit(world.train, world.train.select([]), world.items.only())
    save_model(
        paths.model,
        retriever,
        spec={"retriever": {"kind": "ease"}},
        label="ease",
        modalities={},
        seed=0,
        train_end=world.trained["timestamp"].max(),
        curve=[{"epoch": 0, "loss": 0.5}],
    )
    paths.evaluation.mkdir()
    (paths.evaluation / "metrics.json").write_text(json.dumps({"model": {"all": {"ndcg@3": 0.5}}}))
    (paths.evaluation / "report.html").write_text("<p>report</p>")
    return paths


@pytest.fixture
def params():
    return config.parse(
        {
            "source": {"kind": "folder", "root": "x"},
            "modalities": {},
            "split": {"kind": "global_time", "valid_from": 2, "test_from": 3},
            "train": {"retriever": {"kind": "ease"}, "fusion": {"kind": "concat"}},
            "evaluate": {"k": [3, 5], "main_k": 3, "bootstrap": 500},
            "registry": {"promotion": {"min_pairs": 50}},
        }
    )


def digests(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}


def test_bundle_is_a_function_of_its_inputs(paths, params, world):
    bundle.run(params, paths)
    first = digests(paths.bundle)
    bundle.run(params, paths)
    assert digests(paths.bundle) == first
    loaded = load_bundle(paths.bundle)
    assert loaded.about["temporal"] is True and loaded.about["metrics"] == {"ndcg@3": 0.5}
    assert len(loaded.pairs) == world.trained.height and len(loaded.users) == len(set(world.trained["user_id"]))
    assert loaded.histories().height == world.trained.height + world.later.height


def test_stages_that_did_not_run_are_named(paths, params):
    with pytest.raises(DataRejected, match="dvc repro"):
        register.run(params, paths)
    (paths.evaluation / "metrics.json").unlink()
    with pytest.raises(DataRejected, match="stage evaluate"):
        bundle.run(params, paths)


def test_register_records_where_the_model_comes_from(paths, params, monkeypatch):
    bundle.run(params, paths)
    md5 = hashlib.md5((paths.splits / "train.parquet").read_bytes(), usedforsecurity=False).hexdigest()
    lock = {
        "stages": {
            "split": {
                "outs": [
                    {"path": "data/splits/train.parquet", "md5": md5},
                    {"path": "data/splits/test.parquet", "md5": "0" * 32},
                ]
            }
        }
    }
    (paths.project / "dvc.lock").write_text(yaml.safe_dump(lock))
    first = register.run(params, paths)
    monkeypatch.setattr(register, "gather", lambda *_: pytest.fail("a known digest needs nothing gathered"))
    second = register.run(params, paths)
    assert (first.counts["created"], second.counts["created"]) == (1, 0)
    assert first.links["version"] == second.links["version"] and first.links["report"] == "data/evaluation/report.html"
    with tracking.client(paths.home) as (client, _):
        run = client.get_run(first.links["run"])
        files = {f.path for f in client.list_artifacts(first.links["run"])}
    found = {d.dataset.name: d for d in run.inputs.dataset_inputs}
    assert found["train"].dataset.digest == md5
    assert {t.key: t.value for t in found["train"].tags} == {"mlflow.data.context": "training", "digest.dvc.md5": md5}
    assert "digest.sha256" in {t.key for t in found["test"].tags}  # dvc.lock speaks of other bytes
    assert run.data.params["train.retriever.kind"] == "ease" and run.data.params["split.kind"] == "global_time"
    assert run.data.metrics["model/all/ndcg_at_3"] == 0.5
    assert {"report.html", "model_card.md"} <= files


def test_a_hostile_card_is_plain_text():
    manifest = {
        "kind": HOSTILE,
        "modalities": {HOSTILE: {"encoder": {"kind": HOSTILE}, "fingerprint": HOSTILE}},
        "seed": 0,
        "train_end": None,
    }
    about = {"bundle": "b", "model": "m", "catalogue": "c"}
    rows = [
        {
            "model": "model",
            "label": HOSTILE,
            "slice": "all",
            "metric": "ndcg@20",
            "mean": 0.25,
            "low": 0.125,
            "high": 0.5,
            "n": 7,
        }
    ]
    card = model_card(manifest, about, name="x", rows=rows, sizes={HOSTILE: HOSTILE}, protocol={HOSTILE: 1})
    assert "<script" not in card and "](javascript" not in card and "\n# h" not in card
    assert "| 0.2500 | 0.1250 to 0.5000 | 7 |" in card
    assert all(line.count("|") - line.count("\\|") == 7 for line in card.splitlines() if line.startswith("|"))
    assert inert("名字 a_b") == "名字 a\\_b"


@pytest.fixture
def server(empty_store, tmp_path):
    """A real `mlflow server` on a free port."""
    import shutil

    shutil.copy(empty_store / "mlflow/mlflow.db", tmp_path / "server.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
            "--backend-store-uri",
            f"sqlite:///{tmp_path / 'server.db'}",
            "--artifacts-destination",
            str(tmp_path / "art"),
        ],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=tmp_path,
    )
    uri = f"http://127.0.0.1:{port}"
    try:
        for _ in range(160):
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=1).close()  # noqa: S310
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                time.sleep(0.5)
        else:
            pytest.fail("the MLflow server did not start within 80 s")
        yield uri, process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_real_server(server, paths, params, monkeypatch):
    from fusionrec.errors import Unavailable

    uri, process = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    bundle.run(params, paths)
    first = register.run(params, paths)
    second = register.run(params, paths)
    assert (first.counts["created"], second.counts["created"]) == (1, 0)
    assert first.links["version"] == f"{uri}/#/models/fusionrec/versions/1"
    promote.run(params, paths)
    champion = mlflow_store.find(paths.home, "fusionrec", alias="champion")
    assert champion.tags["bundle_digest"] == read_bundle_json(paths.bundle)["bundle"]
    assert os.environ["MLFLOW_TRACKING_URI"] == uri
    os.killpg(process.pid, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(Unavailable):
        register.run(params, paths)
    assert time.monotonic() - start < 60

"""A small catalogue with a planted taste, models of known quality on it, and bundles of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fusionrec.data.files import to_json
from fusionrec.recommenders.ease import EASE
from fusionrec.recommenders.popularity import Popularity
from fusionrec.registry import mlflow_store, recording, registering
from fusionrec.registry.bundle import read_bundle_json, save_bundle
from fusionrec.registry.model import save_model
from fusionrec.registry.sealed import digest_of
from fusionrec.types import Interactions, ItemSet, item_order

N_USERS, N_ITEMS, D = 67, 31, 7
START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass
class World:
    """The toy catalogue: items, their vectors, and the training pairs as a table."""

    items: ItemSet
    table: pl.DataFrame
    users: list[str]
    trained: pl.DataFrame
    train: Interactions
    later: pl.DataFrame


@pytest.fixture(scope="session")
def world() -> World:
    rng = np.random.default_rng(5)
    ids = tuple(item_order([f"item-{i}" for i in range(N_ITEMS - 1)] + ["名字,<b>x"]))
    items = ItemSet(
        ids,
        {"text": rng.normal(size=(N_ITEMS, D)).astype(np.float32)},
        {"text": rng.random(N_ITEMS) < 0.8},
        {"text": np.zeros(N_ITEMS, np.int16)},
    )
    users = [f"{u:032x}" for u in range(N_USERS)]
    taste = rng.integers(0, 3, N_USERS)
    pairs = [(u, i) for u in range(N_USERS) for i in range(N_ITEMS) if i % 3 == taste[u] and rng.random() < 0.6]
    time = [START + timedelta(minutes=n) for n in range(len(pairs))]
    trained = pl.DataFrame(
        {
            "user_id": [users[u] for u, _ in pairs],
            "item_id": [ids[i] for _, i in pairs],
            "timestamp": pl.Series(time, dtype=pl.Datetime("us", "UTC")),
        }
    )
    train = Interactions(
        np.array([u for u, _ in pairs], np.int32),
        np.array([i for _, i in pairs], np.int32),
        trained["timestamp"].dt.epoch("us").to_numpy(),
        N_USERS,
        N_ITEMS,
    )
    rest = [(u, i) for u in range(N_USERS) for i in range(N_ITEMS) if i % 3 == taste[u] and (u, i) not in set(pairs)]
    later = pl.DataFrame(
        {
            "user_id": [users[u] for u, _ in rest],
            "item_id": [ids[i] for _, i in rest],
            "timestamp": pl.Series(
                [START + timedelta(days=2, minutes=n) for n in range(len(rest))], dtype=pl.Datetime("us", "UTC")
            ),
        }
    )
    table = pl.DataFrame({"item_id": list(ids), "title": [f"title of {i}" for i in ids]})
    return World(items, table, users, trained, train, later)


def fitted(
    world: World, spec, folder: Path, label: str | None = None, train_end: str | None = "2024-01-02", loss: float = 0.5
) -> str:
    """Fit ``spec`` on the toy catalogue and save it to ``folder``."""
    retriever = spec.build()
    nothing = world.train.select(np.zeros(len(world.train), bool))
    retriever.fit(world.train, nothing, world.items)
    return save_model(
        folder,
        retriever,
        spec={"retriever": spec.model_dump(mode="json")},
        label=label or spec.kind,
        modalities={"text": {"encoder": {"kind": "identity"}, "fingerprint": "f" * 64}},
        seed=0,
        train_end=train_end,
        curve=[{"step": 0, "epoch": 0, "loss": loss}, {"step": 1, "epoch": 1, "loss": 0.25}],
    )


def bundled(
    world: World, spec, folder: Path, trained: pl.DataFrame | None = None, temporal: bool = True, **kwargs
) -> str:
    """A bundle of ``spec`` fitted on the toy catalogue; returns its digest."""
    fitted(world, spec, folder.with_name(folder.name + "-model"), **kwargs)
    return save_bundle(
        folder,
        folder.with_name(folder.name + "-model"),
        table=world.table,
        items=world.items,
        fingerprints={"text": "f" * 64},
        histories=world.trained,
        trained=world.trained if trained is None else trained,
        users=world.users,
        metrics={"ndcg@20": 0.5},
        temporal=temporal,
    )


@pytest.fixture
def ease_bundle(world: World, tmp_path: Path) -> Path:
    bundled(world, EASE(), tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def popularity_model(world: World, tmp_path: Path) -> Path:
    fitted(world, Popularity(), tmp_path / "popularity")
    return tmp_path / "popularity"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A home whose database exists and holds nothing."""
    home = tmp_path_factory.mktemp("mlflow-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert mlflow_store.find(home, "fusionrec", version=1) is None
    return home


@pytest.fixture
def home(empty_store, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(empty_store, tmp_path / "home")
    return tmp_path / "home"


def register(home: Path, folder: Path, name: str = "fusionrec") -> mlflow_store.Registered:
    """Make a version of a bundle, without judging it."""
    return registering.register(home, name, "exp", read_bundle_json(folder), lambda: recording.Entry(bundle=folder))


def made_old(root: Path) -> None:
    """Every bundle.json below ``root`` as format 1 would have written it, as far as its digests go."""
    for file in root.rglob("bundle.json"):
        about = json.loads(file.read_text("utf-8")) | {"format_version": 1}
        file.write_bytes(to_json({**about, "digest": digest_of(about)}))


@dataclass
class Server:
    """A real `mlflow server` on a free port; ``call`` speaks its REST API as MLflow's pages do."""

    uri: str
    process: subprocess.Popen[bytes]

    def call(self, path: str, method: str = "POST", **body: str) -> dict:
        request = urllib.request.Request(  # noqa: S310
            f"{self.uri}/api/2.0/mlflow/{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return json.loads(answer.read() or b"{}")

    def move(self, name: str, version: int) -> None:
        self.call("registered-models/alias", name=name, alias="champion", version=str(version))

    def drop(self, name: str) -> None:
        self.call("registered-models/alias", "DELETE", name=name, alias="champion")

    def champion(self, name: str) -> int | None:
        try:
            found = self.call(f"registered-models/alias?name={name}&alias=champion", "GET")
        except urllib.error.HTTPError:
            return None
        return int(found["model_version"]["version"])

    def tags(self, name: str, version: int) -> dict[str, str]:
        found = self.call(f"model-versions/get?name={name}&version={version}", "GET")["model_version"]
        return {tag["key"]: tag["value"] for tag in found.get("tags", [])}

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)


def start_server(folder: Path, database: Path) -> Server:
    """Start a server on a copy of ``database`` and wait until it answers."""
    shutil.copy(database, folder / "server.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder / "art"),
        ],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=folder,
    )  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    for _ in range(160):
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=1).close()  # noqa: S310
            return Server(uri, process)
        except OSError:
            assert process.poll() is None, "the server ended"
            time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("the MLflow server did not start within 80 s")


@pytest.fixture(scope="session")
def shared_server(empty_store, tmp_path_factory) -> Iterator[Server]:
    server = start_server(tmp_path_factory.mktemp("server"), empty_store / "mlflow/mlflow.db")
    try:
        yield server
    finally:
        server.signal(signal.SIGKILL)
        server.process.wait()


@pytest.fixture
def server(shared_server, monkeypatch) -> Iterator[Server]:
    """The shared server as this test's registry; running again when the test ends."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", shared_server.uri)
    yield shared_server
    shared_server.signal(signal.SIGCONT)

"""Weights that params.yaml names: of a folder, a package or a hub's cache, hashed; nothing else is opened."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file

from fusionrec.encoders.hub import Weights, no_download, tensors
from fusionrec.errors import ConfigError, IntegrityError, Unavailable

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path):
    """Three tensors' worth of weights, and things beside them that must not matter."""
    path = tmp_path / "model"
    path.mkdir()
    save_file({"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, path / "model.safetensors")
    (path / "config.json").write_text('{"model_type": "toy"}')
    (path / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    (path / "modeling_evil.py").write_text("raise SystemExit")
    (path / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}')
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch, folder):
    """The hub's cache as the hub's client lays it out, holding the folder's files at one revision."""
    from huggingface_hub import constants

    root = tmp_path / "cache"
    repo = root / "models--shop--toy"
    (repo / "blobs").mkdir(parents=True)
    (repo / "snapshots" / REVISION).mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        data = (folder / name).read_bytes()
        small = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        blob = hashlib.sha256(data).hexdigest() if name.endswith("safetensors") else small
        (repo / "blobs" / blob).write_bytes(data)
        (repo / "snapshots" / REVISION / name).symlink_to(f"../../blobs/{blob}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    return repo


def test_only_the_named_files_are_found_and_the_digest_is_of_their_bytes(folder):
    files = Weights(path=str(folder)).verified(["config.json", "tokenizer.json"])
    assert sorted(files) == ["config.json", "model.safetensors"]
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}" for n in sorted(files)]
    wanted = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert Weights(path=str(folder)).digest(["config.json"]) == wanted
    assert Weights(path=str(folder), sha256=wanted).digest(["config.json"]) == wanted
    np.testing.assert_array_equal(tensors(files)["a"].numpy(), [[0, 1, 2], [3, 4, 5]])


def test_a_pinned_digest_that_differs_is_refused(folder):
    with pytest.raises(IntegrityError, match=r"has the sha256 [0-9a-f]{64}, expected aaaa") as caught:
        Weights(path=str(folder), sha256="a" * 64).verified()
    assert caught.value.exit_code == 78


def test_a_file_alone_is_weights_too_and_a_relative_path_begins_at_the_project(folder, tmp_path, monkeypatch):
    (tmp_path / "params.yaml").touch()
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    alone = Weights(path="model/model.safetensors")
    assert list(alone.verified()) == ["model.safetensors"]
    assert alone.digest() == Weights(path=str(folder)).digest()


def test_a_package_is_not_imported(folder, tmp_path, monkeypatch):
    package = tmp_path / "site" / "toy_weights_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
    folder.rename(package / "inside")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()
    assert list(Weights(package="toy_weights_package", folder="inside").verified()) == ["model.safetensors"]
    assert not (tmp_path / "imported").exists() and "toy_weights_package" not in sys.modules
    with pytest.raises(ConfigError, match="package no_such_toy is not installed"):
        Weights(package="no_such_toy").verified()


def test_pickles_are_no_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="no complete set of model.safetensors .*can execute code"):
        Weights(path=str(folder)).verified()
    with pytest.raises(ConfigError, match="neither a folder nor"):
        Weights(path=str(folder / "pytorch_model.bin")).verified()
    (folder / "model.safetensors").write_bytes((folder / "pytorch_model.bin").read_bytes())
    with pytest.raises(IntegrityError, match="is no safetensors file"):
        tensors(Weights(path=str(folder)).verified())


def test_all_parts_of_a_large_model_must_be_there(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ConfigError, match="no complete set"):
        Weights(path=str(folder)).verified()
    save_file({"b": np.ones(5, np.float32)}, folder / "model-00002-of-00002.safetensors")
    assert sorted(tensors(Weights(path=str(folder)).verified())) == ["a", "b"]


def test_the_hubs_cache_is_read_without_a_network_and_has_the_folders_digest(cache, folder):
    cached = Weights(hub="shop/toy", revision=REVISION)
    assert cached.digest(["config.json"]) == Weights(path=str(folder)).digest(["config.json"])


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_is_not_what_the_hub_calls_it_is_refused(cache, name):
    blob = (cache / "snapshots" / REVISION / name).resolve()
    blob.write_bytes(blob.read_bytes() + b" ")
    with pytest.raises(IntegrityError, match=rf"{name} has the hash .*the hub says .*Remove the file"):
        Weights(hub="shop/toy", revision=REVISION).verified(["config.json"])


def test_offline_says_how_to_bring_the_weights(cache):
    """The tests run with HF_HUB_OFFLINE=1."""
    absent = Weights(hub="shop/other", revision=REVISION)
    with pytest.raises(ConfigError, match=r"HF_HUB_OFFLINE is set.*hf download shop/other.*path: FOLDER") as caught:
        absent.digest()
    assert caught.value.exit_code == 78


def test_a_hub_that_does_not_answer_is_unavailable_and_nothing_is_asked_where_nothing_may_be(cache, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its five tries
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens on the discard port
    absent = Weights(hub="shop/other", revision=REVISION)
    with no_download(), pytest.raises(ConfigError, match="nothing is downloaded here"):
        absent.verified()
    with pytest.raises(Unavailable, match="the hub did not give shop/other@0123456789ab") as caught:
        absent.verified()
    assert caught.value.exit_code == 69


@pytest.mark.parametrize(
    "section, message",
    [
        ({}, "exactly one"),
        ({"path": "x", "package": "y"}, "found path and package, expected exactly one"),
        ({"hub": "a/b"}, "needs the revision"),
        ({"hub": "a/b", "revision": "main"}, "found 'main', expected the 40 hex digits"),
        ({"path": "x", "revision": REVISION}, "belongs to hub"),
        ({"hub": "../../etc", "revision": REVISION}, "hub"),
        ({"path": "x", "folder": "../y"}, "folder"),
        ({"path": "x", "trust_remote_code": True}, "trust_remote_code"),
    ],
)
def test_weights_are_named_exactly(section, message):
    with pytest.raises(ValidationError, match=message):
        Weights.model_validate(section)


@pytest.fixture
def hub(folder):
    """A hub on this machine that holds the folder, evil files and all, and counts what is asked for."""
    asked: list[str] = []
    files = {p.name: p.read_bytes() for p in folder.iterdir()}

    def entry(name: str) -> dict[str, object]:
        data = files[name]
        small = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        out: dict[str, object] = {"type": "file", "path": name, "size": len(data), "oid": small}
        if name.endswith((".safetensors", ".bin")):
            out["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return out

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked.append(path)
            if path == f"/api/models/shop/toy/tree/{REVISION}":
                self._answer(json.dumps([entry(name) for name in files]).encode(), {"Content-Type": "application/json"})
            elif path.startswith(f"/shop/toy/resolve/{REVISION}/") and path.rpartition("/")[2] in files:
                name = path.rpartition("/")[2]
                known = entry(name)
                tag = known["lfs"]["oid"] if "lfs" in known else known["oid"]  # type: ignore[index]
                self._answer(files[name], {"ETag": f'"{tag}"', "X-Repo-Commit": REVISION})
            else:
                self._answer(b"", {"X-Error-Code": "RepoNotFound"}, 404)

        do_HEAD = do_GET

        def _answer(self, data: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def fetched(endpoint, home, hub="shop/toy"):
    """Digest of a hub's weights in a process of its own: the client reads its environment when it is imported."""
    code = (
        "import sys; from fusionrec.encoders.hub import Weights\n"
        "print(Weights(hub=sys.argv[1], revision=sys.argv[2]).digest(['config.json']))"
    )
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-c", code, hub, REVISION], env=environment, capture_output=True, text=True, timeout=60
    )


def test_weights_are_fetched_once_and_only_those_on_the_list(hub, folder, tmp_path):
    endpoint, asked = hub
    done = fetched(endpoint, tmp_path / "home")
    assert done.stdout.strip() == Weights(path=str(folder)).digest(["config.json"]), done.stderr[-2000:]
    names = {path.rpartition("/")[2] for path in asked if "/resolve/" in path}
    assert names == {"model.safetensors", "config.json"}
    before = len(asked)
    assert fetched(endpoint, tmp_path / "home").stdout == done.stdout
    assert len(asked) == before  # the second time nobody is asked
    lost = fetched(endpoint, tmp_path / "home", "shop/nothing")
    assert "ConfigError: weights: the hub has no shop/nothing@0123456789ab for you" in lost.stderr

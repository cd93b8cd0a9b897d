"""What the store keeps beside its shards: it saves work and decides about no vector."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fusionrec.embeddings import store as module
from fusionrec.embeddings.engine import embed
from fusionrec.embeddings.store import Store
from fusionrec.encoders.base import Encoder
from fusionrec.encoders.forward import Forward
from fusionrec.encoders.weights import fingerprint
from fusionrec.errors import IntegrityError
from fusionrec.paths import Paths
from fusionrec.stages.verify import verify

from .conftest import Letters, LettersEncoder, Strings, sha

F = fingerprint("f")
TEXTS = ["abba", "cage", "deaf", "ggg", "bed"]


@pytest.fixture
def hashed(monkeypatch):
    """The files that were hashed, each time anew: the cache of this process is left out."""
    names: list[str] = []

    def counted(path):
        names.append(path.name)
        return module.hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(module, "sha256_file", counted)
    return names


@pytest.fixture
def filled(letters, store):
    """Two shards: three contents, then two."""
    for texts in (TEXTS[:3], TEXTS):
        embed(Strings(texts), Strings(texts).rows(), letters, store)
    letters.encoded.clear()
    return store


def run(store, texts=TEXTS, spec=None):
    Letters.encoded.clear()
    return embed(Strings(texts), Strings(texts).rows(), spec or Letters(), Store(store.root))


def shard_of(store, text):
    """The .npy that holds a text's vector."""
    return next(m.with_suffix(".npy") for m in store.root.rglob("*.json") if sha(text) in m.read_text())


def flipped(path):
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])


def test_where_nothing_changed_nothing_is_hashed(filled, hashed):
    first = run(filled)
    run(filled)
    assert hashed == [] and Letters.encoded == [] and first.reused == 5


def test_a_touched_shard_is_hashed_once_and_stays(filled, hashed):
    shard = shard_of(filled, "abba")
    os.utime(shard, ns=(1, 1))
    assert run(filled).reused == 5 and hashed == [shard.name]
    run(filled)
    assert hashed == [shard.name]


def test_a_shard_that_came_without_being_seen_is_hashed_once(filled, hashed):
    """As in a copied store: every file has a new time."""
    for shard in filled.root.rglob("*.npy"):
        os.utime(shard, ns=(7, 7))
    run(filled)
    run(filled)
    assert sorted(hashed) == sorted(p.name for p in filled.root.rglob("*.npy")) and len(hashed) == 2


def test_a_changed_byte_is_encoded_again(filled, hashed):
    shard, before = shard_of(filled, "abba"), run(filled)
    flipped(shard)
    os.utime(shard, ns=(1, 1))
    after = run(filled)
    assert hashed == [shard.name] and sorted(Letters.encoded) == sorted(TEXTS[:3])
    assert after.vectors.tobytes() == before.vectors.tobytes() and (after.encoded, after.reused) == (3, 2)


def test_a_byte_that_changed_under_size_and_time_is_found_by_verify_alone(filled, hashed, tmp_path):
    """A bad disk, say: a run does not read what it has no reason to doubt."""
    home = tmp_path / "project" / ".fusionrec"
    shutil.copytree(filled.root, home / "store", copy_function=shutil.copy2)
    store = Store(home / "store")
    run(store)
    hashed.clear()
    shard = shard_of(store, "abba")
    state = shard.stat()
    flipped(shard)
    os.utime(shard, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert run(store).reused == 5 and hashed == []
    paths = Paths(home.parent, home)
    with pytest.raises(IntegrityError) as caught:
        _verified(paths)
    assert shard.stem in str(caught.value) and "do not match its manifest" in str(caught.value)
    assert "1 damaged file" in str(caught.value)


def _verified(paths):
    command = [sys.executable, "-m", "dvc", "init", "--no-scm", "-q"]
    subprocess.run(command, cwd=paths.project, check=True)  # in a process of its own: it logs to this one's stdout
    return verify(paths)


HOSTILE = {
    "not json": b"{",
    "not text": b"\xff\xfe\x00",
    "a list": b"[1, 2]",
    "a number": b"7",
    "null": b"null",
    "wrong types": b'{"a.npy": 7, "sample": [], "mean": {}, "least": null}',
    "words": b'{"a.npy": ["x", "y"], "sample": "many", "mean": "good", "least": "good"}',
    "no numbers": b'{"a.npy": [Infinity, NaN], "sample": NaN, "mean": NaN, "least": Infinity}',
    "too good": b'{"sample": 9, "mean": 5, "least": 5}',
    "of nothing": b'{"sample": 0, "mean": 1, "least": 1}',
    "huge numbers": b'{"a.npy": [1e999, 2], "sample": 1e999, "mean": 1, "least": 1}',
    "deep": b"[" * 200_000,
    "long": b'{"a.npy": [' + b"1," * 100_000 + b"1]}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_or_hostile_file_is_as_good_as_none(filled, hashed, name):
    (folder,) = filled.root.iterdir()
    for file in ("seen", "precision"):
        (folder / file).write_bytes(HOSTILE[name])
    assert Store(filled.root).verdict(folder.name) is None
    result = run(filled)
    assert result.reused == 5 and Letters.encoded == [] and len(hashed) == 2
    assert result.vectors[0].tolist() == [2, 2, 0, 0, 0, 0, 0]
    seen = json.loads((folder / "seen").read_bytes())
    assert {shard_of(filled, t).name for t in TEXTS} <= set(seen)


def test_a_huge_file_is_not_read(filled, hashed, monkeypatch):
    (folder,) = filled.root.iterdir()
    good = (folder / "seen").read_bytes()
    monkeypatch.setattr(module, "MOST_ASIDE", len(good) - 1)
    assert run(filled).reused == 5 and len(hashed) == 2
    for file in ("seen", "precision"):
        with open(folder / file, "wb") as big:
            big.truncate(1 << 40)  # a hole: reading it would end this process
    monkeypatch.undo()
    assert Store(filled.root).verdict(folder.name) is None and run(filled).reused == 5


def test_a_folder_in_the_place_of_one_is_as_good_as_none(filled):
    (folder,) = filled.root.iterdir()
    (folder / "seen").unlink()
    for file in ("seen", "precision"):
        (folder / file).mkdir()
    assert run(filled).reused == 5 and Store(filled.root).verdict(folder.name) is None


@pytest.mark.parametrize("halved", [b"Infinity", b'"x"', b"[]", b"[" * 100_000])
def test_a_manifest_with_hostile_counts_is_dropped(filled, halved):
    manifest = shard_of(filled, "ggg").with_suffix(".json")
    manifest.write_bytes(manifest.read_bytes().replace(b'"halved": 0', b'"halved": ' + halved))
    assert halved in manifest.read_bytes()
    assert run(filled).reused == 3 and sorted(Letters.encoded) == ["bed", "ggg"]


class Narrow(Letters):
    """Letters through a real :class:`Forward` that has memory for two rows at a time."""

    def build(self) -> Encoder:
        return NarrowEncoder(self)


class NarrowEncoder(LettersEncoder):
    chunk = 3

    def __init__(self, spec: Letters) -> None:
        import torch

        def compute(model, counts):
            if len(counts) > 2:
                raise MemoryError
            return model(counts)

        super().__init__(spec)
        self.forward = Forward(torch.nn.Identity(), compute)

    def encode(self, batch):
        import torch

        return self.forward(torch.from_numpy(super().encode(batch)))


def test_batches_that_were_halved_are_told_of_reused_shards_too(store):
    pairs = run(store, ["a", "b"], Narrow())
    assert (pairs.halved, pairs.encoded) == (0, 2)
    first = run(store, ["a", "b", "abba", "cage", "deaf", "ggg"], Narrow())
    assert (first.halved, first.encoded, first.reused) == (1, 4, 2)  # one shard of a batch of 3 and one of 1
    again = run(store, ["cage", "a"], Narrow())
    assert (again.halved, again.encoded, again.reused) == (1, 0, 2)
    assert run(store, ["a"], Narrow()).halved == 0  # no shard of which a vector is used
    np.testing.assert_array_equal(first.vectors[2], [2, 2, 0, 0, 0, 0, 0])
    manifest = json.loads(shard_of(store, "cage").with_suffix(".json").read_text())
    assert manifest["halved"] == 1 and manifest["failed"] == []

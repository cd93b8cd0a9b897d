"""The store keeps what it was given, refuses what is unsound, and never serves a damaged shard."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionrec.embeddings.store import STALE_SECONDS, Store, verify
from fusionrec.encoders.weights import fingerprint

from .conftest import sha

F, G = fingerprint("f"), fingerprint("g")


def vectors(n, d=7, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def test_vectors_come_back_in_the_order_asked(store):
    keys, x = [sha(str(i)) for i in range(5)], vectors(5)
    store.put(F, keys[:3], x[:3], 7)
    store.put(F, keys[3:], x[3:], 7)
    asked = [keys[4], sha("unknown"), keys[0], keys[0]]
    for reader in (store, Store(store.root)):
        found, out = reader.get(F, asked)
        assert found.tolist() == [True, False, True, True]
        np.testing.assert_array_equal(out, [x[4], np.zeros(7), x[0], x[0]])
    assert not store.has(G, keys).any()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("fgh"), st.integers(0, 9)), max_size=30))
def test_exactly_what_was_put_under_a_fingerprint_is_found(puts):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)  # nobody cuts the power here
        store, model = Store(Path(folder)), {}
        for name, key in puts:
            if (name, key) not in model:
                model[name, key] = vectors(1, 5, seed=ord(name) * 100 + key)
                store.put(fingerprint(name), [sha(str(key))], model[name, key], 5)
        for name in "fgh":
            found, out = Store(Path(folder)).get(fingerprint(name), [sha(str(k)) for k in range(10)])
            assert found.tolist() == [(name, k) in model for k in range(10)]
            for k in np.flatnonzero(found):
                np.testing.assert_array_equal(out[k], model[name, int(k)][0])


@pytest.mark.parametrize(
    "x, message",
    [
        (np.full((2, 7), np.nan, np.float32), "row 0 is NaN"),
        (np.array([[1] * 7, [np.inf] * 7], np.float32), "row 1 is NaN, infinite"),
        (np.array([[1] * 7, [0] * 7], np.float32), "row 1 .* zero"),
        (np.ones((2, 6), np.float32), r"found float32 \(2, 6\), expected float32 \(2, 7\)"),
        (np.ones((2, 7), np.float64), "found float64"),
        (np.ones((3, 7), np.float32), r"found float32 \(3, 7\)"),
    ],
)
def test_unsound_vectors_never_reach_the_disk(store, x, message):
    with pytest.raises(ValueError, match=message):
        store.put(F, [sha("a"), sha("b")], x, 7)
    assert not list(store.root.rglob("*"))


def test_names_that_are_no_digests_are_refused(store):
    with pytest.raises(ValueError, match="distinct sha256"):
        store.put(F, ["../x"], vectors(1), 7)
    with pytest.raises(ValueError, match="64 hex digits"):
        store.put("../../x", [sha("a")], vectors(1), 7)
    with pytest.raises(ValueError, match="distinct sha256"):
        store.put(F, [sha("a"), sha("a")], vectors(2), 7)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest", "swap keys", "empty manifest"])
def test_a_damaged_shard_is_dropped_and_the_others_stay(store, damage):
    keys, x = [sha(str(i)) for i in range(4)], vectors(4)
    store.put(F, keys[:2], x[:2], 7)
    store.put(F, keys[2:], x[2:], 7)
    bad = next(m for m in store.root.rglob("*.json") if keys[0] in m.read_text())
    array = bad.with_suffix(".npy")
    data = array.read_bytes()
    if damage == "flip":
        array.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "cut":
        array.write_bytes(data[:-5])
    elif damage == "remove":
        array.unlink()
    elif damage == "manifest":
        bad.write_text(bad.read_text()[:30])
    elif damage == "swap keys":
        bad.write_text(bad.read_text().replace(keys[0], "K").replace(keys[1], keys[0]).replace("K", keys[1]))
    else:
        bad.write_text("")
    fresh = Store(store.root)
    assert len(verify(store.root)) == 1
    found, out = fresh.get(F, keys)
    assert found.tolist() == [False, False, True, True]
    np.testing.assert_array_equal(out[2:], x[2:])
    assert verify(store.root) == [] and not bad.exists()
    fresh.put(F, keys[:2], x[:2], 7)
    assert fresh.has(F, keys).all() and fresh.has(F, keys).all()


def test_a_shard_without_its_manifest_does_not_exist_and_old_leftovers_are_swept(store):
    store.put(F, [sha("a")], vectors(1), 7)
    manifest = next(store.root.rglob("*.json"))
    manifest.unlink()
    fresh, old = (manifest.with_name(f".{n}.tmp") for n in ("fresh", "old"))
    fresh.write_bytes(b"half")
    old.write_bytes(b"half")
    os.utime(old, (time.time() - STALE_SECONDS - 9,) * 2)
    assert not Store(store.root).has(F, [sha("a")]).any()
    assert fresh.exists() and not old.exists()


WRITER = """
import sys, numpy as np, hashlib
from pathlib import Path
from fusionrec.embeddings.store import Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
for n in range(10**6):
    keys = [hashlib.sha256(f"{n}-{i}".encode()).hexdigest() for i in range(50)]
    rows = np.array([[n + 1, i] + [1] * 400 for i in range(50)], np.float32)
    store.put(sys.argv[2], keys, rows, 402)
"""


def test_a_killed_writer_leaves_only_whole_shards(tmp_path):
    from hashlib import sha256

    for delay in (0.02, 0.13):
        shutil.rmtree(tmp_path / "s", ignore_errors=True)
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "s"), F], stdout=subprocess.PIPE)
        process.stdout.readline()
        deadline = time.monotonic() + 20
        while not list((tmp_path / "s").rglob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert verify(tmp_path / "s") == []
        found, out = Store(tmp_path / "s").get(F, [sha256(f"0-{i}".encode()).hexdigest() for i in range(50)])
        assert found.all() and out[:, 1].tolist() == list(range(50))


def test_two_writers_of_the_same_content_do_not_disturb_each_other(tmp_path):
    code = WRITER.replace("10**6", "12")
    command = [sys.executable, "-c", code, str(tmp_path / "s"), F]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [p.wait(60) for p in processes] == [0, 0]
    assert verify(tmp_path / "s") == [] and len(list((tmp_path / "s").rglob("*.json"))) == 12
    assert not list((tmp_path / "s").rglob("*.tmp"))

"""X07 to X10 end to end: broken media through ingest, gate and embedding. Every item is accounted for with a known
code, nothing is called over the network, and memory stays where it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from fusionrec.data import tables
from fusionrec.media import bounded
from fusionrec.media.base import MediaError
from fusionrec.types import item_order
from tests.media import catalogue, corpus

PATHS = {"image": "image_paths", "audio": "audio_path", "video": "video_path"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The corpus after all stages: its files, paths, reports, and how often the listener was called."""
    hits: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hits.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        files = corpus.files(server.server_address[1])
        paths = catalogue.write(tmp_path_factory.mktemp("corpus"), files)
        reports = catalogue.run(paths)
        server.shutdown()
    return SimpleNamespace(files=files, paths=paths, reports=reports, hits=hits)


def test_every_file_ends_with_its_code_in_the_quarantine(world):
    lines = pl.read_csv(world.paths.gate / "quarantine.csv")
    found = {(row["key"], row["column"]): row["code"] for row in lines.filter(pl.col("table") == "items").to_dicts()}
    expected = {
        (catalogue.item(one.kind, one.name), PATHS[one.kind]): one.code for one in world.files if one.code is not None
    }
    assert found == expected
    assert set(lines["stage"]) == {"validate"} and not lines["row"].any()
    summary = json.loads((world.paths.gate / "summary.json").read_text())
    assert sum(summary["codes"]["cells"]["items"].values()) == len(expected)


def test_no_item_vanishes_and_only_the_broken_modality_is_absent(world):
    summary = json.loads((world.paths.gate / "summary.json").read_text())
    account = summary["tables"]["items"]
    assert account == {"read": len(world.files), "accepted": len(world.files), "deduplicated": 0, "quarantined": 0}
    kept = {row["item_id"]: row for row in tables.accepted(world.paths, "items").to_dicts()}
    assert len(kept) == len(world.files)
    for one in world.files:
        row = kept[catalogue.item(one.kind, one.name)]
        assert (row[PATHS[one.kind]] is None) == (one.code is not None), one.name
        assert row["title"]


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_what_decodes_is_embedded_and_nothing_else(world, kind):
    folder = world.paths.embeddings / kind
    ids = tables.accepted(world.paths, "items")["item_id"].to_list()
    present = dict(zip(item_order(ids), np.load(folder / "present.npy").tolist(), strict=True))
    good = {catalogue.item(one.kind, one.name) for one in world.files if one.kind == kind and one.code is None}
    failed = set(pl.read_parquet(folder / "failed.parquet")["item_id"])
    assert {item for item, here in present.items() if here} | failed == good
    assert failed == set(), pl.read_parquet(folder / "failed.parquet").to_dicts()
    vectors = np.load(folder / "vectors.npy")
    assert np.isfinite(vectors).all()
    assert vectors.any(axis=1).sum() == len(good) == world.reports[kind].counts["present"]


def test_nobody_was_called(world):
    assert world.hits == []


def test_headers_say_what_the_files_are(world):
    rows = tables.accepted(world.paths, "items").to_dicts()
    formats = {row["item_id"]: row["image_format"] or row["audio_format"] or row["video_format"] for row in rows}
    assert formats["image-png-as.jpg"] == ["png 37x29"]
    assert formats["image-large.png"] == ["png 6000x5000"]
    assert formats["audio-24bit.wav"] == "wav, 3.3 s"
    assert formats["video-tenhours.mp4"] == "mp4 96x64, 2.0 s"
    assert formats["video-90.mp4"] is None


def test_a_second_run_decodes_nothing_and_gives_the_same_bytes(world):
    def data() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(world.paths.data.rglob("*")) if p.is_file()}

    before = data()
    reports = catalogue.run(world.paths)
    assert reports["ingest"].counts["media_read"] == reports["ingest"].counts["media_decoded"] == 0
    assert [reports[kind].counts["encoded"] for kind in PATHS] == [0, 0, 0]
    assert data() == before


def test_a_bomb_is_refused_from_its_header_in_no_time_and_no_memory():
    """200 million pixels in 80 bytes: below 100 ms and 50 MB in the child and here (X08)."""
    pool = bounded.Pool(size=1)
    pool.probe("image", corpus.encoded(corpus.texture(9, 7), "PNG"))
    (pid,) = pool.pids()
    bomb = corpus.png_header(20_000, 10_000)
    before, took = (peak(pid), peak(os.getpid())), []
    for _ in range(7):
        started = time.monotonic()
        with pytest.raises(MediaError) as caught:
            pool.decode("image", bomb)
        assert caught.value.code == "too_many_pixels"
        took.append(time.monotonic() - started)
    grown = [now - then for now, then in zip((peak(pid), peak(os.getpid())), before, strict=True)]
    pool.close()
    assert len(bomb) < 1024 and min(took) < 0.1 and max(grown) < 50 << 20


def peak(pid: int) -> int:
    """The largest resident size of a process so far, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def resident(root: int) -> int:
    """Resident bytes of a process and everything below it."""
    total, queue = 0, [root]
    while queue:
        pid = queue.pop()
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            queue += [int(p) for f in Path(f"/proc/{pid}/task").glob("*/children") for p in f.read_text().split()]
        except OSError:
            continue
    return total


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_peak_memory_is_within_300_mb_of_clean_files(tmp_path, repository):
    """Parent and children together, sampled every 10 ms, over ingest, gate and all three embeddings."""
    peaks = {}
    for name in ("clean", "broken"):
        command = [sys.executable, "-m", "tests.media.catalogue", str(tmp_path / name), name]
        process = subprocess.Popen(command, cwd=repository, stderr=subprocess.PIPE, text=True)
        most = 0
        while process.poll() is None:
            most = max(most, resident(process.pid))
            time.sleep(0.01)
        assert process.returncode == 0, process.stderr.read()[-2000:]
        peaks[name] = most
    assert peaks["broken"] - peaks["clean"] < 300e6, {name: f"{value / 2**20:.0f} MiB" for name, value in peaks.items()}
    (tmp_path / "peaks.json").write_text(json.dumps(peaks))

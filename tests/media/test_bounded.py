"""Decoders that crash, hang, eat memory or lie cost one file, never the parent; children never outlive it."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusionrec.errors import ConfigError
from fusionrec.media import bounded, image
from fusionrec.media.base import MediaError

HERE = Path(__file__).parent
LIMITS = bounded.Limits(seconds=1, wall=40, memory=300 << 20, result=1 << 20, requests=5)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], within: float) -> bool:
    end = time.monotonic() + within
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


@pytest.fixture(scope="module")
def pool(request) -> Iterator[bounded.Pool]:
    sys.path.insert(0, str(HERE))
    made = bounded.Pool("faulty", limits=LIMITS)
    yield made
    made.close()
    sys.path.remove(str(HERE))


def ask(pool: bounded.Pool, text: str, **settings: object) -> object:
    return pool.decode("decoder", text.encode(), **settings)


def code(pool: bounded.Pool, text: str) -> tuple[str, str]:
    with pytest.raises(MediaError) as caught:
        ask(pool, text)
    return caught.value.code, str(caught.value)


def test_values_cross_unchanged_and_settings_reach_the_decoder(pool):
    out = ask(pool, "array 1.5 nan -inf", times=2)
    assert out.dtype == np.float32 and out[0] == 3 and np.isnan(out[1]) and out[2] == -np.inf
    assert ask(pool, "array").shape == (0,)
    both = ask(pool, "two")
    assert both["rate"] == 7 and both["wave"].tolist() == [0, 1, 2, 3, 4]
    assert both["picture"].shape == (3, 0, 2) and both["picture"].dtype == np.uint8
    assert pool.probe("decoder", b"array 1 2") == "9 bytes?of text"
    with pytest.raises(TypeError, match="speed"):
        ask(pool, "array 1", speed=3)


@pytest.mark.parametrize(
    "text, expected, message",
    [
        ("crash", "decoder_crashed", "the decoder failed: it was ended by SIGSEGV"),
        ("exit 3", "decoder_crashed", "the decoder failed: it ended without an answer"),
        ("spin", "decoder_timeout", "not decoded within its CPU time"),
        ("eat 400", "decoder_memory", "it does not fit into the memory of a decoder"),
        ("raise", "undecodable", "anything at all"),
        ("refuse", "too_many_seconds", "found 9, expected 7?[31m"),
    ],
)
def test_what_goes_wrong_has_a_code_and_the_next_file_decodes(pool, text, expected, message):
    assert code(pool, text) == (expected, message)
    assert ask(pool, "array 7").tolist() == [7]


def test_a_decoder_that_sleeps_is_killed_by_the_clock():
    sys.path.insert(0, str(HERE))
    quick = bounded.Pool("faulty", size=1, limits=bounded.Limits(wall=0.3))
    started = time.monotonic()
    assert code(quick, "sleep 30") == ("decoder_timeout", "not decoded within 0.3 s")
    assert quick.pids() == [] and time.monotonic() - started < 20
    quick.close()
    sys.path.remove(str(HERE))


def frame(header: object, tail: bytes = b"") -> str:
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (struct.pack("<I", len(body)) + body + tail).hex()


@pytest.mark.parametrize(
    "answer",
    [
        frame(b"\x80\x04\x95."),
        struct.pack("<I", 1 << 31).hex(),
        frame([1]),
        frame(b"[" * 50_000),
        frame({"meta": None, "arrays": [["|O", [1]]]}),
        frame({"meta": None, "arrays": [["<f4", [-1, -1]]]}),
        frame({"meta": None, "arrays": [["<f4", [True]]]}),
        frame({"meta": None, "arrays": [["<f4", [1 << 10, 1 << 10]]]}),  # 4 MiB of 1 MiB
        frame({"meta": None, "arrays": [["<f4", [1 << 62, 1 << 62]]]}),
        frame({"meta": None, "arrays": [["<f4", [1]]] * 3}, bytes(12)),
        frame({"meta": {"rate": 1}, "arrays": []}),
        frame({"meta": None, "arrays": "all"}),
        frame({"arrays": []}),
        frame({"error": ["x"], "message": 1}),
        frame({"error": "DROP TABLE"}),
        frame({"error": None}),
    ],
)
def test_an_answer_that_no_decoder_gives_is_a_crash(pool, answer):
    assert code(pool, f"raw {answer}")[0] == "decoder_crashed"
    assert ask(pool, "array 7").tolist() == [7]


def test_pickle_has_no_part_in_it():
    for name in ("bounded", "child"):
        text = (Path(bounded.__file__).parent / f"{name}.py").read_text()
        assert "import pickle" not in text and "multiprocessing" not in text


def test_a_child_opens_no_file_reaches_no_network_and_keeps_its_limits(pool, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    (tmp_path / "file").write_bytes(b"abc")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        pid, *reached = ask(pool, f"reach {tmp_path / 'file'} {listener.getsockname()[1]}").tolist()
        with pytest.raises(TimeoutError):
            listener.accept()
    assert reached == [0, 0, 0, 0] and pid != os.getpid()
    fresh = bounded.Pool("faulty", size=1, limits=LIMITS)
    variables, secret, torch, polars = ask(fresh, "environment").tolist()
    fresh.close()
    assert (secret, torch, polars) == (0, 0, 0) and variables < 10


def test_children_are_reused_replaced_after_their_share_and_never_more_than_the_size(pool):
    pool.close()
    ask(pool, "array 1")
    (first,) = pool.pids()
    for _ in range(3):
        ask(pool, "array 1")
    assert pool.pids() == [first]
    ask(pool, "array 1")  # the fifth of LIMITS.requests
    assert pool.pids() == []
    assert gone([first], 5)
    with ThreadPoolExecutor(6) as threads:
        values = list(threads.map(lambda n: ask(pool, f"array {n}").tolist(), range(23)))
    assert values == [[n] for n in range(23)]
    assert len(pool.pids()) <= pool.size


def test_a_child_that_died_while_idle_is_nobodys_fault(pool):
    pool.close()
    ask(pool, "array 1")
    (pid,) = pool.pids()
    os.kill(pid, signal.SIGKILL)
    assert gone([pid], 5)
    assert ask(pool, "array 8").tolist() == [8]


def test_close_ends_idle_children_and_lets_a_busy_one_answer(pool):
    pool.close()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask(pool, "sleep 0.7")))
    thread.start()
    ask(pool, "array 1")
    idle = pool.pids()
    time.sleep(0.2)
    pool.close()
    assert gone(idle, 5)
    thread.join()
    assert len(answers) == 1 and pool.pids() == []


def test_close_now_ends_a_decode_that_hangs(pool):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(code(pool, "sleep 3.5")[0]))
    started = time.monotonic()
    thread.start()
    while not pool._busy:
        time.sleep(0.01)
    time.sleep(0.1)
    pool.close(now=True)
    thread.join()
    assert codes == ["decoder_crashed"] and time.monotonic() - started < 3


def test_a_decoder_that_cannot_start_is_an_error_of_the_installation_not_of_the_file(pool):
    sys.modules["faulty.unprepared"] = sys.modules["faulty.decoder"]  # the parent's half imports; the child's does not
    with pytest.raises(ConfigError, match="does not start: ModuleNotFoundError.*no_such_package"):
        pool.decode("unprepared", b"array 1")
    del sys.modules["faulty.unprepared"]


def test_children_of_a_killed_parent_are_gone_within_five_seconds(tmp_path):
    """One idle, one that sleeps in the middle of a decode; started by threads that have ended."""
    script = textwrap.dedent(f"""
        import sys, threading, time
        sys.path.insert(0, {str(HERE)!r})
        from fusionrec.media.bounded import Pool
        pool = Pool("faulty")
        one = threading.Thread(target=lambda: pool.decode("decoder", b"array 1"))
        one.start(); one.join()
        threading.Thread(target=lambda: pool.decode("decoder", b"sleep 50"), daemon=True).start()
        time.sleep(0.3)
        pool.decode("decoder", b"array 1")
        time.sleep(0.2)
        print("up", flush=True)
        time.sleep(50)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "up\n"
    children = [int(p) for p in Path(f"/proc/{parent.pid}/task").glob("*/children") for p in p.read_text().split()]
    assert len(children) == 2 and all(map(alive, children))
    parent.kill()
    parent.wait()
    assert gone(children, 5)


def test_pictures_come_back_as_they_would_in_this_process():
    rng = np.random.default_rng(3)
    picture = Image.fromarray(rng.integers(0, 255, (37, 53, 3), np.uint8))
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        buffer = io.BytesIO()
        picture.save(buffer, form)
        data = buffer.getvalue()
        np.testing.assert_array_equal(np.asarray(bounded.decode("image", data)), np.asarray(image.decode(data)))
        assert bounded.probe("image", data) == f"{form.lower()} 53x37"
    with pytest.raises(MediaError) as caught:
        bounded.decode("image", data, max_pixels=100)
    assert caught.value.code == "too_many_pixels"


def test_a_child_is_small():
    pool = bounded.Pool(size=1)
    started = time.monotonic()
    with pytest.raises(MediaError):
        pool.probe("image", b"GIF89a" + bytes(9))
    took = time.monotonic() - started
    (pid,) = pool.pids()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    pool.close()
    assert int(status["VmHWM"].split()[0]) < 80_000 and took < 20

"""``make up`` on a small demo whose titles are hostile, and a Chromium in front of it (``make test-browser``)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.e2e.conftest import Project, lay_out

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--disable-quic", "--no-first-run"]
HOSTILE = (
    "<script>alert('title')</script>",
    "<img src=x onerror=alert('picture')>",
    '"><svg onload=alert(1)>',
    "{{constructor.constructor('alert(1)')()}}",
    "javascript:alert(1)",
)
HOSTILE_ID = "<img src=x onerror=alert('id')>"


@dataclass
class Up:
    """A running ``fusionrec up``: addresses by name, and its process."""

    project: Project
    process: subprocess.Popen[str]
    urls: dict[str, str]
    seconds: float
    log: Path


@dataclass
class Watched:
    """A page, with what must never happen on it: dialogs, and requests to anything but loopback."""

    page: Any
    dialogs: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def shot(self, name: str, **how: Any) -> None:
        """A screenshot where FUSIONREC_SCREENSHOTS names a folder."""
        if folder := os.environ.get("FUSIONREC_SCREENSHOTS"):
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"), **how)


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports


def make_hostile(project: Project) -> None:
    """Titles and categories of some items become what an attacker would upload."""
    file = project.folder / "data/raw/atelier/items.csv"
    items = pl.read_csv(file, infer_schema=False)
    rows = pl.int_range(len(items))
    title = pl.col("title")
    for number, text in enumerate(HOSTILE):
        title = pl.when(rows % 7 == number).then(pl.lit(f"{text} ") + pl.col("title").fill_null("")).otherwise(title)
    brand = pl.when(rows % 5 == 0).then(pl.lit(HOSTILE[1])).otherwise(pl.col("brand"))
    items.with_columns(title.alias("title"), brand.alias("brand")).write_csv(file)
    # Two rows with one hostile id and other content: the gate sets one aside, and its page must show the id as text.
    one = items.head(1).with_columns(pl.lit(HOSTILE_ID).alias("item_id"))
    added = pl.concat([one, one.with_columns(pl.lit("another").alias("brand"))])
    text = file.read_text(encoding="utf-8")
    file.write_text(text + added.write_csv(include_header=False), encoding="utf-8")
    project.run("dvc", "add", "-q", "data/raw/atelier")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    project = lay_out(tmp_path_factory.mktemp("browser") / "shop")
    project.run("fusionrec", "demo-data", "--items", "200", "--users", "400")
    make_hostile(project)
    project.run("fusionrec", "repro", timeout=900)
    project.run("fusionrec", "demo-batch", "darker_pictures", "--items", "120")
    names = ("PREFECT", "MLFLOW", "EVIDENTLY", "PAGE")
    ports = dict(zip(names, free_ports(4), strict=True))
    project.environment |= {f"FUSIONREC_{name}_PORT": str(port) for name, port in ports.items()}
    log = project.folder / "up.log"
    begin = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "fusionrec", "up"],
            cwd=project.folder,
            env=project.environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
    try:
        while "ready in" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, log.read_text(encoding="utf-8")[-3000:]
            assert time.monotonic() - begin < 240, log.read_text(encoding="utf-8")[-3000:]
            time.sleep(0.5)
        urls = {name.lower(): f"http://127.0.0.1:{port}" for name, port in ports.items()}
        yield Up(project, process, urls, time.monotonic() - begin, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def watched(browser: Any) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    page = context.new_page()
    watched = Watched(page)

    def on_dialog(dialog: Any) -> None:
        watched.dialogs.append(dialog.message)
        dialog.dismiss()

    def route(route: Any) -> None:
        if route.request.url.startswith(("http://127.0.0.1:", "http://localhost:", "data:", "blob:", "about:")):
            route.continue_()
        else:
            watched.outside.append(route.request.url)
            route.abort()

    context.on("page", lambda other: other.on("dialog", on_dialog))
    page.on("dialog", on_dialog)
    context.route("**/*", route)
    page.set_default_timeout(60_000)
    yield watched
    context.close()
    assert watched.dialogs == []

"""Every command in README and docs runs as it is written, in a copy of the repository.

A block is left out by `<!-- not run: reason -->` on the line before it, and runs only with HEAVY=1 (make test-docs)
after `<!-- heavy: reason -->`. The blocks of one file run in order in one copy.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "data" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(
    r"(?:<!-- (?P<mark>not run|heavy): (?P<why>.+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    page: Path
    number: int
    text: str
    mark: str | None
    why: str | None


def blocks(page: Path) -> list[Block]:
    """The bash blocks of a page."""
    found = [m for m in FENCE.finditer(page.read_text(encoding="utf-8")) if m["language"] in ("bash", "sh", "console")]
    return [Block(page, n, m["text"], m["mark"], m["why"]) for n, m in enumerate(found, 1)]


BLOCKS = [b for page in PAGES for b in blocks(page)]


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory):
    """page -> a fresh copy of what git tracks (a clone, with the changes that are not committed yet)."""
    made: dict[Path, Path] = {}

    def copy(page: Path) -> Path:
        if page not in made:
            folder = tmp_path_factory.mktemp("clone")
            tracked = subprocess.run(
                ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
            ).stdout.decode()
            for name in filter(None, tracked.split("\0")):
                if (ROOT / name).is_file():
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / name, folder / name)
            subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
            made[page] = folder
        return made[page]

    return copy


def environment(folder: Path) -> dict[str, str]:
    """As a user's shell with the environment active; `make` takes the same environment."""
    bin_ = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "DVC_SITE_CACHE_DIR": str(folder / ".fusionrec" / "dvc-site"),
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join([str(folder / "src"), str(folder)]),
        "MAKEFLAGS": f"VENV={Path(bin_).parent}",
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: f"{b.page.relative_to(ROOT)}#{b.number}")
def test_block_runs(block: Block, copies) -> None:
    if block.mark == "not run":
        assert block.why
        return
    if block.mark == "heavy" and os.environ.get("HEAVY") != "1":
        pytest.skip(f"{block.why}; set HEAVY=1 (make test-docs)")
    folder = copies(block.page)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def test_the_two_commands_are_in_the_readme() -> None:
    commands = [line for b in blocks(ROOT / "README.md") for line in b.text.splitlines()]
    assert "make demo" in commands
    assert "make test" in commands
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert {c.split()[1] for c in commands if c.startswith("make ")} <= set(targets)


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_files_that_pages_name_exist() -> None:
    missing = []
    for page in PAGES:
        for name in re.findall(
            r"`((?:src|tests|recipes|flows|\.ci)/[\w./-]+?\.\w+)`", page.read_text(encoding="utf-8")
        ):
            if "NAME" not in name and not (ROOT / name).exists():
                missing.append(f"{page.name}: {name}")
    assert missing == []


def test_every_fence_is_seen() -> None:
    """A block that the pattern above misses would never run."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(FENCE.findall(text)) * 2 == len(re.findall(r"^```", text, re.M)), page.name


def test_a_failing_block_fails(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "false | cat\ntrue"], cwd=tmp_path, env=environment(tmp_path)
    )
    assert done.returncode != 0

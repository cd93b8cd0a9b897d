"""Writes the demo catalogue and records it with DVC, and batches to watch. No stages: they make what others read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fusionrec.errors import ConfigError, UsageError
from fusionrec.paths import Paths
from fusionrec.stages.lock import default_wait, folder_lock, project_lock
from fusionrec.stages.process import child_environment


def write(
    paths: Paths, out: Path, *, seed: int, items: int | None, users: int | None, strengths: Mapping[str, float]
) -> str:
    """Generate into ``out`` (relative to the project), with the truth beside it; ``dvc add`` it inside a DVC project.

    Returns what was done in a sentence.
    """
    from fusionrec import demo

    folder = _place(paths, out)
    sizes = {name: value for name, value in (("n_items", items), ("n_users", users)) if value is not None}
    with project_lock(paths.home, "demo-data", default_wait()):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _bar() as progress:
            demo.write(folder, _truth(paths), seed=seed, strengths=dict(strengths) or None, progress=progress, **sizes)
        inside = folder.is_relative_to(paths.project.resolve()) and (paths.project / ".dvc").is_dir()
        if inside:
            _dvc_add(paths, folder.relative_to(paths.project.resolve()))
    return f"wrote {out}" + (" and recorded it with dvc add" if inside else "")


def write_batch(paths: Paths, kind: str, out: Path | None, *, seed: int, items: int | None) -> str:
    """Generate a batch of this kind into ``out`` (default data/batches/KIND); what was done in a sentence.

    A batch is nothing that the pipeline reads: DVC does not hear of it, and it is made beside a running pipeline. It
    appears whole, by renaming. Raises Busy where this very folder is being written, or read by a drift check.
    """
    from fusionrec.demo import batches

    batches.check(kind)
    folder = _place(paths, out or Path("data", "batches", kind))
    with folder_lock(paths.home, folder, "fusionrec demo-batch"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sizes = {} if items is None else {"n_items": items}
        with _bar() as progress:
            counts = batches.write(folder, _truth(paths), kind, seed=seed, progress=progress, **sizes)
    told = ", ".join(f"{n:,} {name.removeprefix('files.')}" for name, n in counts.items())
    return f"wrote {out or Path('data', 'batches', kind)} ({told}): {batches.KINDS[kind]}"


def _place(paths: Paths, out: Path) -> Path:
    folder = (paths.project / out).resolve()
    if folder == paths.project.resolve() or paths.home.resolve() in [folder, *folder.parents]:
        raise UsageError(f"--out {out} is not a place for a catalogue")
    return folder


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar for media files; silent where nobody looks."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("media files", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _truth(paths: Paths) -> Path:
    """Where the true preference is kept: private, outside everything a stage reads."""
    return paths.home / "truth"


def _dvc_add(paths: Paths, relative: Path) -> None:
    done = subprocess.run(  # noqa: S603  (a list, no shell)
        [sys.executable, "-m", "dvc", "add", "-q", "--", str(relative)],
        cwd=paths.project,
        env=child_environment(paths.home),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ConfigError(f"dvc add {relative}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")

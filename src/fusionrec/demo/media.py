"""Renders the media files of items, in worker processes.

Every file has its own random stream from (seed, kind, item), so the bytes do not depend on the number of
workers nor on the order of work.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from fusionrec.demo import clips, pictures, sounds
from fusionrec.demo.factors import CATEGORIES, FACTORS, stream
from fusionrec.demo.world import Items

KINDS = {"image": ("images", "jpg"), "audio": ("audio", "wav"), "video": ("video", "mp4")}
Job = tuple[int, str, int, str, dict[str, str], str]
"""seed, kind, item row, category, factor values of the item by name, file name"""
Renderer = Callable[[Job], bytes]


def path(items: Items, kind: str, row: int) -> str | None:
    """The media file of an item relative to the catalogue, or None where the item lacks it."""
    folder, suffix = KINDS[kind]
    return f"{folder}/{items.ids[row]}.{suffix}" if items.present[kind][row] else None


def jobs(items: Items, seed: int) -> list[Job]:
    """All files to render."""
    out: list[Job] = []
    for row in range(len(items)):
        values = {
            name: options[items.factors[modality][name][row]]
            for modality in KINDS
            for name, options in FACTORS[modality].items()
        }
        for kind in KINDS:
            name = path(items, kind, row)
            if name:
                out.append((seed, kind, row, CATEGORIES[items.category[row]], values, name))
    return out


def draw(job: Job) -> bytes:
    """The bytes of one file."""
    seed, kind, row, category, values, _ = job
    rng = stream(seed, kind, row)
    look = {name: values[name] for name in FACTORS["image"]}
    if kind == "image":
        return pictures.jpeg(pictures.render(rng, category, look))
    if kind == "audio":
        return sounds.wav(sounds.render(rng, values["timbre"], values["tempo"], values["grit"]))
    return clips.mp4(clips.render(rng, category, look, values["motion"], values["speed"]))


def _write(root: str, batch: list[Job], renderer: Renderer) -> int:
    for job in batch:
        (Path(root) / job[-1]).write_bytes(renderer(job))
    return len(batch)


def write(
    root: Path,
    work: list[Job],
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    renderer: Renderer = draw,
) -> None:
    """Render every job below ``root``; ``progress(done, total)`` is called now and then. ``renderer`` must be
    importable by the worker processes."""
    for folder, _ in KINDS.values():
        (root / folder).mkdir()
    batches = [work[k : k + 16] for k in range(0, len(work), 16)]
    done = 0
    for count in _run(str(root), batches, workers, renderer):
        done += count
        if progress:
            progress(done, len(work))


def _run(root: str, batches: list[list[Job]], workers: int, renderer: Renderer) -> Iterator[int]:
    if workers <= 1:
        yield from (_write(root, batch, renderer) for batch in batches)
        return
    # spawn: the caller may have threads (polars, torch), which a forked child must not inherit half-way
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(_write, [root] * len(batches), batches, [renderer] * len(batches))

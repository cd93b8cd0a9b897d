"""What is wrong with a batch: each kind of drift changes one thing in the files of new items, and nothing else.

Rendering workers import this file, so it needs no tables.
"""

from __future__ import annotations

import numpy as np

from fusionrec.demo import clips, media, pictures, sounds
from fusionrec.demo.factors import FACTORS, stream

KINDS = {
    "none": "new items as the old ones were",
    "darker_pictures": "every picture at 0.55 of its brightness (a new photo studio)",
    "other_language": "every text in Chinese (a supplier who writes nothing else); before, half were English",
    "louder_audio": "every sound three times as loud, cut off at full scale (a supplier who masters to the limit)",
    "slower_motion": "every movement in the clips at a third of its pace",
    "new_category": "six items in ten are bottles, which the shop never sold: drawn, filmed and named so",
    "shifted_taste": "people want other things than before, all of them a little of the same; items are as before",
    "outage_image": "nine pictures in ten are missing",
    "outage_audio": "nine sounds in ten are missing",
    "outage_text": "nine texts in ten are missing",
    "outage_video": "nine clips in ten are missing",
    "broken_files": "a third of the media files is cut in half, empty, or an error page",
}
DARKER, LOUDER, SLOWER = 0.55, 3.0, 1 / 3
BROKEN = 1 / 3
ERROR_PAGE = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>upstream timed out</body></html>\n"


def draw(kind: str, job: media.Job) -> bytes:
    """The bytes of one file of a batch of this kind; those of :func:`media.draw` where the kind does not concern it."""
    seed, what, row, category, values, _ = job
    rng = stream(seed, what, row)
    look = {name: values[name] for name in FACTORS["image"]}
    if (kind, what) == ("darker_pictures", "image"):
        return pictures.jpeg((pictures.render(rng, category, look) * DARKER).astype(np.uint8))
    if (kind, what) == ("louder_audio", "audio"):
        sound = sounds.render(rng, values["timbre"], values["tempo"], values["grit"])
        return sounds.wav(np.clip(LOUDER * sound, -1, 1))
    if (kind, what) == ("slower_motion", "video"):
        return clips.mp4(clips.render(rng, category, look, values["motion"], values["speed"], pace=SLOWER))
    data = media.draw(job)
    return _broken(stream(seed, "broken", what, row), data) if kind == "broken_files" else data


def _broken(rng: np.random.Generator, data: bytes) -> bytes:
    if rng.random() >= BROKEN:
        return data
    return (data[: len(data) // 2], b"", ERROR_PAGE)[int(rng.integers(3))]

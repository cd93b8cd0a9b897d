"""What is planted: the factors of every modality, their values, and the random streams they are drawn from.

A factor belongs to exactly one modality and is visible in no other. The category (the drawn shape, the noun
of the text) is public and carries no taste.
"""

from __future__ import annotations

import zlib

import numpy as np

CATEGORIES = ("vase", "mug", "lamp", "tote", "bowl", "cushion")

FACTORS: dict[str, dict[str, tuple[str, ...]]] = {
    "text": {
        "occasion": ("wedding", "camping", "office", "children", "dinner", "meditation"),
        "origin": ("japan", "italy", "mexico", "china", "sweden", "morocco"),
        "voice": ("poetic", "technical", "playful", "luxury"),
    },
    "image": {
        "colour": ("red", "orange", "yellow", "green", "blue", "purple", "ivory", "charcoal"),
        "pattern": ("plain", "stripes", "dots", "checks", "floral"),
        "finish": ("matte", "glossy", "wood", "woven"),
    },
    "audio": {
        "timbre": ("pluck", "bell", "bowed", "flute", "organ"),
        "tempo": ("drone", "slow", "medium", "fast"),
        "grit": ("clean", "hiss", "drive"),
    },
    "video": {
        "motion": ("still", "pan", "zoom", "spin", "bounce"),
        "speed": ("slow", "medium", "fast"),
    },
    "attributes": {
        "brand": (
            "Alder & Finch",
            "Bramhall",
            "Corvina",
            "Dunmore",
            "Esker",
            "Fjordby",
            "Galvane",
            "Hestia",
            "Ilmari",
            "Juniper Row",
            "Kestrel",
            "Lumen Hall",
        ),
        "price_band": ("budget", "everyday", "select", "premium"),
    },
}

PRESENT = {"text": 0.95, "image": 0.92, "audio": 0.55, "video": 0.25, "attributes": 1.0}
"""The share of items that have each modality."""

STRENGTHS = {
    "text": 1.5,
    "image": 1.5,
    "audio": 1.5,
    "video": 1.5,
    "attributes": 0.5,
    "collaborative": 0.8,
    "appeal": 0.6,
}
"""Standard deviation, in logits, of each part of the utility where it is present."""

LANGUAGES = ("en", "zh")


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """An independent generator per (seed, name, ...): drawing more from one never shifts another."""
    keys = [n if isinstance(n, int) else zlib.crc32(n.encode()) for n in names]
    return np.random.default_rng([seed, *keys])

"""The sentences of a verdict. Pure; names of columns and categories come in as text and are shortened and made
printable here."""

from __future__ import annotations

from fusionrec.data.schema import printable

# what, when it grows, when it shrinks, what is named, unit; by what the modality's encoder reads
NUMBERS: dict[tuple[str, str], tuple[str, str, str, str]] = {
    ("text", "length"): ("texts are longer", "texts are shorter", "mean length", "characters"),
    ("image", "brightness"): ("pictures are brighter", "pictures are darker", "mean brightness", ""),
    ("image", "contrast"): ("pictures have more contrast", "pictures have less contrast", "mean contrast", ""),
    ("image", "saturation"): ("pictures are more colourful", "pictures are paler", "mean saturation", ""),
    ("image", "width"): ("pictures are wider", "pictures are narrower", "mean width", "pixels"),
    ("image", "height"): ("pictures are taller", "pictures are lower", "mean height", "pixels"),
    ("audio", "duration"): ("sounds are longer", "sounds are shorter", "mean duration", "s"),
    ("audio", "loudness"): ("sounds are louder", "sounds are quieter", "mean loudness", "dB"),
    ("audio", "spectral centroid"): ("sounds are brighter", "sounds are duller", "mean spectral centroid", "Hz"),
    ("video", "duration"): ("clips are longer", "clips are shorter", "mean duration", "s"),
    ("video", "motion energy"): ("clips move more", "clips move less", "mean motion energy", ""),
}
LOOKS = {
    "text": "texts say other things",
    "image": "pictures show other things",
    "audio": "sounds are of another kind",
    "video": "clips are of another kind",
    "attributes": "items have other attributes",
}


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value != value or value in (float("inf"), float("-inf")):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(share: float) -> str:
    """A share as a percentage; small ones keep a digit."""
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def of_number(part: str, reads: str, name: str, before: float, after: float) -> str:
    """``pictures are darker: mean brightness 0.71 -> 0.42``."""
    known = NUMBERS.get((reads, name))
    if known is None:
        way = "higher" if after >= before else "lower"
        return f"{part}: {printable(name, 40)} is {way}: mean {number(before)} -> {number(after)}"
    grows, shrinks, named, unit = known
    way, unit = grows if after >= before else shrinks, f" {unit}" if unit else ""
    return f"{way}: {named} {number(before)} -> {number(after)}{unit}"


def of_share(part: str, name: str, value: str, before: float, after: float) -> str:
    """``attributes: share of category 'lamp' 0 % -> 31 %``."""
    return f"{part}: share of {printable(name, 40)} {printable(value, 40)!r} {percent(before)} -> {percent(after)}"


def of_vectors(part: str, reads: str, auc: float) -> str:
    return f"{LOOKS.get(reads, f'{part}: the vectors differ')}: a classifier tells new from old with AUC {auc:.2f}"


def of_missing(name: str, before: float, after: float) -> str:
    """``image given`` -> ``image is missing more often: for 8 % -> 70 % of the items``, and so for ``readable``."""
    modality, _, what = name.rpartition(" ")
    way = "more" if after > before else "less"
    change = f"{percent(before)} -> {percent(after)}"
    if what == "readable":
        return f"files that cannot be read ({modality}): {change} of those given"
    return f"{modality} is missing {way} often: for {change} of the items"

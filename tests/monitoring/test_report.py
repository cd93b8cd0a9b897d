"""The page: what it says, and that texts from data are only ever text."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

from fusionrec.monitoring.compare import Comparison
from fusionrec.monitoring.descriptors import Column
from fusionrec.monitoring.drift import Pair
from fusionrec.monitoring.report import Page, histograms, render
from fusionrec.monitoring.verdict import Measure, judge

HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(2)>"


def comparison(name: str = "brightness", value: str = "mug") -> Comparison:
    numbers = Column("image", name, np.zeros(3))
    words = Column("attributes", name, np.array(["x"], object))
    rng = np.random.default_rng(0)
    pairs = (
        Pair(numbers, rng.normal(0.7, 0.1, 90), rng.normal(0.4, 0.1, 70)),
        Pair(words, np.array([value] * 9, object), np.array(["lamp"] * 7, object)),
        Pair(Column("image", "width", np.zeros(3)), np.zeros(0), np.zeros(0), "constant"),
    )
    measures = [
        Measure("image", name, p=1e-9, effect=2.0, words=f"pictures are darker: {value}"),
        Measure("attributes", name, p=1e-9, effect=1.0, words=f"share of {value}", before=value, after=value),
        Measure("text", "length", p=0.4, effect=0.1),
        Measure("image", "width", why=f"constant {value}"),
    ]
    return Comparison(judge(measures, 0.05, 0.2), pairs)


class Elements(HTMLParser):
    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def page(found: Comparison, facts: str = "a folder") -> bytes:
    return render(Page(found, {"batch": facts}, 0.2, 0.05))


def test_the_verdict_stands_on_top_with_its_reasons() -> None:
    text = " ".join(Elements(page(comparison())).text.split())
    assert (
        text.index("Drift in image: pictures are darker: mug.")
        < text.index("share of mug")
        < text.index("Not computable")
    )
    assert "constant mug" in text and "at least 0.20 standard deviations" in text and "share 5 %" in text


def test_hostile_texts_stay_texts() -> None:
    plain, hostile = Elements(page(comparison())), Elements(page(comparison(HOSTILE, HOSTILE), HOSTILE))
    assert plain.tags == hostile.tags and "script" not in hostile.tags
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]
    assert HOSTILE in hostile.text
    sources = [v for k, v in hostile.attributes if k == "src"]
    assert sources and all((s or "").startswith("data:image/svg+xml;base64,") for s in sources)


def test_nothing_is_loaded() -> None:
    first = page(comparison())
    assert b"default-src 'none'; img-src data:" in first and b"http" not in first.replace(b"http-equiv", b"")


def test_each_alarmed_descriptor_gets_a_before_and_after() -> None:
    assert [h["title"] for h in histograms(comparison())] == ["pictures are darker: mug", "share of mug"]


def test_without_drift_and_without_anything() -> None:
    calm = Comparison(judge([Measure("text", "length", p=0.4, effect=0.1)], 0.05, 0.2), ())
    assert "No drift: none of 1 comparisons" in Elements(page(calm)).text
    nothing = Comparison(judge([Measure("reference", "tables", why="data/tables is missing")], 0.05, 0.2), ())
    assert "could not be computed: reference, tables: data/tables is missing" in Elements(page(nothing)).text

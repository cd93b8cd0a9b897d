"""The page: complete, self-contained, inert whatever the catalogue says; pictures; plots."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from fusionrec.evaluation import charts, drawings, plots, report
from fusionrec.evaluation import story as told
from fusionrec.evaluation.pictures import thumbnail


class Page(HTMLParser):
    """Elements, attributes and text of a page as a browser would build them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]

    def handle_data(self, data):
        self.text.append(data)


def story(**changes):
    row = {"n": 9, "mean": 0.4, "low": 0.3, "high": 0.5}
    table = [
        {"model": m, "label": label, "slice": part, "metric": metric, **row}
        for m, label in (("popularity", "popularity (floor)"), ("model", "fused"))
        for part in ("all", "cold_only")
        for metric in ("recall@10", "ndcg@20")
    ]
    tests = {
        "comparisons": [
            {
                "against": "popularity",
                "label": "popularity (floor)",
                "difference": 0.1,
                "low": 0.05,
                "high": 0.2,
                "n": 9,
                "p": 0.01,
                "p_holm": 0.01,
                "verdict": "better",
            }
        ],
        "cold_only": {"metric": "recall@10", "random": 0.1, "models": [], "ratio": None},
        "ceiling": {"note": "no ceiling for this data"},
    }
    facts = {
        "train": 12_345,
        "users": 9,
        "n_items": 7,
        "pairs": 8,
        "asked": 9,
        "cold_items": 2,
        "cold_pairs": 3,
        "protocol": {"split": "x"},
    }
    return replace(told.Story("fused", ("text",), "ndcg@20", facts, table, tests), **changes)


def test_hostile_words_stay_words(evaluated, hostile):
    params, paths, _, _ = evaluated
    html = (paths.evaluation / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert not {"script", "iframe", "object", "embed", "svg", "link", "base", "form", "b>"} & set(page.tags)
    assert [a for a in page.attributes if a[1].startswith("on")] == []
    assert all(value.startswith("data:image/") for tag, name, value in page.attributes if name in ("src", "href"))
    assert any(hostile in text for text in page.text), "the title must be readable as it is"
    assert "<b>lamps</b>" in page.text and "红木 台灯" in page.text and "49" not in page.text


HOSTILE_WORDS = [
    '"><img src=x onerror=alert(1)>',
    "</style><script>1</script>",
    "{% include 'x' %}",
    "\x00\ud800",
    "' onx='",
]


def everything(words):
    """A story in which every text that a catalogue or a params.yaml can bring is one of ``words`` (all different)."""
    numbers = {"loss": 0.1, "low": 0.05, "high": 0.2, "full": 0.4, "masked": 0.3, "n": 9, "p": 0.01}
    items = [told.Shown(word, word, None, True, True, {word: True}, word) for word in words]
    ratio = {"value": 2.0, "low": 1.0, "high": 3.0}
    made = story(
        label=words[0],
        modalities=words,
        samples=[told.Sample(items, items, 3, 1)],
        knockouts=[
            {"modality": w, "slice": part, **numbers}
            for w in words
            for part in ("all", "all_has_it", "cold_only_has_it")
        ],
        carried=dict.fromkeys(words, 0.5),
        missing=[
            {"hidden": w, "share": share, "score": 0.4, "low": 0.3, "high": 0.5, "n": 9}
            for w in ("every modality", *words)
            for share in (0.0, 0.3)
        ],
        beyond=[  # fmt: skip
            {
                "model": w,
                "label": w,
                "k": 20,
                "coverage": 0.1,
                "gini": 0.5,
                "novelty": 3.0,
                "popularity": 0.1,
                "diversity": None,
                "serendipity": 0.01,
                "popular": 0.2,
                "new": None,
            }
            for w in words
        ],
        categories=[
            {"category": w, "model": m, "label": m, "choices": 7, "n": 5, "mean": 0.1, "low": None, "high": None}
            for w in words
            for m in words
        ],
        by_k=[{"model": w, "label": w, "k": k, "recall": 0.1, "ndcg": 0.1} for w in words for k in (1, 5)],
        exposure=[{"model": w, "label": w, "band": "head", "share": 1.0} for w in words],
    )
    table = [{**row, "label": f"{row['label']} {words[0]}"} for row in made.table]
    tests = {**made.tests, "ceiling": {"note": words[0]}}
    tests["comparisons"] = [{**c, "label": words[0]} for c in tests["comparisons"]]
    models = [{"model": "model", "label": words[0], "mean": 0.4, "ratio": ratio, "p": 0.01}]
    tests["cold_only"] = {**tests["cold_only"], "models": models, "ratio": ratio}
    return replace(made, table=table, tests=tests)


def test_injection_adds_no_element():
    def page(words):
        return Page(report.render(everything(words)).decode("utf-8"))

    evil, tame = page(HOSTILE_WORDS), page([f"x{n}" for n in range(len(HOSTILE_WORDS))])
    assert evil.tags == tame.tags
    assert [a[:2] for a in evil.attributes] == [a[:2] for a in tame.attributes]
    text = "".join(evil.text)
    assert "alert(1)" in text and "{% include 'x' %}" in text, "hostile words are shown, as words"


def test_shows_what_an_item_has_and_why_it_is_there(evaluated):
    """Marks and reasons of the drawn users, against the catalogue and the knock-out."""
    _, paths, _, world = evaluated
    page = Page((paths.evaluation / "report.html").read_text(encoding="utf-8"))
    kinds = [value for tag, name, value in page.attributes if tag == "span" and name == "class"]
    titles = [value for _, name, value in page.attributes if name == "title"]
    assert kinds.count("mark off") == titles.count("image: missing") > 0
    assert titles.count("text: there") == titles.count("image: there") + titles.count("image: missing") > 40
    said = {"history", "popularity", "several", "image", "text"}
    reasons = [t for t in page.text if t in said]
    assert len(reasons) >= 30 and {"text", "several"} & set(reasons)


def test_new_items_and_users_and_missing_content_are_told(evaluated):
    _, paths, done, _ = evaluated
    html = (paths.evaluation / "report.html").read_text(encoding="utf-8")
    text = " ".join("".join(Page(html).text).split())
    assert (
        f"{done.counts['cold_items']} of 110 items have no training history" in text
        and "of what people took is among the first 10" in text
    )
    assert "with 1 to 3 earlier choices NDCG@20 is" in text
    assert "Without text (100 % of the items have it) the model loses over all choices" in text
    assert "with everything there" in text and "with 60 % missing" in text
    assert "comparison.html" in text and "what users took" in text
    assert html.count("data:image/svg+xml;base64,") == 9, "every chart is drawn"


def test_policy_forbids_everything_but_inline_style_and_data_pictures():
    html = report.render(story()).decode()
    assert "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in html
    assert not re.search(r"https?://|<script|javascript:", html)


def test_says_what_matters(evaluated):
    _, paths, told, _ = evaluated
    text = " ".join(Page((paths.evaluation / "report.html").read_text(encoding="utf-8")).text)
    assert "fused (content: image + text)" in text and "no ceiling for this data" in text
    for row in told.table:
        assert row["model"] in text
        assert row["NDCG@20"].split(" ")[0] in text
    assert text.count("Recommended now") == 5


def test_verdict_follows_the_tests():
    weak = story()
    weak.tests["comparisons"][0] |= {"p_holm": 0.2, "verdict": "tied"}
    assert "Tied with <b>popularity (floor)</b>: neither is shown to be better" in report.render(weak).decode()
    weak.tests["comparisons"][0] |= {"p_holm": 1.0, "verdict": "worse"}
    assert "Worse than <b>popularity (floor)</b>" in report.render(weak).decode()
    assert "Better than" in report.render(story()).decode()
    alone = story()
    alone.tests["comparisons"].clear()
    assert "no other model" in report.render(alone).decode()


def test_a_low_bound_of_zero_is_drawn_at_zero():
    assert drawings.bar({"mean": 0.4, "low": 0.0, "high": 0.5}, "x")["low"] == 0.0
    assert drawings.bar({"mean": 0.4, "low": None, "high": None}, "x")["low"] == 0.4


def test_same_story_same_bytes():
    assert report.render(story()) == report.render(story())


def test_plots_draw_every_row_and_escape():
    rows = [{"label": name, "mean": 0.2, "low": 0.1, "high": 0.3} for name in ("<script>x</script>", "b")]
    svg = charts.with_intervals(rows, "<title>", "x", "b", 0.15)
    assert svg.startswith("<svg") and "<script" not in svg and "&lt;script&gt;" in svg and "0.200" in svg


def test_thumbnails(tmp_path):
    Image.new("RGBA", (400, 90), (250, 10, 10, 255)).save(tmp_path / "a.png")
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff" + b"x" * 50)
    (tmp_path.parent / "outside.png").write_bytes((tmp_path / "a.png").read_bytes())
    uri = thumbnail(tmp_path, ["bad.jpg", None, "a.png"])
    picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))
    assert uri.startswith("data:image/jpeg;base64,") and picture.size == (120, 120)
    assert np.abs(np.asarray(picture).mean((0, 1)) - [250, 10, 10]).max() < 8
    for nothing in ([], ["missing.png"], ["bad.jpg"], ["../outside.png"], ["https://example.org/a.png"]):
        assert thumbnail(tmp_path, nothing) is None


def test_bands_cut_the_interactions_in_thirds():
    # 12 train rows: 1 + 1 + 2 + 3 + 5, rare to popular; the thirds end at 4 and 8, an item counts by its middle
    assert plots.bands(np.array([5, 0, 1, 3, 1, 2])).tolist() == [3, 0, 1, 2, 1, 1]
    assert plots.bands(np.zeros(3, np.int64)).tolist() == [0, 0, 0]


def test_csv_has_a_header_and_empty_cells():
    assert plots.as_csv([], ("a", "b")) == b"a,b\n"
    assert plots.as_csv([{"a": 1, "b": None, "c": 3}], ("a", "b")) == b"a,b\n1,\n"

"""Texts: every value has wordings in both languages, and no text names what another modality shows."""

import re

import numpy as np
import pytest

from fusionrec.demo import words
from fusionrec.demo.factors import CATEGORIES, FACTORS

ENGLISH = {
    *(v.lower() for m in ("image", "audio", "video") for options in FACTORS[m].values() for v in options),
    *(v.lower() for options in FACTORS["attributes"].values() for v in options),
    "white",
    "black",
    "pink",
    "brown",
    "golden",
    "dark",
    "bright",
    "striped",
    "dotted",
    "checked",
    "flower",
    "shiny",
    "glazed",
    "wooden",
    "oak",
    "bamboo",
    "wicker",
    "rattan",
    "loud",
    "quiet",
    "music",
    "melody",
    "rhythm",
    "spinning",
    "moving",
    "cheap price",
    "expensive",
}
CHINESE = (
    "红",
    "橙",
    "黄",
    "绿",
    "蓝",
    "紫",
    "象牙",
    "炭",
    "黑",
    "白",
    "粉",
    "棕",
    "金",
    "条纹",
    "圆点",
    "波点",
    "格纹",
    "格子",
    "碎花",
    "印花",
    "哑光",
    "光面",
    "亮面",
    "釉",
    "木",
    "竹",
    "藤",
    "编织",
    "拨弦",
    "钟声",
    "弓弦",
    "长笛",
    "管风琴",
    "节奏",
    "嘶声",
    "失真",
    "静止",
    "平移",
    "缩放",
    "旋转",
    "弹跳",
    "慢",
    "快速",
    "便宜",
    "昂贵",
)


def test_no_phrase_names_another_modalitys_factor() -> None:
    for phrase in words.vocabulary():
        low = phrase.lower()
        found = [w for w in ENGLISH if re.search(rf"\b{re.escape(w)}\b", low)] + [w for w in CHINESE if w in phrase]
        assert not found, f"{phrase!r} names {found}"


def test_the_guard_would_catch_a_slip() -> None:
    assert "stripes" in ENGLISH and "lumen hall" in ENGLISH and "premium" in ENGLISH
    assert any(w in "红色条纹" for w in CHINESE)


@pytest.mark.parametrize("name", ["occasion", "origin", "voice"])
def test_every_value_has_at_least_three_wordings_in_each_language(name: str) -> None:
    table = {"occasion": words.OCCASION, "origin": words.ORIGIN, "voice": words.VOICE}[name]
    assert tuple(table) == FACTORS["text"][name]
    wordings = [w for languages in table.values() for options in languages for w in options]
    assert len(wordings) == len(set(wordings)), "one wording stands for two values"
    for english, chinese in table.values():
        assert len(english) >= 3 and len(chinese) >= 3
        assert all(w.isascii() for w in english)
        assert all(re.search(r"[\u4e00-\u9fff]", w) for w in chinese)


@pytest.mark.parametrize("language", [0, 1])
def test_descriptions_are_complete_and_titles_neutral(language: int) -> None:
    planted = [w for t in (words.OCCASION, words.ORIGIN) for pair in t.values() for w in pair[language]]
    for k in range(60):
        rng = np.random.default_rng(k)
        category, occasion = CATEGORIES[k % 6], FACTORS["text"]["occasion"][k % 5]
        origin, voice = FACTORS["text"]["origin"][k % 6], FACTORS["text"]["voice"][k % 4]
        title, text = words.describe(rng, language, category, occasion, origin, voice)
        assert "{" not in title + text and words.NOUN[category][language] in text
        assert any(w in text for w in words.OCCASION[occasion][language])
        assert any(w in text for w in words.ORIGIN[origin][language])
        assert not any(w in title for w in planted)
        assert title.isascii() == text.isascii() == (language == 0)


def test_queries_name_only_what_is_wanted() -> None:
    rng = np.random.default_rng(0)
    for language in (0, 1):
        text = words.query(rng, language, {"category": "mug", "origin": "sweden"})
        assert words.NOUN["mug"][language] in text
        assert any(w in text for w in words.ORIGIN["sweden"][language])
        assert not any(w in text for pair in words.OCCASION.values() for w in pair[language])
        both = words.query(rng, language, {"category": "bowl", "origin": "italy", "occasion": "dinner"})
        assert any(w in both for w in words.OCCASION["dinner"][language])
        assert any(w in both for w in words.ORIGIN["italy"][language])


def test_reviews_exist_for_every_number_of_stars() -> None:
    rng = np.random.default_rng(0)
    seen = {(stars, language): words.review(rng, language, stars) for stars in range(1, 6) for language in (0, 1)}
    assert len(set(seen.values())) == 10

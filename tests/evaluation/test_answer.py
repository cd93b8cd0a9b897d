"""The report's sentences say what the numbers say, in every case that can occur."""

from __future__ import annotations

import pytest

from fusionrec.evaluation import answer, words
from fusionrec.evaluation.story import Story


def table(**means):
    """Rows of all users by model, with an interval of 0.01 around each."""
    labels = {"model": "fused (blend: a + b)", "popularity": "popularity (floor)", "ease": "EASE", "only-a": "a alone"}
    return [
        {"model": m, "label": labels[m], "slice": "all", "metric": metric, "n": 1473, "mean": v,
         "low": v - 0.01, "high": v + 0.01}
        for m, v in means.items()
        for metric in ("ndcg@20", "recall@20")
    ]  # fmt: skip


def compared(against, difference, p, low=None, high=None):
    return {
        "against": against, "label": {"ease": "EASE", "only-a": "a alone"}[against], "difference": difference,
        "low": difference - 0.01 if low is None else low, "high": difference + 0.01 if high is None else high,
        "n": 1473, "p": p, "p_holm": p,
        "verdict": "better" if p < 0.05 else "worse" if p > 0.95 and difference < 0 else "tied",
    }  # fmt: skip


def story(comparisons=(), rows=None, ceiling=None, **changes):
    tests = {
        "comparisons": list(comparisons), "best_single": "only-a", "ceiling": ceiling or {"note": "none"},
        "cold_only": {"metric": "recall@10", "n": 0, "random": None, "models": [], "ratio": None},
    }  # fmt: skip
    facts = {
        "train": 58_329, "users": 1899, "n_items": 1000, "pairs": 8773, "asked": 1473, "cold_items": 0, "cold_pairs": 0,
        "protocol": {},
    }  # fmt: skip
    rows = table(**{"model": 0.12, "popularity": 0.05, "ease": 0.11, "only-a": 0.115}) if rows is None else rows
    return Story(
        "fused (blend: a + b)", ("a", "b"), "ndcg@20", facts | changes.pop("facts", {}), rows, tests, **changes
    )


def said(*args, **options):
    return " ".join(answer.answer(story(*args, **options)))


def test_the_whole_answer():
    ratio = {"all": {"ndcg@20": {"ratio": 0.356, "oracle": 0.338, "low": 0.33, "high": 0.38}}}
    text = said(
        [compared("ease", 0.01, 0.002), compared("only-a", 0.005, 0.0004, 0.002, 0.009)],
        ceiling={"note": "", "ratios": ratio},
    )
    thin, percent = "\u202f", "\u202f%"
    assert text == (
        f"This model recommends better than all 2 others it was tested against. “fused (blend: a + b)” learnt from "
        f"58{thin}329 choices of 1{thin}899 users and reads the a and b of 1{thin}000 items. Of what a person chose "
        f"afterwards, 12{percent} is among its first 20 recommendations (95{percent} interval 11{percent} to "
        f"13{percent}). NDCG@20, which also counts how far up it stands, is 0.120 (95{percent} interval 0.110 to "
        f"0.130). It is 4.3{percent} better than the best single modality (a alone): +0.005, 95{percent} interval "
        f"+0.002 to +0.009; chance alone shows as much less than once in 1{thin}000 times. It is 9.1{percent} better "
        f"than the best baseline (EASE): +0.010, 95{percent} interval 0.000 to +0.020; chance alone shows as much "
        f"about 2 times in 1{thin}000. It reaches 36{percent} of the best possible NDCG@20, the 0.338 of somebody who "
        "knows everyone's true taste."
    )


def test_says_when_it_is_not_better():
    assert "not shown to be better than the best baseline (EASE)" in said([compared("ease", 0.001, 0.3)])
    assert "which may well be chance" in said([compared("ease", 0.001, 0.3)])
    assert "It is 45\u202f% worse than the best baseline (EASE)" in said([compared("ease", -0.05, 1.0)])
    assert said([]).startswith("This model was tested against no other.") and "not known for this data" in said([])
    both = said([compared("ease", 0.001, 0.3), compared("only-a", 0.01, 0.002)])
    assert both.startswith("This model recommends better than 1 of the 2 others it was tested against; it is tied with")
    assert said([compared("ease", 0.01, 0.01)]).startswith("This model recommends better than the one other")
    assert said([compared("ease", 0.0, 0.5)]).startswith("This model is tied with EASE: not shown to be better.")
    # where each user's interval is unknown, the difference still is
    one = compared("ease", 0.001, 1.0) | {"low": None, "high": None}
    assert "(EASE): +0.001, which may well be chance." in said([one])


def test_nobody_to_test_on():
    rows = [r | {"mean": None, "low": None, "high": None, "n": 0} for r in table(model=0.1)]
    assert said(rows=rows).startswith("There is nobody to test on") and "%" not in said(rows=rows)


def test_one_metric_is_told_once():
    from dataclasses import replace

    text = " ".join(answer.answer(replace(story(), main_metric="recall@20")))
    assert text.count("12\u202f%") == 1 and "how far up" not in text


LOSS = {"n": 90, "full": 0.1, "masked": 0.08, "loss": 0.02, "low": 0.01, "high": 0.03, "p": 0.0004}


def test_what_content_is_worth():
    nothing = {"loss": 0.0, "low": -0.001, "high": 0.001, "p": 0.6}
    rows = [
        {"modality": "clip", "slice": "all", **LOSS, **nothing},
        {"modality": "clip", "slice": "all_has_it", **LOSS},
        {"modality": "clip", "slice": "cold_only_has_it", **LOSS, "n": 0},
        {"modality": "word", "slice": "all", **LOSS, "loss": -0.02, "low": -0.03, "high": -0.01},
        {"modality": "hum", "slice": "all", **LOSS, "n": 0},
        {"modality": "every modality", "slice": "all", **LOSS, "low": None, "high": None},
    ]
    clip, word, every = answer.content(story(knockouts=rows, carried={"clip": 0.12, "word": 1.0}))
    assert clip == (
        "Without clip (12\u202f% of the items have it) the model loses over all choices nothing that is sure (0.000); "
        "where the chosen item has it 0.020, 20\u202f% of its score (p\u00a0<\u00a00.001)."
    )
    assert "does better without" in word and "unknown amount" in every


def test_cold_start_in_words():
    assert answer.new_items(story()) == ["Every item has training history: there are no new items."]
    assert answer.new_users(story()) == [
        "No user without history is in the test.",
        "No user with 1 to 3 earlier choices is in the test.",
    ]
    rows = [*table(model=0.12, popularity=0.05)]
    rows += [r | {"slice": "history_none", "n": 1} for r in rows if r["metric"] == "ndcg@20"]
    first = answer.new_users(story(rows=rows))[0]
    assert first.startswith("For 1 user without any history NDCG@20 is 0.120") and "items gives 0.050" in first


def test_the_curve_in_a_sentence():
    rows = [{"hidden": "every modality", "share": s, "score": v, "n": 1473} for s, v in ((0.0, 0.12), (0.3, 0.09))]
    assert answer.thinner(story(missing=rows)) == (
        "NDCG@20 is 0.120 with everything there, 0.090 (75\u202f%) with 30\u202f% missing."
    )
    assert "over 500 of the users" in answer.thinner(story(missing=[r | {"n": 500} for r in rows]))
    assert answer.thinner(story()) == ""


@pytest.mark.parametrize(
    "p, told",
    [(0.0004, "less than once in"), (0.001, "about once in 1\u202f000"), (0.002, "about 2 times in 1\u202f000"),
     (0.0096, "about once in 100"), (0.049, "about 5 times in 100"), (1.0, "about 100 times in 100")],
)  # fmt: skip
def test_chance_in_words(p, told):
    assert words.chance(p).startswith(told)


@pytest.mark.parametrize(
    "value, told",
    [(0.0, "0"), (0.0004, "0"), (0.0567, "5.7"), (0.0996, "10"), (0.5, "50"), (1.0, "100"), (-0.05, "\u22125.0")],
)
def test_percent(value, told):
    assert words.percent(value) == f"{told}\u202f%"


def test_numbers_and_marks():
    assert words.thousands(1234567) == "1\u202f234\u202f567" and words.signed(-0.0001) == "0.000"
    assert words.signed(-0.012) == "\u22120.012" and words.number(None) == "–"
    assert words.number(-0.0004) == "0.000" and words.number(-0.02) == "\u22120.020" and words.signed(0.02) == "+0.020"
    assert words.initials(["text", "image", "audio", "video"]) == {
        "text": "T",
        "image": "I",
        "audio": "A",
        "video": "V",
    }
    assert words.initials(["audio", "author", "a"]) == {"audio": "Aud", "author": "Aut", "a": "A"}
    assert words.listed(["a"]) == "a" and words.listed(["a", "b", "c"]) == "a, b and c"

"""What changed between two versions: rows and sentences from known numbers, and a page that stays inert."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from fusionrec.data.files import to_json
from fusionrec.errors import IntegrityError
from fusionrec.evaluation import changes

PARAMS = {"train": {"seed": 0, "retriever": {"kind": "blend"}, "baselines": [{"kind": "ease"}]}, "modalities": {}}
SIZES = {"items": 1000, "kind": "global_time", "train": {"pairs": 40_000, "users": 700}, "test": {"pairs": 900}}


def record(params=PARAMS, scores=None, digest="a" * 64, sizes=SIZES, label="fused"):
    scores = scores or {("all", "ndcg@20"): (0.10, 0.09, 0.11), ("all", "recall@20"): (0.2, 0.18, 0.22)}
    table = [
        {"model": m, "label": label, "slice": part, "metric": metric, "mean": v[0], "low": v[1], "high": v[2], "n": 80}
        for (part, metric), v in scores.items()
        for m in ("model", "popularity")
    ]
    return changes.record(params, table, {"main_metric": "ndcg@20", "pairs_digest": digest}, sizes)


def row(found, part="all", metric="ndcg@20"):
    return next(r for r in found["scores"] if (r["slice"], r["metric"]) == (part, metric))


def test_difference_and_its_interval_by_hand():
    """MOVER by hand: 0.14 - 0.10; lower 0.04 - sqrt(.01^2 + .02^2), upper 0.04 + sqrt(.03^2 + .03^2)."""
    before = record(scores={("all", "ndcg@20"): (0.10, 0.07, 0.12)})
    after = record(scores={("all", "ndcg@20"): (0.14, 0.13, 0.17)})
    found = row(changes.compare(before, after))
    assert found["difference"] == 0.04
    assert found["low"] == pytest.approx(0.04 - (0.01**2 + 0.02**2) ** 0.5, abs=1e-6)
    assert found["high"] == pytest.approx(0.04 + (0.03**2 + 0.03**2) ** 0.5, abs=1e-6)
    assert found["sure"] is True
    back = row(changes.compare(after, before))
    assert (back["difference"], back["low"], back["high"]) == (-0.04, -found["high"], -found["low"])


def test_says_which_parameters_and_amounts_differ():
    other = {**PARAMS, "train": {**PARAMS["train"], "seed": 3, "singles": True}}
    found = changes.compare(record(), record(other, sizes={**SIZES, "items": 1010}))
    assert found["params"] == [
        {"key": "train.seed", "before": "0", "after": "3"},
        {"key": "train.singles", "before": None, "after": "true"},
    ]
    assert found["sizes"][0] == {"name": "items", "before": 1000, "after": 1010}
    assert found["same_choices"] is True and "2 parameters differ." in found["answer"]
    assert changes.compare(record(), record(digest="b" * 64))["same_choices"] is False
    assert changes.compare(record(), record(digest=None))["same_choices"] is None


def test_a_slice_of_one_version_only_has_no_difference():
    wider = {("all", "ndcg@20"): (0.1, 0.09, 0.11), ("missing_audio", "ndcg@20"): (0.05, None, None)}
    found = row(changes.compare(record(), record(scores=wider)), "missing_audio")
    assert found["before"] is None and found["after"]["mean"] == 0.05 and found["difference"] is None
    both = row(changes.compare(record(scores=wider), record(scores=wider)), "missing_audio")
    assert both["difference"] == 0 and both["low"] is None and both["sure"] is False


def test_the_first_version_has_nothing_to_compare_with():
    found = changes.compare(None, record())
    assert found["first"] and found["params"] == []
    assert "no earlier champion" in found["answer"][0] and "no earlier champion" in changes.render(found).decode()


VERDICT = {
    "verdict": "refused", "opponent": "champion (version 3)", "metric": "ndcg@20", "p": 0.21, "difference": 0.001,
    "low": -0.002, "high": 0.004, "users": 1473, "challenger_mean": 0.121, "opponent_mean": 0.12,
    "window": {"kind": "time", "pairs": 8773}, "reasons": ["not better than champion"],
}  # fmt: skip


def test_quotes_the_gate():
    found = changes.compare(record(), record(), VERDICT)
    said = " ".join(found["answer"])
    assert "The gate refused it" in said and "about 21 times in 100" in said and "not better than champion" in said
    assert "both on the same 1\u202f473 users and 8\u202f773 choices, user by user" in said
    apart = changes.compare(record(), record(scores={("all", "ndcg@20"): (0.11, 0.1, 0.12)}), VERDICT)["answer"]
    assert apart[0].startswith("Each in its own evaluation, ") and "two separate measurements" in apart[0]
    assert "that is no gain" in " ".join(
        changes.compare(record(), record(), {**VERDICT, "difference": -0.01})["answer"]
    )
    text = changes.render(found).decode()
    assert 'class="card lead"' in text and 'class="card lead good"' not in text
    assert (
        'class="card lead good"'
        in changes.render(changes.compare(None, record(), {**VERDICT, "verdict": "passed"})).decode()
    )
    assert "8\u202f773" in text and "+0.001" in text and "\u22120.002 to +0.004" in text
    broken = changes.compare(record(), record(), {"verdict": "refused", "reasons": ["canary: NaN"]})
    assert "canary: NaN" in changes.render(broken).decode()


def test_a_record_survives_its_file_and_refuses_anything_else():
    made = record()
    data = to_json(made.model_dump(mode="json"))
    assert changes.load(data) == made
    for evil in (b"", b"[]", b"\xff", data.replace(b'"format_version": 1', b'"format_version": 2'), b'{"label": 3}'):
        with pytest.raises(IntegrityError, match="record to compare with"):
            changes.load(evil)


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, *(name for name, _ in attrs)))

    def handle_data(self, data):
        self.text += data


def test_hostile_words_stay_words(hostile):
    def page(word):
        scores = {("all", "ndcg@20"): (0.1, 0.09, 0.11), (word, "ndcg@20"): (0.1, 0.09, 0.11)}
        params = {word: {word: word}, "z": [word]}
        a, b = record(label=word, scores=scores), record(params, scores, label=word)
        verdict = {**VERDICT, "reasons": [word], "opponent": word}
        return Tags(changes.render(changes.compare(a, b, verdict, (word, word))).decode())

    for word in (hostile, "</style><script>1</script>", "{% include 'x' %}", "\x00\ud800", "' onx='"):
        evil, tame = page(word), page("x")
        assert evil.found == tame.found
    assert hostile.partition("<")[0] in page(hostile).text and "49" not in page(hostile).text


def test_the_page_is_self_contained_and_repeatable():
    found = changes.compare(record(), record({**PARAMS, "x": 1}))
    assert changes.render(found) == changes.render(json.loads(json.dumps(found)))
    assert not re.search(r"https?://|<script|javascript:|<link", changes.render(found).decode())

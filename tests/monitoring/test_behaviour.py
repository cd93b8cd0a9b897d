"""What users do: planted changes are found and named, none is found where there is none, one code for shared ids."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from worlds import side  # noqa: E402  (a helper of this folder)

from fusionrec.monitoring import behaviour  # noqa: E402
from fusionrec.monitoring.spec import Monitor  # noqa: E402
from fusionrec.monitoring.verdict import Measure  # noqa: E402
from fusionrec.types import Columns as C  # noqa: E402

SPEC = Monitor(draws=999)


def found(current: behaviour.Side, reference: behaviour.Side | None = None) -> dict[str, Measure]:
    return {m.name: m for m in behaviour.measures(reference or side(1), current, SPEC)}


@pytest.mark.parametrize(
    "what, planted, words",
    [
        ("taste (image)", {"taste": 1.0}, "choose other items than before"),
        ("categories chosen", {"favourite": 1.5}, "choices of 'vase'"),
        ("event mix", {"purchases": 0.6}, "share of event"),
        ("activity", {"visit": 6}, "users do more in a visit"),
        ("popularity concentration", {"steep": 1.5}, "more concentrated"),
    ],
)
def test_planted(what: str, planted: dict[str, float], words: str) -> None:
    m = found(side(2, 170, 260, prefix="b", **planted))[what]  # type: ignore[arg-type]
    assert m.p == pytest.approx(1 / 1000) and m.effect is not None and m.effect > 0.2
    assert words in m.words


def test_content_that_moved_is_no_change_of_taste() -> None:
    """All vectors shifted and scaled, the liking of the first number unchanged."""
    reference, current = side(1, taste=0.8), side(2, 170, 260, prefix="b", taste=0.8)
    x, present = current.vectors["image"]
    moved = replace(current, vectors={"image": (x * 0.5 + 3, present)})
    m = found(moved, reference)["taste (image)"]
    assert m.effect is not None and m.effect < 0.2
    assert m.effect == pytest.approx(found(current, reference)["taste (image)"].effect, abs=0.02)  # type: ignore[arg-type]


def test_false_alarms_are_as_rare_as_the_level_says() -> None:
    """40 pairs of new catalogues with new users: binomial(40, 0.05) is above 7 in less than 0.2 % of cases."""
    low: Counter[str] = Counter()
    for k in range(40):
        reference = side(500 + 2 * k, 130, 90, taste=0.5)
        for name, m in found(side(501 + 2 * k, 110, 70, prefix="b", taste=0.5), reference).items():
            low[name] += m.p is not None and m.p <= 0.05
            assert m.p is not None, m.why
    assert max(low.values(), default=0) <= 7, low


def test_the_same_log_again_is_no_drift_at_all() -> None:
    """Users and items that stand on both sides cancel."""
    reference = side(1)
    for m in found(reference, reference).values():
        assert m.p == 1.0 and (m.effect or 0.0) == pytest.approx(0.0, abs=1e-9)


def test_concentration_does_not_depend_on_how_much_was_counted() -> None:
    """A third of the users says the same about popularity, though counts are noisier."""
    reference = side(3, 200, 900, steep=0.8)
    users = reference.events[C.USER].unique().sort().head(300)
    fewer = reference.part(np.ones(200, bool), users)
    whole, part = behaviour._simpson(reference), behaviour._simpson(fewer)
    assert whole is not None and part is not None
    assert part.value[0] == pytest.approx(whole.value[0], abs=0.05)


def test_too_little_is_said(caplog: pytest.LogCaptureFixture) -> None:
    few = side(2, 60, 30, 4, prefix="b")
    assert all(m.p is None and "positive pairs" in m.why for m in found(few).values())
    flat = side(2, prefix="b")
    same = replace(flat, vectors={"image": (np.ones_like(flat.vectors["image"][0]), flat.vectors["image"][1])})
    assert "equal" in found(same, same)["taste (image)"].why
    without = replace(flat, items=flat.items.drop(C.CATEGORY), events=flat.events.filter(pl.col(C.EVENT) == "click"))
    named = found(without, without)
    assert "no category" in named["categories chosen"].why and "one kind" in named["event mix"].why


def test_vectors_of_another_width_do_not_compare() -> None:
    m = found(side(2, 170, 260, prefix="b", dim=17))
    assert m["taste (image)"].why == "vectors of 24 and of 17 numbers do not compare"
    assert m["categories chosen"].p is not None


def test_activity_draws_the_same_whatever_the_order_of_the_log() -> None:
    reference, current = side(1), side(2, 170, 260, prefix="b")
    p = {
        behaviour._activity(reference, replace(current, events=events), SPEC).p
        for seed in range(5)
        for events in (current.events, current.events.sample(fraction=1, shuffle=True, seed=seed))
    }
    assert len(p) == 1 and 0.01 < p.pop() < 0.99  # type: ignore[operator]


def test_set_aside_rows_are_counted_by_cluster() -> None:
    def rows(n: int, aside: int) -> pl.DataFrame:
        return pl.DataFrame(
            {"cluster": [f"u{n}-{k}" for k in range(n)], "aside": [9] * aside + [0] * (n - aside), "read": [10] * n}
        )

    good, bad = (replace(side(1), rows={"interactions": rows(n, k)}) for n, k in ((70, 1), (50, 20)))
    m = behaviour.quarantined("interactions", good, bad, SPEC)
    assert (
        m.p is not None and m.p < 0.01 and m.words.startswith("more rows of interactions are set aside: 1.3 % -> 36 %")
    )
    one_bad_user = replace(side(1), rows={"interactions": rows(51, 2)})
    assert behaviour.quarantined("interactions", good, one_bad_user, SPEC).p > 0.05  # type: ignore[operator]
    assert behaviour.quarantined("items", good, bad, SPEC).p is None

"""Evidently's tests as they are used here: right numbers, calm where nothing is computable, inert pages, a history."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))
from worlds import side  # noqa: E402  (a helper of this folder)

from fusionrec.monitoring import drift  # noqa: E402
from fusionrec.monitoring.compare import compare  # noqa: E402
from fusionrec.monitoring.descriptors import Column  # noqa: E402
from fusionrec.monitoring.spec import Monitor  # noqa: E402
from fusionrec.monitoring.verdict import CAP, Measure  # noqa: E402

pytestmark = pytest.mark.timeout(300)  # importing Evidently alone may take half a minute
SPEC = Monitor(draws=999)
HOSTILE = (
    "</script><script>alert(1)</script>",
    '<img src=x onerror="alert(2)">',
    "{{7*7}}\\u003cb",
    "'\"><svg onload=alert(3)>",
)


def numbers(values: Sequence[float], name: str = "brightness") -> Column:
    return Column("image", name, np.array(values, np.float64), reads="image")


def texts(values: Sequence[str | None], name: str = "category") -> Column:
    out = np.empty(len(values), object)
    out[:] = values
    return Column("attributes", name, out)


def test(reference: Column, current: Column | None) -> Measure:
    return drift.compare(drift.pair(reference, current, SPEC))


test.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e5])
def test_numbers_are_tested_by_ks_and_measured_in_standard_deviations(unit: float) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 2, 333), rng.normal(1, 2, 217)
    m = test(numbers(unit * a), numbers(unit * np.append(b, np.nan)))
    assert m.p == pytest.approx(stats.ks_2samp(a, b).pvalue)
    assert m.effect == pytest.approx(stats.wasserstein_distance(a, b) / a.std(), rel=1e-6)
    assert (m.n_reference, m.n_current) == (333, 217)
    assert m.words.startswith("pictures are brighter: mean brightness")


def test_categories_are_tested_for_homogeneity_and_measured_by_the_largest_h() -> None:
    m = test(texts(["mug"] * 60 + ["vase"] * 40), texts(["mug"] * 30 + ["vase"] * 50 + [None] * 9))
    assert m.p == pytest.approx(stats.chi2_contingency([[60, 40], [30, 50]], correction=False).pvalue)
    assert m.effect == pytest.approx(2 * (np.arcsin(np.sqrt(0.625)) - np.arcsin(np.sqrt(0.4))))
    assert m.words == "attributes: share of category 'vase' 40 % -> 62 %"


def test_a_new_category_is_found() -> None:
    m = test(texts(["mug", "vase"] * 100), texts(["mug", "vase", "bottle"] * 50))
    assert m.p is not None and m.p < 1e-9 and "'bottle' 0 % -> 33 %" in m.words


def test_rare_categories_are_pooled_and_identifiers_left_out() -> None:
    many = [f"v{k}" for k in range(300)]
    assert "identifier" in test(texts(many), texts(many[:150])).why
    rare = drift.pair(texts(["a", "b"] * 99 + ["c", "d"]), texts(["a", "b"] * 50), SPEC)
    assert set(rare.reference) == {"a", "b", drift.OTHER}


@pytest.mark.parametrize(
    "reference, current, why",
    [
        (numbers([0.5] * 50), numbers([0.5] * 70), "constant"),
        (texts(["mug"] * 50), texts(["mug"] * 70), "constant"),
        (numbers([np.nan] * 50), numbers([0.1, 0.2] * 30), "the reference has 0 values"),
        (numbers([0.1, 0.2] * 30), numbers([0.1, np.inf]), "the batch has 1 values"),
        (numbers([0.1, 0.2] * 30), None, "no such column"),
        (numbers([0.1, 0.2] * 30), texts(["x"] * 30), "numbers on one side"),
    ],
)
def test_what_cannot_be_computed_is_said(reference: Column, current: Column | None, why: str) -> None:
    m = test(reference, current)
    assert m.p is None and m.effect is None and why in m.why


def test_a_constant_that_changed_is_drift() -> None:
    m = test(numbers([256.0] * 50, "width"), numbers([512.0] * 70, "width"))
    assert m.p is not None and m.p < 1e-9 and m.effect == CAP


def rows(n: int, shift: float = 0.0, seed: int = 0, dim: int = 48) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng([n, seed]).normal(size=(n, dim)).astype(np.float32)
    x[:, 3] += np.float32(shift)
    return x, np.ones(n, bool)


def test_the_classifier_sees_a_shift_and_its_null_is_that_of_mann_whitney() -> None:
    m = drift.vectors("image", "image", rows(700), rows(500, 2.0), SPEC)
    assert m.p is not None and m.p < 1e-9 and m.effect is not None and 0.8 < m.effect < 2.0  # planted: d = 2
    p = [drift.vectors("image", "image", rows(90, seed=k), rows(70, seed=k), SPEC).p for k in range(60)]
    assert stats.kstest(np.array(p, float), "uniform").pvalue > 0.001


def test_vectors_that_cannot_be_compared() -> None:
    equal = np.ones((50, 7), np.float32), np.ones(50, bool)
    assert "equal" in drift.vectors("image", "image", equal, equal, SPEC).why
    assert "of 48 and of 7" in drift.vectors("image", "image", rows(50), equal, SPEC).why
    assert "has 5 vectors" in drift.vectors("image", "image", rows(50), rows(5), SPEC).why
    few = rows(50)[0], np.zeros(50, bool)
    assert "reference has 0" in drift.vectors("image", "image", few, rows(50), SPEC).why


def test_one_equal_vector_side_is_drift_not_a_crash() -> None:
    equal = np.zeros((50, 48), np.float32), np.ones(50, bool)
    m = drift.vectors("image", "image", rows(60), equal, SPEC)
    assert m.p is not None and 0 <= m.p <= 1


def test_a_batch_ten_times_as_big_without_drift_is_quiet() -> None:
    found = compare(side(33, 60, 70), side(34, 600, 700, prefix="b"), SPEC).verdict
    assert found.status == "no drift", found.reasons
    assert any("constant" in line for line in found.not_computable)


@pytest.mark.parametrize(
    "planted, blamed",
    [
        ({"brightness": 0.45}, "image"),
        ({"new_category": 0.5}, "attributes"),
        ({"missing": 0.9}, "image"),
        ({"taste": 1.2}, "behaviour"),
    ],
)
def test_the_right_part_is_blamed(planted: dict[str, float], blamed: str) -> None:
    verdict = compare(side(1), side(2, 170, 260, prefix="b", **planted), SPEC).verdict  # type: ignore[arg-type]
    assert (verdict.status, verdict.blamed) == ("drift", blamed), verdict.reasons


class Elements(HTMLParser):
    """Start tags with their attributes, outside of the page's own scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


def test_pages_are_inert_and_the_workspace_keeps_a_history(tmp_path: Path) -> None:
    from evidently.ui.workspace import Workspace

    def with_hostile(side_: drift.Any, shares: Sequence[float]) -> drift.Any:
        n = side_.items.height
        values = np.random.default_rng(0).choice([*HOSTILE, "mug"], n, p=shares).tolist()
        hostile = texts(values, HOSTILE[0]), texts(values, HOSTILE[1])
        return replace(side_, columns=(*side_.columns, *hostile))

    found = compare(
        with_hostile(side(1), [0.2] * 5), with_hostile(side(2, 170, prefix="b"), [0.5, 0.3, 0.1, 0.1, 0]), SPEC
    )
    when = datetime(2026, 4, 11, tzinfo=UTC)
    plain = compare(side(1), side(2, 170, prefix="b"), SPEC)
    counts = []
    for n, comparison in enumerate((plain, found)):
        folder = tmp_path / str(n)
        folder.mkdir()
        page, ui = drift.pages(
            folder,
            tmp_path / "ws",
            comparison.pairs,
            comparison.verdict,
            HOSTILE[n],
            when + timedelta(days=n),
            {"batch": HOSTILE[1]},
        )
        text = page.read_text(encoding="utf-8")
        for hostile in HOSTILE:
            assert hostile not in text
        elements = Elements(text)
        counts.append(sorted(tag for tag, _ in elements.tags))
        assert not [a for _, a in elements.tags if any(name.startswith("on") for name in a)]
        project, report = ui.split("/")[2], ui.split("/")[4]
    assert counts[0] == counts[1]  # the hostile page holds the same elements as the plain one
    workspace = Workspace.create(str(tmp_path / "ws"))
    projects = workspace.search_project("fusionrec")
    assert [str(p.id) for p in projects] == [project]
    assert len(workspace.list_runs(project)) == 2 and report in {str(r) for r in workspace.list_runs(project)}
    stored = "".join(
        p.read_text(encoding="utf-8", errors="replace") for p in (tmp_path / "ws").rglob("*") if p.is_file()
    )
    assert not any(h in stored for h in HOSTILE)
    assert len(projects[0].dashboard.model().tabs[0].panels) == 3

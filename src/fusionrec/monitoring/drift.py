"""The only importer of Evidently: its tests on descriptors, its domain classifier on vectors, its pages and workspace.

- Numbers: Evidently's ``ks`` (two-sample Kolmogorov-Smirnov) gives p, its ``wasserstein`` (in standard deviations of
  the reference) the effect.
- Categories: Evidently's own ``chisquare`` takes the reference's shares as exact, which doubles the statistic for sides
  of one size and is undefined for a new category. So a chi-square test of homogeneity is registered with Evidently
  under the name :data:`HOMOGENEITY` and run by it; rare categories are pooled (Cochran's rule); the effect is the
  largest Cohen's h.
- Vectors: Evidently's ``ModelDriftMethod`` (a linear domain classifier, scored by its AUC on the half of the rows it
  was not fitted on) on at most 32 principal components. The components are taken from both sides together, because axes
  that know which row is whose would break exchangeability. Then the null distribution of the held-out AUC is that of
  Mann-Whitney's U, exactly, and needs no simulation (Lopez-Paz & Oquab 2017, "Revisiting classifier two-sample tests").
  Its p is one-sided: a classifier that is worse than chance says nothing.

Names and categories that come from data go in with look-alikes for the characters that mean something in HTML, because
Evidently's pages show them unescaped.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionrec.data.schema import printable
from fusionrec.monitoring import words
from fusionrec.monitoring.descriptors import QUALITY, Column
from fusionrec.monitoring.spec import Monitor
from fusionrec.monitoring.verdict import CAP, EMBEDDING, Measure, Verdict, cohens_h, d_of_auc
from fusionrec.types import Bool, Float32

HOMOGENEITY = "homogeneity"
COMPONENTS = 32
MAX_CATEGORIES = 40
OTHER = "(other)"
PROJECT = "fusionrec"
_LOOKALIKE = str.maketrans({"<": "\u2039", ">": "\u203a", "&": "+", '"': "\u201d", "'": "\u2019", "`": "\u2018",
                            "\\": "\u29f5", "{": "(", "}": ")"})  # fmt: skip


def inert(text: object) -> str:
    """A text that is no markup in any context: printable, at most 80 characters, look-alikes for < > & quotes."""
    return printable(text).translate(_LOOKALIKE)


@dataclass(frozen=True)
class Pair:
    """A descriptor of both sides, cleaned for the test: finite numbers in standard deviations, or pooled categories."""

    column: Column
    reference: NDArray[Any]
    current: NDArray[Any]
    why: str = ""

    @property
    def label(self) -> str:
        return inert(f"{self.column.part}: {self.column.name}")


@cache
def _evidently() -> Any:
    """Evidently's stat tests with ours registered beside them; importing it takes 10 s and more."""
    os.environ["DO_NOT_TRACK"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently.legacy.calculations import stattests
        from evidently.legacy.calculations.stattests.registry import StatTest, register_stattest
        from evidently.legacy.core import ColumnType

    ours = StatTest(HOMOGENEITY, "chi-square test of homogeneity, p-value", [ColumnType.Categorical], 0.05)
    register_stattest(ours, _homogeneity)
    return stattests


def _homogeneity(reference: Any, current: Any, feature_type: Any, threshold: float) -> tuple[float, bool]:
    from scipy.stats import chi2_contingency

    kinds = sorted(set(reference) | set(current))
    counts = [Counter(reference.tolist()), Counter(current.tolist())]
    p = (
        float(chi2_contingency([[c[k] for k in kinds] for c in counts], correction=False).pvalue)
        if len(kinds) > 1
        else 1.0
    )
    return p, p <= threshold


def pair(reference: Column, current: Column | None, spec: Monitor) -> Pair:
    """Clean a descriptor; ``why`` says what makes the comparison impossible."""
    if current is None:
        return Pair(reference, np.zeros(0), np.zeros(0), "the batch has no such column")
    if reference.numeric != current.numeric:
        return Pair(reference, np.zeros(0), np.zeros(0), "numbers on one side, texts on the other")
    sides = _clean(reference), _clean(current)
    for name, values in zip(("reference", "batch"), sides, strict=True):
        if len(values) < spec.min_rows:
            return Pair(
                reference, sides[0], sides[1], f"the {name} has {len(values)} values, needed are {spec.min_rows}"
            )
    if reference.numeric:
        together = np.concatenate(sides)
        if float(np.ptp(together)) <= 1e-9 * max(1.0, float(np.abs(together).max())):
            return Pair(reference, sides[0], sides[1], "the column is constant, with one value on both sides")
        return Pair(reference, sides[0], sides[1])
    return _pooled(reference, sides[0], sides[1])


def _clean(column: Column) -> NDArray[Any]:
    if column.numeric:
        return column.values[np.isfinite(column.values)]
    return np.array([inert(v) for v in column.values if v is not None], object)


def _pooled(column: Column, reference: NDArray[Any], current: NDArray[Any]) -> Pair:
    """Categories of which the smaller side would hold fewer than 5 become one."""
    counts = Counter([*reference.tolist(), *current.tolist()])
    total, smaller = len(reference) + len(current), min(len(reference), len(current))
    if len(counts) > max(MAX_CATEGORIES, total / 2):
        return Pair(column, reference, current, "nearly every value occurs once: an identifier, not a category")
    kept = {k for k, n in counts.most_common(MAX_CATEGORIES) if n * smaller / total >= 5}
    before, after = (np.array([v if v in kept else OTHER for v in side], object) for side in (reference, current))
    constant = len(set(before) | set(after)) < 2
    return Pair(column, before, after, "the column is constant, with one value on both sides" if constant else "")


def compare(found: Pair) -> Measure:
    """Test one descriptor."""
    c = found.column
    sizes = len(found.reference), len(found.current)
    empty = Measure(c.part, c.name, c.subject or c.part, n_reference=sizes[0], n_current=sizes[1])
    if found.why:
        return replace(empty, why=found.why)
    return _numbers(found, empty) if c.numeric else _categories(found, empty)


def _numbers(found: Pair, empty: Measure) -> Measure:
    import pandas as pd

    tests, kind, c = _evidently(), _kind(True), found.column
    # Evidently divides by the reference's spread but never by less than 0.001: units must not matter.
    scale = float(found.reference.std()) or float(np.concatenate([found.reference, found.current]).std())
    both = [pd.Series((x - found.reference.mean()) / scale) for x in (found.reference, found.current)]
    p = float(tests.ks_stat_test(*both, kind, None).drift_score)
    effect = min(CAP, float(tests.wasserstein_stat_test(*both, kind, None).drift_score))
    before, after = float(found.reference.mean()), float(found.current.mean())
    said = words.of_number(c.part, c.reads, c.name, before, after)
    if abs(after - before) < 0.1 * scale:
        said += " (the mean stays, the spread changed)"
    method = "Evidently: Kolmogorov-Smirnov, Wasserstein"
    return replace(
        empty, before=words.number(before), after=words.number(after), words=said, p=p, effect=effect, method=method
    )


def _categories(found: Pair, empty: Measure) -> Measure:
    import pandas as pd

    tests, c = _evidently(), found.column
    both = [pd.Series(x) for x in (found.reference, found.current)]
    p = float(tests.get_stattest(*both, _kind(False), HOMOGENEITY)(*both, _kind(False), None).drift_score)
    shares = [Counter(x.tolist()) for x in (found.reference, found.current)]
    kinds = sorted(set(shares[0]) | set(shares[1]))
    pairs = [(shares[0][k] / len(found.reference), shares[1][k] / len(found.current)) for k in kinds]
    effects = [round(abs(cohens_h(*pair)), 9) for pair in pairs]
    at = max(range(len(kinds)), key=lambda k: (effects[k], pairs[k][1] - pairs[k][0]))  # of two, the one that grew
    before, after = pairs[at]
    shown = kinds[at]
    if set(kinds) <= {"yes", "no"} and c.part == QUALITY:
        before, after = (s["no"] / n for s, n in zip(shares, (len(found.reference), len(found.current)), strict=True))
        shown = "not " + c.name.rsplit(" ", 1)[-1]
        said = words.of_missing(c.name, before, after)
    else:
        said = words.of_share(c.part, c.name, shown, before, after)
    method = "Evidently: chi-square of homogeneity, Cohen's h"
    return replace(
        empty,
        before=f"{shown} {words.percent(before)}",
        after=f"{shown} {words.percent(after)}",
        words=said,
        p=p,
        effect=min(CAP, effects[at]),
        method=method,
    )


def _kind(numeric: bool) -> Any:
    from evidently.legacy.core import ColumnType

    return ColumnType.Numerical if numeric else ColumnType.Categorical


def vectors(
    part: str, reads: str, reference: tuple[Float32, Bool], current: tuple[Float32, Bool], spec: Monitor
) -> Measure:
    """Evidently's domain classifier on one modality's vectors: ((n, D) float32, (n,) present) of both sides."""
    x = [np.asarray(v)[p][: spec.max_vectors] for v, p in (reference, current)]
    empty = Measure(part, EMBEDDING, part, n_reference=len(x[0]), n_current=len(x[1]))
    least = max(spec.min_rows, 20)
    for name, rows in zip(("reference", "batch"), x, strict=True):
        if len(rows) < least:
            return replace(empty, why=f"the {name} has {len(rows)} vectors, needed are {least}")
    if x[0].shape[1] != x[1].shape[1]:
        return replace(empty, why=f"vectors of {x[0].shape[1]} and of {x[1].shape[1]} numbers do not compare")
    z = _components(np.concatenate(x), spec.seed)
    if z is None:
        return replace(empty, why="all vectors are equal on both sides")
    auc, p = _classifier(z[: len(x[0])], z[len(x[0]) :])
    method = "Evidently: domain classifier, AUC by Mann-Whitney"
    return replace(
        empty,
        before="AUC 0.50 if alike",
        after=f"AUC {auc:.2f}",
        words=words.of_vectors(part, reads, auc),
        p=p,
        effect=d_of_auc(auc),
        method=method,
    )


def _components(x: NDArray[Any], seed: int) -> NDArray[np.float64] | None:
    """(n, D) vectors of both sides -> (n, at most 32) principal components of unit variance; None if all are equal."""
    from sklearn.decomposition import PCA

    centred = np.asarray(x, np.float32) - x.mean(axis=0)
    if float(np.abs(centred).max(initial=0.0)) < 1e-9:
        return None
    count = min(COMPONENTS, x.shape[1], len(x) - 1)
    solver = "randomized" if count < min(x.shape) / 2 else "full"
    z = PCA(count, svd_solver=solver, random_state=seed).fit_transform(centred).astype(np.float64)
    spread = z.std(axis=0)
    keep = spread > 1e-6 * spread.max()
    return np.asarray(z[:, keep] / spread[keep])


def _classifier(reference: NDArray[np.float64], current: NDArray[np.float64]) -> tuple[float, float]:
    """(AUC on the held-out half, its one-sided p)."""
    import pandas as pd
    from scipy.stats import norm
    from sklearn.model_selection import train_test_split

    _evidently()
    from evidently.metrics.embeddings import ModelDriftMethod

    names = [f"c{k}" for k in range(reference.shape[1])]
    auc = float(ModelDriftMethod()(pd.DataFrame(current, columns=names), pd.DataFrame(reference, columns=names))[0])
    target = np.r_[
        np.ones(len(reference)), np.zeros(len(current))
    ]  # as Evidently splits: the same seed, the same halves
    held = train_test_split(target, test_size=0.5, random_state=42, shuffle=True)[1]
    ones = float(held.sum())
    zeros = len(held) - ones
    error = np.sqrt((ones + zeros + 1) / (12 * ones * zeros)) if ones and zeros else np.inf
    return auc, float(norm.sf((auc - 0.5) / error))


def pages(
    folder: Path,
    workspace: Path,
    pairs: Sequence[Pair],
    verdict: Verdict,
    name: str,
    when: datetime,
    extra: Mapping[str, str],
) -> tuple[Path, str]:
    """Evidently's own report on the descriptors, written to ``folder`` and added to the workspace's history.

    Returns the page and the path of the run in Evidently's UI (``/projects/<id>/reports/<id>``). No data is kept there.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import MeanValue, ValueDrift
    from evidently.ui.workspace import Workspace

    _evidently()
    levels = {(m.part, m.name): m.level for m in verdict.measures}
    good = [p for p in pairs if not p.why]
    reference, current = _frames(good, verdict)
    metrics: list[Any] = [MeanValue(column=c) for c in current.columns if c.startswith("effect: ")]
    for p in good:
        level = levels.get((p.column.part, p.column.name))
        metrics.append(
            ValueDrift(column=p.label, method="ks" if p.column.numeric else HOMOGENEITY, threshold=level or 0.05)
        )
    definition = DataDefinition(
        numerical_columns=[c for c in current.columns if current[c].dtype != object],
        categorical_columns=[c for c in current.columns if current[c].dtype == object],
    )
    sides = [Dataset.from_pandas(f, definition) for f in (current, reference)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = Report(metrics, tags=[verdict.status], metadata={k: inert(v) for k, v in extra.items()}).run(
            *sides, timestamp=when.replace(tzinfo=None)
        )
    page = folder / "descriptors.html"
    run.save_html(str(page))
    place = Workspace.create(str(workspace))
    known = place.search_project(PROJECT)
    project = known[0] if known else _project(place)
    added = place.add_run(project.id, run, include_data=False, name=inert(name))
    return page, f"/projects/{project.id}/reports/{added.id}"


EFFECTS = ("text", "image", "audio", "video", "attributes", "behaviour", "predictions", "data quality")


def _project(place: Any) -> Any:
    """The project with its dashboard: the largest effect of each part over time.

    The first panel makes the tab; the others name none, because Evidently 0.7 adds a panel twice to a tab that exists.
    """
    from evidently.sdk.models import PanelMetric
    from evidently.sdk.panels import line_plot_panel, text_panel

    project = place.create_project(PROJECT, "Drift of batches against the reference, one run a batch")
    text = "Largest effect of each part, in standard deviations; from 0.2 on (and if significant) it counts as drift."
    project.dashboard.add_panel(text_panel(title="Drift", description=text), tab="Drift")
    groups = (("modalities", EFFECTS[:4]), ("attributes, behaviour, predictions, data quality", EFFECTS[4:]))
    for title, parts in groups:
        lines = [PanelMetric(legend=p, metric="MeanValue", metric_labels={"column": f"effect: {p}"}) for p in parts]
        project.dashboard.add_panel(line_plot_panel(title=f"effect: {title}", values=lines, size="full"))
    return project


def _frames(pairs: Sequence[Pair], verdict: Verdict) -> tuple[Any, Any]:
    """(reference, current) as data frames: descriptors padded with missing values, the effects as constant columns."""
    import pandas as pd

    out = []
    for side in ("reference", "current"):
        columns: dict[str, Any] = {}
        for p in pairs:
            values = getattr(p, side)
            columns[p.label] = pd.Series(values, dtype=np.float64 if p.column.numeric else object)
        rows = max((len(c) for c in columns.values()), default=1)
        largest = dict.fromkeys(EFFECTS, 0.0)
        for m in verdict.measures:
            part = inert(m.part)
            largest[part] = max(largest.get(part, 0.0), m.effect or 0.0)
        for part, effect in largest.items():
            columns[f"effect: {part}"] = pd.Series(np.full(rows, effect if side == "current" else 0.0))
        out.append(pd.DataFrame(columns))
    return out[0], out[1]

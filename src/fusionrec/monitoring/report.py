"""The page of one monitoring run: no script, no request to anywhere, every text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionrec.evaluation import charts
from fusionrec.monitoring.compare import Comparison
from fusionrec.monitoring.drift import Pair
from fusionrec.monitoring.verdict import Measure

SHOWN = 12  # histograms
BINS = 24


@dataclass(frozen=True)
class Page:
    """``facts``: what was compared, in words; ``pictures``: data: URIs (reference, batch), where pictures drifted."""

    comparison: Comparison
    facts: Mapping[str, str]
    min_effect: float
    alpha: float
    pictures: tuple[Sequence[str], Sequence[str]] = ((), ())
    links: Mapping[str, str] = field(default_factory=dict)


def render(page: Page) -> bytes:
    """The page as UTF-8 bytes."""
    from jinja2 import PackageLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        loader=PackageLoader("fusionrec.monitoring", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["p"] = lambda x: "–" if x is None else ("< 0.0001" if x < 0.0001 else f"{x:.4f}")
    environment.filters["n2"] = lambda x: "–" if x is None else f"{x:.2f}"
    verdict = page.comparison.verdict
    context = {
        "page": page,
        "verdict": verdict,
        "alarms": [m for m in verdict.measures if m.alarm],
        "computed": sorted((m for m in verdict.measures if m.computed), key=lambda m: (not m.alarm, -(m.effect or 0))),
        "left": [m for m in verdict.measures if not m.computed],
        "effects": _effects(page),
        "histograms": histograms(page.comparison),
    }
    return environment.get_template("drift.html").render(context).encode("utf-8", "replace")


def _effects(page: Page) -> str | None:
    """Bars of the effects, alarms in colour, the least effect that counts as a dashed line."""
    found = sorted(
        (m for m in page.comparison.verdict.measures if m.computed), key=lambda m: (-(m.effect or 0), m.part)
    )
    if not found:
        return None
    rows = [{"label": _label(m), "effect": m.effect or 0.0, "alarm": bool(m.alarm)} for m in found[:20]]
    return charts.data_uri(charts.svg(_bars(rows, page.min_effect)))


def _label(m: Measure) -> str:
    return f"{m.part}: {m.name}"[:60]


def _bars(rows: list[dict[str, Any]], least: float) -> Any:
    import altair as alt

    names = [r["label"] for r in rows]
    colour = alt.condition("datum.alarm", alt.value(charts.ACCENT), alt.value(charts.PALE))
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("label:N", sort=names, title=None, axis=alt.Axis(grid=False))
    )
    bars = base.mark_bar(size=15, cornerRadiusEnd=2).encode(
        x=alt.X("effect:Q", title="effect in standard deviations"), color=colour
    )
    text = base.mark_text(align="left", dx=4, fontSize=11).encode(x="effect:Q", text=alt.Text("effect:Q", format=".2f"))
    line = alt.Chart(alt.Data(values=[{"x": least}])).mark_rule(color=charts.INK, strokeDash=[4, 4]).encode(x="x:Q")
    return charts.style(
        alt.layer(bars, text, line).properties(height=alt.Step(22)),
        "Size of each change (dashed: what counts)",
    )


def histograms(comparison: Comparison) -> list[dict[str, str]]:
    """``title``, ``uri`` of a before/after chart for each alarmed descriptor."""
    alarmed = {(m.part, m.name): m for m in comparison.verdict.measures if m.alarm}
    out: list[dict[str, str]] = []
    for pair in comparison.pairs:
        measure = alarmed.get((pair.column.part, pair.column.name))
        if measure is not None and not pair.why and len(out) < SHOWN:
            rows = _numbers(pair) if pair.column.numeric else _shares(pair)
            chart = _histogram(rows, _label(measure)) if pair.column.numeric else _columns(rows, _label(measure))
            out.append({"title": measure.words, "uri": charts.data_uri(charts.svg(chart))})
    return out


def _numbers(pair: Pair) -> list[dict[str, Any]]:
    low, high = np.percentile(np.concatenate([pair.reference, pair.current]).astype(np.float64), [0.5, 99.5])
    edges = np.linspace(low, max(high, low + 1e-9), BINS + 1)
    rows: list[dict[str, Any]] = []
    for side, values in (("reference", pair.reference), ("batch", pair.current)):
        share = _density(values, edges)
        rows += [
            {"side": side, "low": float(a), "high": float(b), "share": float(s)}
            for a, b, s in zip(edges, edges[1:], share, strict=False)
        ]
    return rows


def _density(values: NDArray[Any], edges: NDArray[Any]) -> NDArray[Any]:
    return np.histogram(np.clip(values.astype(np.float64), edges[0], edges[-1]), edges)[0] / max(len(values), 1)


def _shares(pair: Pair) -> list[dict[str, Any]]:
    kinds = sorted(set(pair.reference) | set(pair.current))
    rows = [
        {"value": k, "side": side, "share": float((values == k).mean())}
        for side, values in (("reference", pair.reference), ("batch", pair.current)) for k in kinds
    ]  # fmt: skip
    change = {k: abs(rows[n]["share"] - rows[n + len(kinds)]["share"]) for n, k in enumerate(kinds)}
    kept = set(sorted(kinds, key=lambda k: (-change[k], k))[:10])
    return [r for r in rows if r["value"] in kept]


def _colours() -> Any:
    import altair as alt

    return alt.Color("side:N", scale=alt.Scale(domain=["reference", "batch"], range=["#7b8ea3", charts.ACCENT]),
                     sort=["reference", "batch"])  # fmt: skip


def _histogram(rows: list[dict[str, Any]], title: str) -> Any:
    import altair as alt

    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(opacity=0.6, binSpacing=0)
        .encode(
            x=alt.X("low:Q", title=None, scale=alt.Scale(zero=False, nice=False)),
            x2="high:Q",
            y=alt.Y("share:Q", title="share of the items", stack=None, axis=alt.Axis(format="%")),
            y2=alt.datum(0),
            color=_colours(),
        )
        .properties(height=180)
    )
    return charts.style(chart, title)


def _columns(rows: list[dict[str, Any]], title: str) -> Any:
    import altair as alt

    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(opacity=0.9)
        .encode(
            y=alt.Y("value:N", title=None, sort="-x", axis=alt.Axis(grid=False)),
            yOffset=alt.YOffset("side:N", sort=["reference", "batch"]),
            x=alt.X("share:Q", title="share of the items", axis=alt.Axis(format="%")),
            color=_colours(),
        )
        .properties(height=alt.Step(14))
    )
    return charts.style(chart, title)

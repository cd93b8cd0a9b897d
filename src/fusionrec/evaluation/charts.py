"""The report's plots: Altair charts drawn to SVG without a browser and without the network."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

INK, MUTED, ACCENT, PALE = "#1f2933", "#7b8794", "#c2410c", "#9aa5b1"
WIDTH = 440
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_SCHEME = ["#c2410c", "#2563a8", "#15803d", "#7c3aed", "#b7791f", "#0e7490", "#be185d", "#57606a", "#4d7c0f"]


def data_uri(svg: str) -> str:
    """An SVG as a data: URI for an <img>; inside an image nothing can run or load."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")


def svg(chart: Any) -> str:
    """Draw an Altair chart; vl-convert may fetch from nowhere."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(_drawable(json.loads(chart.to_json())), allowed_base_urls=[]))


def _drawable(value: Any) -> Any:
    """The same specification with characters that XML forbids replaced: a NUL in a label aborts the whole process."""
    if isinstance(value, dict):
        return {key: _drawable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_drawable(inner) for inner in value]
    return _FORBIDDEN.sub("\ufffd", value) if isinstance(value, str) else value


def style(chart: Any, title: str) -> Any:
    """The chart under its title in the look of the reports' pages."""
    import altair as alt

    return (
        chart.properties(title=title, width=WIDTH, autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
        .configure(font="Liberation Sans, Arial, sans-serif", background="#ffffff", padding=8)
        .configure_view(stroke=None)
        .configure_title(anchor="start", fontSize=14, color=INK, offset=10)
        .configure_axis(
            labelColor=INK,
            titleColor=MUTED,
            titleFontWeight="normal",
            gridColor="#e8ecf0",
            domain=False,
            ticks=False,
            labelFontSize=12,
            labelLimit=190,
            labelPadding=14,
            labelFlush=False,
            tickCount=6,
        )
        .configure_legend(labelColor=INK, labelFontSize=12, labelLimit=200, title=None, orient="bottom", columns=3)
    )


def with_intervals(
    rows: Sequence[Mapping[str, Any]], title: str, axis: str, highlight: str, reference: float | None = None
) -> str:
    """A dot and a 95 % bar for each row (``label``, ``mean``, ``low``, ``high``), top to bottom as given.

    ``highlight``: the label drawn in colour; ``reference``: a dashed line with its value.
    """
    import altair as alt

    names = [r["label"] for r in rows]
    base = alt.Chart(alt.Data(values=[dict(r) for r in rows])).encode(
        y=alt.Y("label:N", sort=names, title=None, axis=alt.Axis(grid=False)),
        color=alt.condition(
            alt.FieldEqualPredicate(field="label", equal=highlight), alt.value(ACCENT), alt.value(PALE)
        ),
    )
    bars = base.mark_rule(strokeWidth=3, opacity=0.55).encode(x=alt.X("low:Q", title=axis), x2="high:Q")
    dots = base.mark_circle(size=90, opacity=1).encode(x="mean:Q")
    text = base.mark_text(dy=-11, fontSize=11).encode(x="mean:Q", text=alt.Text("mean:Q", format=".3f"))
    layers = [bars, dots, text]
    if reference is not None:
        line = alt.Chart(alt.Data(values=[{"x": reference}])).mark_rule(color=INK, strokeDash=[4, 4]).encode(x="x:Q")
        layers.insert(0, line)
    return svg(style(alt.layer(*layers).properties(height=alt.Step(34)), title))


def lines(rows: Sequence[Mapping[str, Any]], title: str, axis: str, names: Sequence[str]) -> str:
    """One line a ``label`` over ``k``; ``names`` fixes the colours, the main model first."""
    import altair as alt

    x = alt.X(
        "k:Q",
        title="list length K",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(values=sorted({r["k"] for r in rows})),
    )
    return svg(style(_coloured(alt.Chart(alt.Data(values=[dict(r) for r in rows])), x, axis, names), title))


def falling(
    rows: Sequence[Mapping[str, Any]],
    title: str,
    axis: str,
    names: Sequence[str],
    reference: tuple[str, float] | None = None,
) -> str:
    """One line a ``label`` over ``share``; the first of ``names`` with a bar from ``low`` to ``high``.

    The scale starts at zero, so that a fall looks as large as it is. ``reference``: name and level of a dashed line.
    """
    import altair as alt

    base = alt.Chart(alt.Data(values=[dict(r) for r in rows]))
    shares = sorted({r["share"] for r in rows})
    x = alt.X(
        "share:Q",
        title="share lost at random" + (f" (dashed: {reference[0]})" if reference else ""),
        scale=alt.Scale(domain=[0, shares[-1]], nice=False),
        axis=alt.Axis(values=shares, format="%", grid=False),
    )
    bars = (
        base.transform_filter(alt.FieldEqualPredicate(field="label", equal=names[0]))
        .mark_rule(strokeWidth=3, opacity=0.35, color=ACCENT)
        .encode(x=x, y=alt.Y("low:Q", title=axis), y2="high:Q")
    )
    layers = [bars, _coloured(base, x, axis, names)]
    if reference is not None:
        level = alt.Chart(alt.Data(values=[{"y": reference[1]}]))
        layers.insert(0, level.mark_rule(color=INK, strokeDash=[4, 4]).encode(y="y:Q"))
    return svg(style(alt.layer(*layers), title))


def against_diagonal(
    rows: Sequence[Mapping[str, Any]], title: str, x_axis: str, axis: str, names: Sequence[str]
) -> str:
    """One line a ``label`` of ``value`` over ``x``, and the dashed diagonal on which both are the same."""
    import altair as alt

    top = max(max(r["x"], r["value"]) for r in rows)
    x = alt.X("x:Q", title=f"{x_axis} (dashed: the same)", axis=alt.Axis(format="%", grid=False))
    ends = alt.Chart(alt.Data(values=[{"x": 0.0, "value": 0.0}, {"x": top, "value": top}]))
    diagonal = ends.mark_line(color=INK, strokeDash=[4, 4], strokeWidth=1).encode(x="x:Q", y="value:Q")
    y = alt.Y("value:Q", title=axis, axis=alt.Axis(format="%"))
    drawn = _coloured(alt.Chart(alt.Data(values=[dict(r) for r in rows])), x, y, names)
    return svg(style(alt.layer(diagonal, drawn), title))


def _coloured(base: Any, x: Any, axis: Any, names: Sequence[str]) -> Any:
    """Lines with dots of ``value`` over ``x``, one colour a ``label``, the first of ``names`` in front; ``axis``: that
    of the values, or its title."""
    import altair as alt

    return (
        base.mark_line(point=alt.OverlayMarkDef(size=40), strokeWidth=2)
        .encode(
            x=x,
            y=alt.Y("value:Q", title=axis) if isinstance(axis, str) else axis,
            color=alt.Color("label:N", scale=alt.Scale(domain=list(names), range=(_SCHEME * 3)[: len(names)])),
            opacity=alt.condition(
                alt.FieldEqualPredicate(field="label", equal=names[0]), alt.value(1), alt.value(0.75)
            ),
        )
        .properties(height=230)
    )


PAIRED = ("#c2410c", "#f0a983", "#2563a8", "#9cc0e4")
"""Two hues, each strong and pale, for bars of two by two parts."""


def grouped(
    rows: Sequence[Mapping[str, Any]], title: str, axis: str, colours: Sequence[str] = (ACCENT, "#2563a8", "#9aa5b1")
) -> str:
    """A bar from zero with its interval for each ``label`` and ``part`` (one of ``colours`` a part)."""
    import altair as alt

    names = list(dict.fromkeys(r["label"] for r in rows))
    parts = list(dict.fromkeys(r["part"] for r in rows))
    base = alt.Chart(alt.Data(values=[dict(r) for r in rows])).encode(
        y=alt.Y("label:N", sort=names, title=None, axis=alt.Axis(grid=False)),
        yOffset=alt.YOffset("part:N", sort=parts),
    )
    scale = alt.Scale(domain=parts, range=(list(colours) * len(parts))[: len(parts)])
    colour = alt.Color("part:N", scale=scale, sort=parts, legend=alt.Legend(columns=2))
    bars = base.mark_bar().encode(x=alt.X("mean:Q", title=axis), color=colour)
    whiskers = base.mark_rule(color=INK, strokeWidth=1.2, opacity=0.8).encode(x="low:Q", x2="high:Q")
    return svg(style(alt.layer(bars, whiskers).properties(height=alt.Step(15)), title))


def shares(rows: Sequence[Mapping[str, Any]], title: str, names: Sequence[str], bands: Sequence[str]) -> str:
    """Stacked shares of each ``band`` (given from rare to popular) for each ``label``."""
    import altair as alt

    scale = ["#c2410c", "#dbe4ee", "#8fb0d1", "#2563a8"][-len(bands) :]
    numbered = [{**r, "place": list(bands).index(r["band"])} for r in rows]
    chart = (
        alt.Chart(alt.Data(values=numbered))
        .mark_bar(size=20)
        .encode(
            y=alt.Y("label:N", sort=list(names), title=None, axis=alt.Axis(grid=False)),
            x=alt.X(
                "share:Q", title="share of the items shown", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])
            ),
            color=alt.Color(
                "band:N",
                sort=list(bands),
                scale=alt.Scale(domain=list(bands), range=scale),
                legend=alt.Legend(columns=4),
            ),
            order=alt.Order("place:Q"),
        )
        .properties(height=alt.Step(30))
    )
    return svg(style(chart, title))

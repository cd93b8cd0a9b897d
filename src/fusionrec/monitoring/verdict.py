"""From single comparisons to one verdict: is there drift, why, and who is to blame. Pure.

Multiple testing. The parts (each modality, attributes, behaviour, predictions, data quality) that could be computed
share ``alpha`` equally (Bonferroni); inside a part the tests are stepped down by Holm (1979), "A simple sequentially
rejective multiple test procedure". So the probability that a batch without drift raises any alarm is at most
``alpha``, whatever the dependence of the tests. A significant test alarms only if its effect is at least
``min_effect``, which can only lower that probability and keeps a huge batch from alarming on nothing.

All effects are in standard deviations (Cohen 1988, "Statistical power analysis", ch. 2 and 6): d of a number, h of a
share, and for a domain classifier the d whose normal shift has the same AUC. They are capped at :data:`CAP`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

CAP = 3.0
PREDICTIONS, EMBEDDING = "predictions", "embedding"
Status = Literal["drift", "no drift", "not computable"]


@dataclass(frozen=True)
class Measure:
    """One comparison of a reference with a batch.

    ``part``: who is compared (a modality, attributes, behaviour, predictions, data quality); ``subject``: who is to
    blame if it drifted (missing pictures are a matter of data quality, and the picture's to blame); ``p`` in [0, 1]
    and ``effect`` in [0, CAP], both None where it could not be computed, for the reason ``why``; ``before``,
    ``after``: the values in words; ``words``: the sentence if it alarms; ``level``: what p was compared with.
    """

    part: str
    name: str
    subject: str = ""
    p: float | None = None
    effect: float | None = None
    method: str = ""
    n_reference: int = 0
    n_current: int = 0
    before: str = ""
    after: str = ""
    words: str = ""
    why: str = ""
    level: float | None = None
    alarm: bool = False

    @property
    def computed(self) -> bool:
        return self.p is not None and self.effect is not None

    @property
    def blames(self) -> str:
        return self.subject or self.part


@dataclass(frozen=True)
class Verdict:
    """``blamed``: the part with the largest effect, or None; ``ranking``: all parts that alarmed, by effect."""

    status: Status
    blamed: str | None
    ranking: tuple[tuple[str, float], ...]
    reasons: tuple[str, ...]
    not_computable: tuple[str, ...]
    measures: tuple[Measure, ...]

    @property
    def sentence(self) -> str:
        """The verdict for people, in one sentence."""
        if self.status == "not computable":
            return "Drift could not be computed: " + (self.not_computable[0] if self.not_computable else "no data")
        if self.status == "no drift":
            done = sum(m.computed for m in self.measures)
            left = f"; {len(self.not_computable)} could not be computed" if self.not_computable else ""
            return f"No drift: none of {done} comparisons moved enough to matter{left}."
        return f"Drift in {self.blamed}: {self.reasons[0].removeprefix(f'{self.blamed}: ')}."

    def as_dict(self) -> dict[str, Any]:
        """Plain values for verdict.json."""
        return {
            "status": self.status,
            "sentence": self.sentence,
            "blamed": self.blamed,
            "ranking": [{"part": part, "effect": round(effect, 4)} for part, effect in self.ranking],
            "reasons": list(self.reasons),
            "not_computable": list(self.not_computable),
            "measures": [_rounded(asdict(m)) for m in self.measures],
        }


def judge(measures: Sequence[Measure], alpha: float, min_effect: float) -> Verdict:
    """The verdict over all comparisons; see the module's text for the rule."""
    judged = _holm([_sane(m) for m in measures], alpha, min_effect)
    alarms = sorted((m for m in judged if m.alarm), key=lambda m: (-(m.effect or 0.0), m.p or 0.0, m.part, m.name))
    silent = tuple(f"{m.part}, {m.name}: {m.why}" for m in judged if not m.computed)
    # Predictions follow from everything else, so they are blamed only where nothing else moved.
    roots = [m for m in alarms if m.blames != PREDICTIONS] or alarms
    effects: dict[str, list[float]] = {}
    for m in roots:
        effects.setdefault(m.blames, []).append(m.effect or 0.0)
    ranking = sorted(((part, max(found)) for part, found in effects.items()),
                     key=lambda pair: (-pair[1], -sum(effects[pair[0]]), pair[0]))  # fmt: skip
    first = [m for m in alarms if ranking and m.blames == ranking[0][0]]
    first.sort(key=lambda m: m.name == EMBEDDING)  # what a person can hear or see says more than a classifier
    reasons = tuple(m.words for m in [*first, *(m for m in alarms if m not in first)])
    status: Status = "drift" if alarms else "no drift" if any(m.computed for m in judged) else "not computable"
    return Verdict(status, ranking[0][0] if ranking else None, tuple(ranking), reasons, silent, tuple(judged))


def _sane(measure: Measure) -> Measure:
    """A number that is none (a degenerate column) makes a comparison not computable."""
    if not measure.computed or (math.isfinite(measure.p or 0.0) and math.isfinite(measure.effect or 0.0)):
        return measure
    return replace(measure, p=None, effect=None, why="the test gave no number (a degenerate column)")


def _holm(measures: Sequence[Measure], alpha: float, min_effect: float) -> list[Measure]:
    """Bonferroni over the parts that were computed, Holm inside each; the order of the measures stays."""
    parts: dict[str, list[int]] = {}
    for at, m in enumerate(measures):
        if m.computed:
            parts.setdefault(m.part, []).append(at)
    out = list(measures)
    for rows in parts.values():
        rejecting = True
        for done, at in enumerate(sorted(rows, key=lambda r: measures[r].p or 0.0)):
            m = measures[at]
            level = alpha / len(parts) / (len(rows) - done)
            rejecting = rejecting and (m.p or 0.0) <= level
            out[at] = replace(m, level=level, alarm=rejecting and (m.effect or 0.0) >= min_effect)
    return out


def cohens_h(before: float, after: float) -> float:
    """The effect of a changed share: 2 asin sqrt(after) - 2 asin sqrt(before), in [-pi, pi]."""
    return 2 * math.asin(math.sqrt(min(max(after, 0.0), 1.0))) - 2 * math.asin(math.sqrt(min(max(before, 0.0), 1.0)))


def d_of_auc(auc: float) -> float:
    """The shift in standard deviations of two normals whose AUC this is: sqrt(2) * quantile(auc), in [0, CAP]."""
    return min(CAP, math.sqrt(2) * NormalDist().inv_cdf(min(max(auc, 0.5), 0.999)))


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in values.items()}

"""Learns from earlier queries: the means of their languages, the click side, the weights, and which words they knew.

Everything is chosen by time: fitted on the earlier of them, compared on the last ones, then fitted on all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from fusionrec.evaluation.significance import paired
from fusionrec.search.clicks import ClickMap, Regression
from fusionrec.search.past import Past
from fusionrec.search.weights import CLICKS, UNTOLD, Weights, choose, ndcg, standardised
from fusionrec.search.words import tokens
from fusionrec.types import Float32

LEAST = 200  # fewer earlier queries teach nothing
HELD = 0.15  # the share that chooses
MOST_HELD = 1_000
RANKS = (8, 16, 24, 32, 48)
SEEN = 5  # a word is known, and kept, once so many users searched for it: no word of one person is written down
JOINS = 0.01  # the p of "better with it" below which one more modality joins the click side
REACH = 0.02  # the share of items that must get a place by one that only does no harm
GROUP = 20  # so many queries of a language tell its mean


@dataclass(frozen=True)
class Learnt:
    """``means``: language -> (D,) mean of its queries; ``words``: tokens that the log knows; ``map`` None where earlier
    queries are too few or foretell nothing. ``told`` says in figures what was chosen, and on how many queries."""

    weights: Weights = UNTOLD
    means: Mapping[str, Float32] = field(default_factory=dict)
    words: frozenset[str] = frozenset()
    map: ClickMap | None = None
    told: Mapping[str, object] = field(default_factory=dict)

    def for_query(self, text: str) -> Weights:
        """The learnt weights as far as the log knows the query's words; a name it never saw is left to the defaults."""
        said = set(tokens(text))
        return self.weights.mixed(UNTOLD, len(said & self.words) / len(said)) if said else UNTOLD


def means_of(vectors: Float32, languages: list[str]) -> dict[str, Float32]:
    """language -> (D,) the mean of its queries, where there are at least :data:`GROUP`."""
    at = np.array(languages)
    counted = Counter(languages)
    return {name: vectors[at == name].mean(0) for name in sorted(counted) if counted[name] >= GROUP}


def learn(
    past: Past, placed: Float32, plain: Callable[[Past], dict[str, Float32]], spaces: Mapping[str, Float32]
) -> Learnt:
    """``placed`` (Q, D): the queries' vectors in their place; ``plain`` gives the standardised (B, I) scores of the
    sides that need no learning; ``spaces``: modality -> (I, E) whitened item vectors. ``past`` is in time order."""
    said = {(token, user) for text, user in zip(past.texts, past.users, strict=True) for token in tokens(text)}
    counted = Counter(token for token, _ in said)
    words = frozenset(token for token, n in counted.items() if n >= SEEN)
    if len(past) < LEAST or not spaces:
        return Learnt(words=frozenset(), told={"queries": len(past)})
    held = min(round(HELD * len(past)), MOST_HELD)
    fit, last = np.arange(len(past) - held), np.arange(len(past) - held, len(past))
    earlier, later = past.select(fit), past.select(last)
    used, rank = _space(earlier, placed[fit], later, placed[last], spaces)
    joined = np.concatenate([spaces[name] for name in used], axis=1)
    sides = plain(later)
    before, plainly = choose(sides, later.clicked)
    clicks = Regression(placed[fit], earlier.clicked, joined).cut(rank).scores(placed[last])
    weights, reached = choose({**sides, CLICKS: standardised(clicks)}, later.clicked)
    told = {
        "queries": len(past), "held": held, "modalities": list(used), "rank": rank, "weights": asdict(weights),
        "ndcg@10": round(reached, 4), "ndcg@10 without clicks": round(plainly, 4), "weights without clicks":
        asdict(before),
    }  # fmt: skip
    made = Regression(placed, past.clicked, joined).cut(rank) if weights.clicks else None
    return Learnt(weights, words=words, map=made, told=told)


def _space(
    earlier: Past, x: Float32, later: Past, y: Float32, spaces: Mapping[str, Float32]
) -> tuple[tuple[str, ...], int]:
    """The modalities and the rank that foretell the held clicks best. The best modality alone comes first, the others
    are asked in the order of what they foretell alone. One joins where it helps by a paired test (the best of many
    tries looks better than it is), or where it does no harm and gives a place to items that had none: a thing without
    words is then found by its picture."""

    def best(names: tuple[str, ...]) -> tuple[NDArray[np.float64], int]:
        regression = Regression(x, earlier.clicked, np.concatenate([spaces[name] for name in names], axis=1))
        tried = [(ndcg(regression.cut(rank).scores(y), later.clicked), rank) for rank in RANKS]
        return max(tried, key=lambda pair: float(pair[0].mean()))

    alone = {name: best((name,)) for name in spaces}
    first, *others = sorted(spaces, key=lambda name: -float(alone[name][0].mean()))
    names: tuple[str, ...] = (first,)
    reached, rank = alone[first]
    placeless = ~spaces[first].any(axis=1)
    for name in others:
        found, its_rank = best((*names, name))
        reaches = (placeless & spaces[name].any(axis=1)).mean() >= REACH and found.mean() >= reached.mean()
        if reaches or paired(found, reached).p < JOINS:
            names, reached, rank = (*names, name), found, its_rank
            placeless &= ~spaces[name].any(axis=1)
    return names, rank

"""Probabilities that mean what they say: a slope and an intercept on the log odds, from validation impressions.

Platt, "Probabilistic outputs for support vector machines", 1999; networks stopped early are off in the same way (Guo et
al., "On calibration of modern neural networks", ICML 2017). Two numbers a task, and the slope stays positive, so the
order within a task does not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from fusionrec.types import Float32, Float64

SAME = (1.0, 0.0)
FEWEST = 20
"""Of either outcome: fewer do not tell how far a prediction is off, and it is left alone."""
SLOPES = (0.1, 10.0)
CLIP = 1e-7


def log_odds(p: Float32 | Float64) -> Float64:
    """Of probabilities, cut off at :data:`CLIP` from 0 and 1."""
    clipped = np.clip(np.asarray(p, np.float64), CLIP, 1 - CLIP)
    return np.log(clipped) - np.log1p(-clipped)


def fit(p: Float32 | Float64, label: Float32 | Float64, seen: Float32 | Float64 | None = None) -> tuple[float, float]:
    """Slope and intercept with the least log loss; ``p`` (N,) probabilities, ``label`` (N,) 0 or 1, NaN: unknown.

    ``seen`` (N,) in (0, 1]: what happens is ``seen`` times the calibrated ``p``, as where a place is not always looked
    at."""
    from scipy.optimize import minimize

    here = ~np.isnan(label)
    x, yes = log_odds(p[here]), np.asarray(label[here], np.float64) > 0.5
    part = np.ones(len(x)) if seen is None else np.asarray(seen[here], np.float64)
    if min(yes.sum(), (~yes).sum()) < FEWEST:
        return SAME

    def loss(at: Float64) -> float:
        chance = np.clip(part / (1 + np.exp(-(at[0] * x + at[1]))), CLIP, 1 - CLIP)
        return float(-np.log(np.where(yes, chance, 1 - chance)).mean())

    found = minimize(loss, np.array(SAME), method="L-BFGS-B", bounds=[SLOPES, (-20.0, 20.0)])
    return float(found.x[0]), float(found.x[1])


def apply(p: Float32 | Float64, calibration: tuple[float, float]) -> Float32:
    """``p`` of any shape, calibrated; unchanged by :data:`SAME`."""
    if calibration == SAME:
        return np.asarray(p, np.float32)
    slope, intercept = calibration
    return np.asarray(1 / (1 + np.exp(-(slope * log_odds(p) + intercept))), np.float32)


class Calibrated:
    """What rankers keep of it: ``calibration``, task -> slope and intercept."""

    PREFIX: ClassVar[str] = "calibration/"
    calibration: dict[str, tuple[float, float]]

    def calibration_arrays(self) -> dict[str, np.ndarray]:
        return {f"{self.PREFIX}{task}": np.array(pair, np.float64) for task, pair in self.calibration.items()}

    def restore_calibration(self, arrays: Mapping[str, np.ndarray]) -> None:
        names = [name for name in arrays if name.startswith(self.PREFIX)]
        pairs = {name.removeprefix(self.PREFIX): arrays[name].tolist() for name in names}
        self.calibration = {task: (pair[0], pair[1]) for task, pair in pairs.items()}

"""Hyper-parameter search with Optuna's TPE on a number that ``evaluate`` gives (D13, E6).

Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011; Akiba et al., "Optuna", KDD 2019,
arXiv:1907.10902. Every draw is a function of the seed and of the finished trials alone: the sampler is made anew for
each, seeded by their number. So a search that was killed and resumed draws what one without a break draws.

Nothing here sees data. Whoever writes ``evaluate`` gives it the validation split and nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fusionrec.errors import ConfigError
from fusionrec.recommenders.base import RetrieverSpec
from fusionrec.studies.file import exclusive, opened
from fusionrec.studies.space import Point, Space, digest, replaced, space_of

Told = Callable[[int, float], None]
"""``report(epoch, value)``: how a trial goes, higher is better."""
Evaluate = Callable[[RetrieverSpec, Told], float]
_STARTUP = 5  # points drawn at random before TPE has something to go by
_REDRAWS = 3  # points in a row that are known already, before one is drawn among those that are not
_SAME, _REASON, _SECONDS = "same_as", "reason", "seconds"


@dataclass(frozen=True)
class Trial:
    """One point that was tried.

    ``point``: dotted field -> value; ``curve``: (epoch, value) as reported; ``study``: the id that a study keeps from
    its first trial on over every resumption.
    """

    number: int
    point: Mapping[str, Any]
    state: Literal["running", "done", "failed", "pruned"]
    value: float | None = None
    reason: str = ""
    seconds: float = 0.0
    curve: tuple[tuple[int, float], ...] = ()
    study: str = ""


@dataclass(frozen=True)
class Found:
    """The best spec, its value on validation, every trial, and which of them it is."""

    spec: RetrieverSpec
    value: float
    trials: tuple[Trial, ...]
    best: Trial = field(kw_only=True)


class Pruned(Exception):  # noqa: N818  (an end like another, no error)
    """Raised by ``report`` where the trial is hopeless; ``evaluate`` lets it pass."""


def search(
    spec: RetrieverSpec,
    evaluate: Evaluate,
    *,
    trials: int,
    seed: int,
    storage: Path,
    name: str,
    watch: Callable[[Trial], None] | None = None,
    data: str = "",
    prune: bool = False,
    seconds: float | None = None,
) -> Found:
    """Try ``trials`` points of the spec's space, the spec as given first, and return the best (the earliest of equals).

    ``storage``: a sqlite file; what was finished there under ``name`` counts, and a trial that was running when its
    process died is repeated. Points are never tried twice, and a space with fewer points ends the search early.
    ``watch`` gets each finished trial that was there before, then each new one at its beginning and at its end.
    ``data``: a digest of everything else that a value depends on. ``prune``: end trials that are worse than the median
    at the same epoch; budgets are then unequal. ``seconds``: what one trial may take, looked at when it reports.

    A trial whose ``evaluate`` raises ValueError, MemoryError, TimeoutError or gives no finite number has failed, with
    its reason, and the search goes on. Any other exception ends the search and leaves the trial to be repeated.
    Raises ConfigError where the study was made with another spec, space, data or seed, where every trial failed, and
    where the file cannot be used; Busy where another process searches in it.
    """
    if trials < 1:
        raise ValueError(f"a search needs at least one trial, found {trials}")
    space = space_of(spec)
    about = {
        "spec": digest(spec),
        "space": space.digest(),
        "data": data,
        "settings": digest({"seed": seed, "prune": prune}),
    }
    tell = watch or (lambda trial: None)
    with exclusive(storage), opened(storage, name, about, prune) as study:
        _give_back(study, space)
        for trial in _history(study, space)[:trials]:
            tell(trial)
        while len(kept := _history(study, space)) < min(trials, space.size):
            asked, point = _next(study, space, seed)
            tell(Trial(len(kept), space.values(point), "running", study=study.user_attrs["id"]))
            _run(study, asked, space, point, evaluate, seconds)
            tell(_history(study, space)[-1])
    return _best(space, tuple(kept[:trials]))


def _best(space: Space, trials: tuple[Trial, ...]) -> Found:
    done = [trial for trial in trials if trial.state == "done" and trial.value is not None]
    if not done:
        raise ConfigError(
            f"all {len(trials)} trials of {space.spec.kind} failed; the first: {trials[0].reason}\n"
            "correct the cause and start the search anew"
        )
    best = max(done, key=lambda trial: (trial.value, -trial.number))
    return Found(replaced(space.spec, best.point), float(best.value or 0.0), trials, best=best)


def _run(study: Any, asked: Any, space: Space, point: Point, evaluate: Evaluate, seconds: float | None) -> None:
    """One trial, told to the study however it ends."""
    from optuna.trial import TrialState

    begin = time.monotonic()
    told: set[int] = set()

    def report(epoch: int, value: float) -> None:
        assert epoch not in told, f"epoch {epoch} was reported before"  # noqa: S101  (a bug of ours)
        told.add(epoch)
        asked.report(float(value), int(epoch))
        taken = time.monotonic() - begin
        if seconds is not None and taken > seconds:
            raise TimeoutError(f"stopped after {taken:.0f} s in epoch {epoch}; a trial may take {seconds:.0f} s")
        if asked.should_prune():
            raise Pruned(f"worse than the median of the others at epoch {epoch}")

    value, state, reason = None, TrialState.FAIL, ""
    try:
        value = float(evaluate(space.chosen(point), report))
        if math.isfinite(value):
            state = TrialState.COMPLETE
        else:
            value, reason = None, f"its value is {value}"
    except Pruned as stop:
        state, reason = TrialState.PRUNED, str(stop)
    except (ValueError, MemoryError, TimeoutError) as error:
        text = next(iter(str(error).strip().splitlines()), "")
        reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if reason:
        asked.set_user_attr(_REASON, reason[:500])
    asked.set_user_attr(_SECONDS, round(time.monotonic() - begin, 3))
    study.tell(asked, value, state=state)


def _next(study: Any, space: Space, seed: int) -> tuple[Any, Point]:
    """The next point that was not tried yet; known ones that TPE draws on the way are told with their known end."""
    from optuna.trial import TrialState

    distributions = space.distributions()
    for draw in range(space.size + _REDRAWS + 1):
        known = {space.read(t.params): t for t in reversed(_ended(study)) if _SAME not in t.user_attrs}
        number = len(_ended(study))
        study.sampler = _sampler(np.random.SeedSequence([seed, number]))
        if space.own not in known:
            if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                study.enqueue_trial(space.params(space.own))
        elif draw >= _REDRAWS:
            study.enqueue_trial(space.params(_untried(space, set(known), seed, number)))
        asked = study.ask(distributions)
        point = space.read(asked.params)
        if point not in known:
            return asked, point
        same = known[point]
        asked.set_user_attr(_SAME, same.number)
        state = TrialState.COMPLETE if same.state == TrialState.COMPLETE else TrialState.FAIL
        study.tell(asked, same.value if state == TrialState.COMPLETE else None, state=state)
    raise AssertionError("a point among the untried ones was known")


def _untried(space: Space, known: set[Point], seed: int, number: int) -> Point:
    """A point drawn from those that are not ``known``, of which there is one at least."""
    start = int(np.random.default_rng([seed, number, 1]).integers(space.size))
    while space.point(start % space.size) in known:
        start += 1
    return space.point(start % space.size)


def _sampler(seed: np.random.SeedSequence) -> Any:
    from optuna.samplers import TPESampler

    return TPESampler(
        n_startup_trials=_STARTUP,
        seed=int(seed.generate_state(1)[0]),
        multivariate=False,
        constant_liar=False,  # one process searches at a time, so a running trial is a dead one
    )


def _ended(study: Any) -> list[Any]:
    """Optuna's trials that came to an end, in their order.

    Those that a death of the process cut short are none: they are told as failed, and have no reason.
    """
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and (trial.state.name != "FAIL" or {_REASON, _SAME} & trial.user_attrs.keys())
    ]


def _history(study: Any, space: Space) -> list[Trial]:
    """What was really tried, numbered from 0 in its order."""
    names: dict[str, Literal["done", "failed", "pruned"]] = {"COMPLETE": "done", "FAIL": "failed", "PRUNED": "pruned"}
    tried = [trial for trial in _ended(study) if _SAME not in trial.user_attrs]
    return [
        Trial(
            number,
            space.values(space.read(trial.params)),
            names[trial.state.name],
            float(trial.value) if trial.state.name == "COMPLETE" else None,
            str(trial.user_attrs.get(_REASON, "")),
            float(trial.user_attrs.get(_SECONDS, 0.0)),
            tuple(sorted(trial.intermediate_values.items())),
            study.user_attrs["id"],
        )
        for number, trial in enumerate(tried)
    ]


def _give_back(study: Any, space: Space) -> None:
    """Queue what was running when its process died, once more. We hold the file's lock: nobody works on it."""
    from optuna.trial import TrialState

    fields = set(space.choices)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if set(trial.params) == fields:  # else it died while it was drawn, and is drawn again
            study.enqueue_trial(dict(trial.params))

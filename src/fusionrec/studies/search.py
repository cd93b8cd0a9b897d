"""Hyper-parameter search with Optuna's TPE on a number that ``evaluate`` gives (D13, E6).

Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011; Akiba et al., "Optuna", KDD 2019,
arXiv:1907.10902. Every draw is a function of the seed and of the finished trials alone: the sampler is made anew for
each, seeded by their number. So a search that was killed and resumed draws what one without a break draws.

Nothing here sees data. Whoever writes ``evaluate`` gives it the validation split and nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Set
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
_SAME, _REASON, _SECONDS, _CUT = "same_as", "reason", "seconds", "cut"


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
    """The best spec, its value on validation, every point's last trial (the given one's first), and which is best."""

    spec: RetrieverSpec
    value: float
    trials: tuple[Trial, ...]
    best: Trial = field(kw_only=True)


class AllFailed(ConfigError):
    """No trial of a search gave a value; ``trials`` has their reasons."""

    def __init__(self, message: str, trials: tuple[Trial, ...]) -> None:
        super().__init__(message)
        self.trials = trials


class Unfinished(Exception):  # noqa: N818  (as above: an end)
    """Raised by ``evaluate`` where a trial did not come to an end of its own (killed, no time left)."""


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
    code: str = "",
    prune: bool = False,
    seconds: float | None = None,
) -> Found:
    """Try ``trials`` points of the spec's space, the spec as given first, and return the best (the earliest of equals).

    ``storage``: a sqlite file; what was finished there under ``name`` counts, and a trial that was running when its
    process died is repeated. Points are never tried twice, and a space with fewer points ends the search early.
    ``watch`` gets each finished trial that was there before, then each new one at its beginning and at its end.
    ``data``: a digest of everything else that a value depends on, ``code``: of the source that computes it. ``prune``:
    end trials that are worse than the median at the same epoch; budgets are then unequal. ``seconds``: what one trial
    may take, looked at when it reports.

    A trial whose ``evaluate`` raises ValueError, MemoryError, TimeoutError, Unfinished or gives no finite number has
    failed, with its reason, and the search goes on. A later call tries the point once more where it was Unfinished, or
    where it was stopped for its time and may take more now. Any other exception ends the search and leaves the trial
    to be repeated.
    Raises ConfigError where the study was made with another spec, space, data, code or seed and where the file cannot
    be used; AllFailed where every trial failed; Busy where another process searches in it.
    """
    if trials < 1:
        raise ValueError(f"a search needs at least one trial, found {trials}")
    space = space_of(spec)
    about = {"code": code} if code else {}
    about |= {
        "spec": digest(spec),
        "space": space.digest(),
        "data": data,
        "settings": digest({"seed": seed, "prune": prune}),
    }
    tell = watch or (lambda trial: None)
    with exclusive(storage), opened(storage, name, about, prune) as study:
        again = _again(study, space, trials, seconds)
        _give_back(study, space, again)
        asked_for = list(dict(_history(study, space)))[:trials]
        for point, trial in _history(study, space):
            if point in asked_for:
                tell(trial)
        while again or len(dict(_history(study, space))) < min(trials, space.size):
            asked, point = _next(study, space, seed, again)
            number = len(_history(study, space))
            tell(Trial(number, space.values(point), "running", study=study.user_attrs["id"]))
            _run(study, asked, space, point, evaluate, seconds)
            again.discard(point)
            tell(_history(study, space)[number][1])
        last = dict(_history(study, space))  # a point that was tried again stays where it was, with its new end
    return _best(space, tuple(last.values())[:trials])


def _best(space: Space, trials: tuple[Trial, ...]) -> Found:
    done = [trial for trial in trials if trial.state == "done" and trial.value is not None]
    if not done:
        raise AllFailed(
            f"all {len(trials)} trials of {space.spec.kind} failed; the first: {trials[0].reason}\n"
            "correct the cause and start the search anew",
            trials,
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
    except Unfinished as stop:
        reason = str(stop) or "ended from outside"
        asked.set_user_attr(_CUT, True)
    except (ValueError, MemoryError, TimeoutError) as error:
        text = next(iter(str(error).strip().splitlines()), "")
        reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if reason:
        asked.set_user_attr(_REASON, reason[:500])
    asked.set_user_attr(_SECONDS, round(time.monotonic() - begin, 3))
    study.tell(asked, value, state=state)


def _next(study: Any, space: Space, seed: int, again: Set[Point]) -> tuple[Any, Point]:
    """The next point that was not tried yet, or is to be tried ``again``; known ones that TPE draws on the way are
    told with their known end."""
    from optuna.trial import TrialState

    distributions = space.distributions()
    for draw in range(space.size + _REDRAWS + 1):
        known = {point: t for t in _tried(study) if (point := space.read(t.params)) not in again}
        number = len(_ended(study))
        study.sampler = _sampler(np.random.SeedSequence([seed, number]))
        if space.own not in known and space.own not in again:
            if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                study.enqueue_trial(space.params(space.own))
        elif draw >= _REDRAWS and not again:
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


def _tried(study: Any) -> list[Any]:
    """Those of :func:`_ended` that were really computed."""
    return [trial for trial in _ended(study) if _SAME not in trial.user_attrs]


def _again(study: Any, space: Space, trials: int, seconds: float | None) -> set[Point]:
    """Of the first ``trials`` points those that deserve another trial: the last one did not come to an end of its own,
    or was stopped for its time and may take longer now."""
    last = {space.read(trial.params): trial for trial in _tried(study)}
    out = set()
    for point, trial in list(last.items())[:trials]:
        late = str(trial.user_attrs.get(_REASON, "")).startswith("TimeoutError")
        more = seconds is None or seconds > trial.user_attrs.get(_SECONDS, 0.0)
        if trial.state.name == "FAIL" and (_CUT in trial.user_attrs or (late and more)):
            out.add(point)
    return out


def _history(study: Any, space: Space) -> list[tuple[Point, Trial]]:
    """What was really tried, numbered from 0 in its order; a point comes again where it was tried again."""
    names: dict[str, Literal["done", "failed", "pruned"]] = {"COMPLETE": "done", "FAIL": "failed", "PRUNED": "pruned"}
    out = []
    for number, trial in enumerate(_tried(study)):
        point = space.read(trial.params)
        told = Trial(
            number,
            space.values(point),
            names[trial.state.name],
            float(trial.value) if trial.state.name == "COMPLETE" else None,
            str(trial.user_attrs.get(_REASON, "")),
            float(trial.user_attrs.get(_SECONDS, 0.0)),
            tuple(sorted(trial.intermediate_values.items())),
            study.user_attrs["id"],
        )
        out.append((point, told))
    return out


def _give_back(study: Any, space: Space, again: Iterable[Point]) -> None:
    """Queue what was running when its process died, and what is to be tried again. We hold the file's lock: nobody
    works on it."""
    from optuna.trial import TrialState

    fields = set(space.choices)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if set(trial.params) == fields:  # else it died while it was drawn, and is drawn again
            study.enqueue_trial(dict(trial.params))
    queued = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    waiting = [trial.system_attrs.get("fixed_params") for trial in queued]
    for params in map(space.params, sorted(again)):
        if params not in waiting:
            study.enqueue_trial(params)

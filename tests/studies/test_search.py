"""The search: the same draws whatever happens on the way, nothing twice, failures told, a kill survived."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fusionrec.errors import Busy, ConfigError
from fusionrec.studies import file, search
from fusionrec.studies.search import AllFailed, Found, Told, Trial, Unfinished
from tests.studies.toys import Few, Pair, Plain, Toy, Wide, score

ROOT = Path(__file__).resolve().parents[2]


def run(storage: Path, evaluate: Any = score, spec: Any = None, **changed: Any) -> Found:
    options = {"trials": 9, "seed": 5, "storage": storage, "name": "s", "data": "d", **changed}
    return search.search(spec or Toy(), evaluate, **options)


def lines(found: Found) -> list[tuple[Any, ...]]:
    """All of the trials but for how long they took and which study they are of."""
    return [(t.number, dict(t.point), t.state, t.value, t.reason, t.curve) for t in found.trials]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """A search of nine trials without a break."""
    return run(tmp_path_factory.mktemp("whole") / "s.db")


def test_the_first_trial_is_the_spec_as_given_and_the_best_is_found(whole: Found) -> None:
    assert [t.number for t in whole.trials] == list(range(9))
    assert whole.trials[0].point == {"size": 3, "training.lr": 1e-3, "layers": (64, 32), "flag": False}
    best = max(t.value for t in whole.trials)
    assert whole.value == best == whole.best.value and whole.best in whole.trials
    assert whole.spec.size == whole.best.point["size"] and score(whole.spec, lambda e, v: None) == best
    assert all(t.curve == ((0, t.value / 2), (1, t.value)) for t in whole.trials)


def test_no_point_is_tried_twice(whole: Found) -> None:
    assert len({str(t.point) for t in whole.trials}) == 9


def test_the_same_seed_draws_the_same_and_another_seed_does_not(whole: Found, tmp_path: Path) -> None:
    assert lines(run(tmp_path / "again.db")) == lines(whole)
    other = run(tmp_path / "other.db", seed=6)
    assert lines(other)[0] == lines(whole)[0] and lines(other)[1:] != lines(whole)[1:]


def test_tpe_does_better_than_chance(tmp_path: Path) -> None:
    """576 points whose mean value is -(38/12 + 42/12 + 9/4) = -8.9; 14 random ones vary around it by 1."""

    def value(spec: Any, report: Told) -> float:
        return -abs(spec.a - 7) - abs(spec.b - 3) - 3.0 * (spec.c != "z")

    guided = [t.value or 0.0 for t in run(tmp_path / "s.db", value, Wide(), trials=20).trials[6:]]
    assert sum(guided) / len(guided) > -6


def test_a_finished_search_runs_nothing_and_goes_on_when_asked_for_more(whole: Found, tmp_path: Path) -> None:
    tried: list[Any] = []

    def counted(spec: Any, report: Told) -> float:
        tried.append(spec)
        return score(spec, report)

    assert lines(run(tmp_path / "s.db", counted, trials=4)) == lines(whole)[:4]
    assert len(tried) == 4
    assert lines(run(tmp_path / "s.db", counted)) == lines(whole) and len(tried) == 9
    assert lines(run(tmp_path / "s.db", counted, trials=6)) == lines(whole)[:6], "what lies beyond does not count"
    assert len(tried) == 9


def test_a_killed_search_repeats_its_trial_and_ends_as_if_nothing_had_been(whole: Found, tmp_path: Path) -> None:
    storage, marker = tmp_path / "s.db", tmp_path / "marker"
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.studies.toys", str(storage), str(marker)], cwd=ROOT, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while not marker.exists():
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(Busy, match="another process searches in s.db"):
            run(storage)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    told: list[Trial] = []
    tried: list[Any] = []

    def counted(spec: Any, report: Told) -> float:
        tried.append(spec)
        return score(spec, report)

    found = run(storage, counted, watch=told.append)
    assert lines(found) == lines(whole), "the same points in the same order, the half curve forgotten"
    assert len(tried) == 6, "three were finished"
    assert [(t.number, t.state) for t in told[:5]] == [
        (0, "done"),
        (1, "done"),
        (2, "done"),
        (3, "running"),
        (3, "done"),
    ]
    assert len({t.study for t in told}) == 1 and len(told) == 3 + 2 * 6


def test_an_interrupted_trial_is_repeated(whole: Found, tmp_path: Path) -> None:
    """Ctrl-C and bugs end the search; the trial they hit is no failed one."""
    for wrong in (KeyboardInterrupt, ZeroDivisionError):

        def broken(spec: Any, report: Told, wrong: type[BaseException] = wrong) -> float:
            if spec.size != 3:
                raise wrong
            return score(spec, report)

        with pytest.raises(wrong):
            run(tmp_path / "s.db", broken)
    assert lines(run(tmp_path / "s.db")) == lines(whole)


def test_a_small_space_ends_when_all_of_it_was_tried(tmp_path: Path) -> None:
    found = run(tmp_path / "s.db", lambda spec, report: float(spec.size), Few(), trials=50)
    assert sorted(t.point["size"] for t in found.trials) == [2, 4, 5] and found.trials[0].point == {"size": 4}
    assert (found.spec, found.value) == (Few(size=5), 5.0)
    alone = run(tmp_path / "p.db", lambda spec, report: 1.5, Plain(), trials=3)
    assert len(alone.trials) == 1 and alone.trials[0].point == {} and alone.spec == Plain()


def test_the_earliest_of_equals_is_kept(tmp_path: Path) -> None:
    assert run(tmp_path / "s.db", lambda spec, report: 0.25, trials=5).best.number == 0


def test_a_part_of_a_blend_is_searched(tmp_path: Path) -> None:
    pair = Pair(first=Plain(), others=(Plain(), Few()))
    found = run(tmp_path / "s.db", lambda spec, report: float(spec.others[1].size + spec.weight), pair, trials=12)
    assert len(found.trials) == 9 and found.spec == Pair(first=Plain(), others=(Plain(), Few(size=5)), weight=2)


def failing(spec: Any, report: Told) -> float:
    """Each way to fail at one size; 3, the size given, is fine."""
    match spec.size:
        case 1:
            raise MemoryError
        case 6:
            return float("nan")
        case 9:
            raise ValueError("the loss is nan in epoch 2: lower the learning rate\nand more")
    return score(spec, report)


def test_a_failed_trial_keeps_its_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    found = run(tmp_path / "s.db", failing, trials=14)
    assert len(found.trials) == 14 and found.spec.size == 3
    reasons = {t.point["size"]: (t.state, t.value, t.reason) for t in found.trials}
    assert reasons[1] == ("failed", None, "MemoryError") and reasons[6] == ("failed", None, "its value is nan")
    assert reasons[9][2] == "ValueError: the loss is nan in epoch 2: lower the learning rate"
    assert reasons[3][0] == "done" and not reasons[3][2]
    assert lines(run(tmp_path / "s.db", failing, trials=14)) == lines(found), "failed trials are not tried again"


class Clock:
    """What the search takes for the time."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_trial_that_takes_too_long_fails_when_it_reports_and_is_tried_again_with_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, tried = Clock(), []
    monkeypatch.setattr("fusionrec.studies.search.time", clock)

    def slow(spec: Any, report: Told) -> float:
        tried.append(spec.size)
        for epoch in range(100):
            clock.now += 0.0 if spec.size == 5 else 0.0625
            report(epoch, 0.5)
        return float(spec.size)

    found = run(tmp_path / "s.db", slow, Few(), seconds=2.0, trials=3)
    assert [t.state for t in found.trials if t.point["size"] != 5] == ["failed", "failed"] and found.spec == Few(size=5)
    assert found.trials[0].reason.startswith("TimeoutError: stopped after 2 s in epoch 32;")
    assert len(tried) == 3
    assert lines(run(tmp_path / "s.db", slow, Few(), seconds=1.0, trials=3)) == lines(found) and len(tried) == 3
    told: list[Trial] = []
    more = run(tmp_path / "s.db", slow, Few(), seconds=60.0, trials=3, watch=told.append)
    assert sorted(tried[3:]) == [2, 4] and {t.state for t in more.trials} == {"done"}
    assert [t.point for t in more.trials] == [t.point for t in found.trials], "the given point stays the first"
    assert [t.number for t in told] == [0, 1, 2, 3, 3, 4, 4], "numbers are never given twice"
    assert lines(run(tmp_path / "s.db", slow, Few(), trials=3)) == lines(more) and len(tried) == 5


def test_what_was_ended_from_outside_is_tried_once_more_by_the_next_call(tmp_path: Path) -> None:
    calls: list[int] = []

    def killed(spec: Any, report: Told) -> float:
        calls.append(spec.size)
        if spec.size == 2 and calls.count(2) < 3:
            raise Unfinished("ended by SIGKILL: ")
        return float(spec.size)

    for round_ in (1, 2):
        found = run(tmp_path / "s.db", killed, Few(), trials=3)
        lost = next(t for t in found.trials if t.point["size"] == 2)
        assert (lost.state, lost.reason) == ("failed", "ended by SIGKILL: ") and calls.count(2) == round_
    assert {t.state for t in run(tmp_path / "s.db", killed, Few(), trials=3).trials} == {"done"}
    assert sorted(calls) == [2, 2, 2, 4, 5]


def test_when_all_fail_the_first_reason_is_told(tmp_path: Path) -> None:
    def wrong(spec: Any, report: Told) -> float:
        raise ValueError("no items")

    for _ in range(2):
        with pytest.raises(AllFailed, match="all 3 trials of few failed; the first: ValueError: no items") as stop:
            run(tmp_path / "s.db", wrong, Few(), trials=3)
        assert [t.reason for t in stop.value.trials] == ["ValueError: no items"] * 3


def test_another_spec_space_data_or_seed_is_refused(tmp_path: Path) -> None:
    class Wider(Few):
        space = {"size": (5, 2, 8)}

    storage = tmp_path / "s.db"
    first = run(storage, lambda spec, report: 1.0, Few(), trials=1)
    for changed, words in (
        ({"spec": Few(size=2)}, "another spec"),
        ({"spec": Wider()}, "another search space"),
        ({"data": "e"}, "made with other data: its values"),
        ({"code": "c"}, "made with other code"),
        ({"seed": 1}, "another seed"),
    ):
        with pytest.raises(ConfigError, match=words):
            run(storage, lambda spec, report: 1.0, **{"spec": Few(), **changed})
    run(storage, lambda spec, report: 1.0, Few(), data="e", name="another name")
    assert len(run(storage, lambda spec, report: 1.0, Few()).trials) == 3
    file.forget(storage)
    again = run(storage, lambda spec, report: 1.0, Few(size=2), trials=1)
    assert again.trials[0].study != first.trials[0].study


def test_pruning_ends_what_is_worse_than_the_median_and_is_off_by_default(tmp_path: Path) -> None:
    def flat(spec: Any, report: Told) -> float:
        value = score(spec, lambda e, v: None)
        for epoch in range(7):
            report(epoch, value)
        return value

    found = run(tmp_path / "p.db", flat, trials=11, prune=True)
    pruned = [t for t in found.trials if t.state == "pruned"]
    assert pruned and all(t.value is None and t.reason.startswith("worse than the median") for t in pruned)
    assert all(5 <= t.curve[-1][0] < 7 and t.curve[-1][1] < found.value for t in pruned)
    assert {t.state for t in run(tmp_path / "all.db", flat, trials=9).trials} == {"done"}


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"not a database at all, " * 99)
    with pytest.raises(ConfigError, match="the searches in s.db cannot be read .*move the file away"):
        run(tmp_path / "s.db")
    file.forget(tmp_path / "s.db")
    assert run(tmp_path / "s.db", trials=1).trials

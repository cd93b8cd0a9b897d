"""A spec with a space of every kind of value, and an objective whose best point is known.

Run as a program (``python -m tests.studies.toys FILE MARKER``) it searches and hangs in its fourth trial.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import PositiveInt

from fusionrec.recommenders.base import RetrieverSpec
from fusionrec.recommenders.training import Training
from fusionrec.studies.search import Told, search


class Toy(RetrieverSpec):
    """48 points: numbers in order, a nested number, tuples, a flag. ``size`` 3 as given lies among the values."""

    kind: Literal["toy"] = "toy"
    space: ClassVar = {
        "size": (1, 3, 6, 9),
        "training.lr": (1e-2, 1e-3),
        "layers": ((64,), (64, 32), ()),
        "flag": (True, False),
    }
    size: PositiveInt = 3
    layers: tuple[int, ...] = (64, 32)
    flag: bool = False
    training: Training = Training(epochs=7, lr=1e-3)


class Few(RetrieverSpec):
    """Three points; the one given is not among the values."""

    kind: Literal["few"] = "few"
    space: ClassVar = {"size": (5, 2)}
    size: PositiveInt = 4


class Wide(RetrieverSpec):
    kind: Literal["wide"] = "wide"
    space: ClassVar = {"a": tuple(range(12)), "b": tuple(range(12)), "c": ("x", "y", "z", "u")}
    a: int = 0
    b: int = 0
    c: str = "x"


class Plain(RetrieverSpec):
    kind: Literal["plain"] = "plain"
    size: PositiveInt = 4


class Pair(RetrieverSpec):
    """Specs that hold specs: one by name, others in a tuple."""

    kind: Literal["pair"] = "pair"
    space: ClassVar = {"weight": (0.5, 1.0, 2.0)}
    first: RetrieverSpec
    others: tuple[RetrieverSpec, ...] = ()
    weight: float = 1.0


def score(spec: Any, report: Told) -> float:
    """Best, 0, at size 6, lr 0.01, layers (64,), flag."""
    value = -abs(spec.size - 6) - 10 * abs(spec.training.lr - 1e-2) - abs(len(spec.layers) - 1) - (not spec.flag)
    for epoch in range(2):
        report(epoch, value / (2 - epoch))
    return float(value)


def main(storage: Path, marker: Path) -> None:
    tried: list[Any] = []

    def evaluate(spec: Any, report: Told) -> float:
        tried.append(spec)
        if len(tried) == 4:
            report(0, 0.5)
            marker.write_text("hanging")
            time.sleep(600)
        return score(spec, report)

    search(Toy(), evaluate, trials=9, seed=5, storage=storage, name="s", data="d")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""How many CPU threads a computation gets.

Small products and decompositions on several threads spend most of their time waiting for each other, several times as
much as they compute where the machine is busy with something else. So a step that is small runs on one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

WORTH_SHARING = 1e8
"""Multiplications of a step from which a second thread pays."""


LOOKS = 20_000
"""How often a waiting OpenMP thread looks for the others before it sleeps: some 20 microseconds."""


def wait_briefly() -> None:
    """Let threads that wait for others sleep soon; a process calls it before it imports torch, and its children inherit
    it. Who has set OpenMP's policy keeps it.

    By default a waiting thread looks for milliseconds. Where the machine has other work, that is time which the others
    are waiting for: beside two busy processes on two processors a training took fifteen times as long as alone, and
    with this six times; alone it makes no difference.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(LOOKS))


@contextmanager
def threads_for(work: float) -> Iterator[None]:
    """One thread in BLAS, OpenMP and torch where a step has fewer than :data:`WORTH_SHARING` multiplications."""
    if work >= WORTH_SHARING:
        yield
        return
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")  # who has not imported it does not use it
    before = torch.get_num_threads() if torch else 0
    with threadpool_limits(1):
        if torch:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(before)

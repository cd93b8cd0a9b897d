"""What the rankers of data/rankers say of the test's impressions: for the stage evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusionrec.config import Evaluate
from fusionrec.data.split import SplitData
from fusionrec.errors import DataRejected
from fusionrec.evaluation.outcomes import TASKS
from fusionrec.paths import Paths
from fusionrec.ranking import comparing, frame
from fusionrec.ranking.judging import Judgement, judge
from fusionrec.registry.ranker import MAIN, ONLY, WITHOUT, LoadedRanker, load_ranker
from fusionrec.registry.words import load_words
from fusionrec.types import ItemSet


def ranked(
    paths: Paths, data: SplitData, items: ItemSet, rankers: dict[str, LoadedRanker], spec: Evaluate
) -> dict[str, Any]:
    """The content of data/evaluation/ranking.json; its rows are empty where no ranker was trained or nothing of the
    test has an outcome."""
    shown = frame.load(paths, data, items, ("test",))
    found: dict[str, list[dict[str, Judgement]]] = {}
    words = load_words(paths, data.users) if any(one.hears for one in rankers.values()) else None
    for name, one in rankers.items():
        one.ranker.hear(words)  # of which an impression knows those strictly before it
        judged = judge(one.ranker, shown.parts["test"], shown.positives, spec.bootstrap, spec.seed)
        one.ranker.hear(None)  # as it is served: the bundle holds nobody's words
        if judged:
            found[name] = [judged]
    tasks = [task for task in TASKS if any(task in runs[0] for runs in found.values())]
    pairs = [(MAIN, other) for other in found if other != MAIN] if MAIN in found else []
    return {
        "labels": {name: label(name, rankers) for name in found},
        "rows": comparing.rows(found, tasks),
        "tests": comparing.tests(found, tasks, pairs),
        "chosen": MAIN,
        "bins": {task: [dict(b) for b in one.bins] for task, one in found[MAIN][0].items()} if MAIN in found else {},
    }


def label(name: str, rankers: dict[str, LoadedRanker]) -> str:
    """What people read for a ranker's folder."""
    main = rankers[MAIN].label if MAIN in rankers else ""
    if name.startswith(WITHOUT):
        return f"{main} without {name.removeprefix(WITHOUT)}"
    return f"{main}, {name.removeprefix(ONLY)} alone" if name.startswith(ONLY) else rankers[name].label


def load(paths: Paths, data: SplitData, items: ItemSet) -> dict[str, LoadedRanker]:
    """Every ranker by folder name, the chosen one first, attached, with the attributes of its users.

    Raises DataRejected where the stage rank has not run, or with other modalities."""
    if not paths.rankers.is_dir():
        raise DataRejected("data/rankers is missing: run the stage rank first")
    own = (ONLY, WITHOUT)
    names = sorted(
        (f.name for f in paths.rankers.iterdir() if f.is_dir()), key=lambda n: (n != MAIN, not n.startswith(own), n)
    )
    users = frame.read_users(paths)
    rankers = {name: load_ranker(paths.rankers / name) for name in names if not name.startswith(".")}
    for one in rankers.values():
        need(f"the ranker {one.label!r}", one.modalities, items, "rank")
        one.attach(items)
        one.meet(users, data.users)
    return rankers


def need(what: str, modalities: Sequence[str], items: ItemSet, stage: str) -> None:
    """Raises DataRejected where ``what`` reads modalities that the embeddings do not hold."""
    lost = sorted(set(modalities) - set(items.modalities))
    if lost:
        raise DataRejected(
            f"{what} reads {', '.join(lost)}, and data/embeddings holds {', '.join(items.modalities) or 'nothing'}: "
            f"run the stage {stage} again"
        )

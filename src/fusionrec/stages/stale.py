"""What DVC would run, decided in process: a fresh look at the files, no child, about a tenth of a second."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fusionrec.errors import ConfigError


@dataclass(frozen=True)
class Step:
    """One stage of the plan; ``reason`` says why it is stale, None where it is up to date.

    ``source`` marks raw data added with ``dvc add`` (addressed by its .dvc file): reproducing it records the new state.
    """

    address: str
    reason: str | None
    source: bool = False


def steps(project: Path, home: Path) -> list[Step]:
    """Every stage in an order in which they can run, upstream first.

    Raises ConfigError with DVC's words where dvc.yaml cannot be resolved (a missing key in params.yaml).
    """
    os.environ.setdefault("DVC_SITE_CACHE_DIR", str(home / "dvc-site"))
    import networkx as nx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        repo = Repo(str(project), _wait_for_lock=True)  # always fresh: an open one keeps old parameters
        try:
            with repo.lock:
                graph = repo.index.graph  # edges go from a stage to what it needs
                found: list[Step] = []
                stale = set()
                for stage in nx.dfs_postorder_nodes(graph):
                    if not stage.cmd and not stage.is_data_source:
                        continue
                    upstream = sorted(_address(s, repo.root_dir) for s in nx.descendants(graph, stage) if s in stale)
                    reason = f"after {', '.join(upstream)}" if upstream else _own_reason(stage)
                    if reason:
                        stale.add(stage)
                    found.append(Step(_address(stage, repo.root_dir), reason, source=not stage.cmd))
                return found
        finally:
            repo.close()
    except DvcException as error:
        raise ConfigError(f"DVC cannot read the pipeline: {' '.join(str(error).split())}") from None


def _address(stage: object, root: str) -> str:
    """The stage's name in dvc.yaml, or the path of its .dvc file from the project; the same from every working
    directory."""
    return getattr(stage, "name", None) or os.path.relpath(stage.path, root)  # type: ignore[attr-defined]


def _own_reason(stage: object) -> str | None:
    """Why DVC sees this stage itself as changed: the names of what changed, at most three."""
    if stage.changed_stage():  # type: ignore[attr-defined]
        return "its command changed"
    if stage.cmd and not any(out.hash_info for out in stage.outs):  # type: ignore[attr-defined]
        return "never ran"  # dvc.lock knows nothing of it
    if not stage.cmd:  # type: ignore[attr-defined]
        return "the files changed" if stage.changed_outs() else None  # type: ignore[attr-defined]
    if not stage.changed_deps() and not stage.changed_outs():  # type: ignore[attr-defined]
        return None
    status: list[object] = []
    for entry in stage.status().values():  # type: ignore[attr-defined]
        status += entry
    names = [
        f"{name} {state}" if isinstance(state, str) else f"{name}: {', '.join(sorted(state))}"
        for part in status if isinstance(part, dict)
        for group in part.values() if isinstance(group, dict)
        for name, state in group.items()
    ]  # fmt: skip
    return "; ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "changed"

"""What can be chosen, for forms and messages: names only, nothing is built."""

from __future__ import annotations

from fusionrec.stages import STAGES


def stage_names() -> tuple[str, ...]:
    """The stages of the pipeline, in order."""
    return tuple(STAGES)


def retrievers() -> tuple[str, ...]:
    """Every registered retriever kind."""
    from fusionrec.kinds import members
    from fusionrec.recommenders import AnyRetriever

    return tuple(sorted(spec.model_fields["kind"].default for spec in members(AnyRetriever)))


def fusions() -> tuple[str, ...]:
    """Every registered fusion kind."""
    from fusionrec.fusion import AnyFusion
    from fusionrec.kinds import members

    return tuple(sorted(spec.model_fields["kind"].default for spec in members(AnyFusion)))

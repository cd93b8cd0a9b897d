"""Flows that decide something: which version is champion, which recipe the project follows."""

from __future__ import annotations

from typing import Annotated, Any

from flows import environment

PATHS = environment.find()
environment.apply(PATHS)

from prefect import flow  # noqa: E402  (reads its settings when imported)
from prefect.artifacts import create_markdown_artifact, create_table_artifact  # noqa: E402
from prefect.states import Completed, State  # noqa: E402
from pydantic import Field  # noqa: E402

from flows.pipeline import RECIPES, Seconds, one_of  # noqa: E402
from flows.tasks import cell, show  # noqa: E402
from fusionrec.errors import GateFailed  # noqa: E402
from fusionrec.stages.lock import project_lock  # noqa: E402

Recipe = one_of(RECIPES)
Version = Annotated[int, Field(ge=0)]


@flow(name="promote", persist_result=False)
def promote(version: Version = 0, wait_seconds: Seconds = 600) -> State[Any]:
    """Compare a version with the champion; a challenger that is not better ends as NotPromoted, which is no failure.

    Args:
        version: which version of the registered model; 0: the one with the alias challenger
        wait_seconds: how long to wait for another run before giving up
    """
    from fusionrec import config
    from fusionrec.stages import promote as stage

    paths = environment.find()
    params = config.load(paths.project / "params.yaml")
    with project_lock(paths.home, "flow promote", wait_seconds):
        try:
            report = stage.run(params, paths, version=version or None)
        except GateFailed as verdict:
            reasons = str(verdict).splitlines()
            create_table_artifact(
                key="verdict", table=[{"reason": reason} for reason in reasons], description="refused"
            )
            return Completed(name="NotPromoted", message=reasons[0])
    show(paths, {"promote": "Promoted"}, report.as_dict())
    return Completed(name="Promoted", message="; ".join(report.notes)[:500])


@flow(name="use-recipe", persist_result=False)
def use_recipe(recipe: Recipe, wait_seconds: Seconds = 600) -> State[Any]:  # type: ignore[valid-type]
    """Make a recipe the project's params.yaml; the next pipeline run follows it. Switching back is a cache checkout.

    Args:
        recipe: a file of recipes/; with interactions, movies and vectors an environment variable says where the data is
        wait_seconds: how long to wait for another run before giving up
    """
    from fusionrec.stages import adopt
    from fusionrec.stages.stale import steps

    paths = environment.find()
    with project_lock(paths.home, "flow use-recipe", wait_seconds):
        adopt.use(paths, recipe)
        plan = [step for step in steps(paths.project, paths.home) if not step.source]
    lines = [f"| {cell(step.address)} | {cell(step.reason or 'up to date')} |" for step in plan]
    text = "\n".join(
        [
            f"params.yaml is now the recipe **{cell(recipe)}**. Next: the pipeline.",
            "",
            "| stage | state |",
            "|---|---|",
            *lines,
        ]
    )
    create_markdown_artifact(key="plan", markdown=text, description="what the next pipeline run will do")
    stale = sum(step.reason is not None for step in plan)
    return Completed(name="Written", message=f"recipe {recipe}; {stale} of {len(plan)} stages have to run")

"""Commands that run the pipeline, or say what a run would do and did."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from fusionrec.cli.root import app, params_of, print_table, project, say

if TYPE_CHECKING:
    from fusionrec.config import Params
    from fusionrec.paths import Paths

PANEL = "The pipeline"


@app.command(rich_help_panel=PANEL)
def plan() -> None:
    """Before a run: rows per table, what is stale and why, minutes and disk expected."""
    from fusionrec.stages import planning

    paths = project()
    params = params_of(paths, whole=True)
    _need_source(paths, params)
    found = planning.plan(params, paths)
    say("rows: " + ", ".join(f"{name} {count:,}" for name, count in found.rows.items()))
    print_table(
        [
            {
                "stage": s.address,
                "state": s.reason or "up to date",
                "minutes": s.minutes if s.reason else None,
                "estimated from": s.basis,
            }
            for s in found.stages
        ]
    )
    say(f"about {found.minutes:.1f} minutes; up to {found.disk_mib:,.0f} MiB of disk ({found.free_mib:,.0f} MiB free)")


@app.command(rich_help_panel=PANEL)
def repro(
    force: Annotated[bool, typer.Option("--force", help="run every stage, up to date or not")] = False,
    wait: Annotated[float | None, typer.Option(help="seconds to wait for another run")] = None,
    recipe: Annotated[str | None, typer.Option(help="a file name in recipes/ instead of params.yaml")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="another parameter, as key=value; may repeat")] = None,
) -> None:
    """Bring everything up to date (dvc repro), then make sure the bundle is registered.

    With --recipe or --set the run is isolated: params.yaml and data/ stay as they are, the model is registered and the
    table printed; `fusionrec adopt RUN` makes it the project's state.
    """
    from fusionrec.stages import adopt as adopting
    from fusionrec.stages import isolated
    from fusionrec.stages.lock import default_wait, project_lock

    paths = project()
    overrides = isolated.parse_overrides(set_ or [])
    raw = None
    if recipe or overrides:
        raw = adopting.changed_params(paths, adopting.base_params(paths, recipe), overrides)
    if raw is None:
        _need_source(paths, params_of(paths, whole=True))  # a bad params.yaml ends here, before DVC or a shell sees it
    with project_lock(paths.home, "fusionrec repro", default_wait() if wait is None else wait) as token:
        if raw is None:
            code = _reproduced(paths, token, force)
        else:
            run_id = str(uuid.uuid4())
            say(f"changed parameters: this run is isolated, {run_id}")
            with isolated.workspace(paths, raw, run_id) as place:
                _need_source(place, params_of(place, whole=True))
                code = _reproduced(place, {**token, isolated.RUN: run_id}, force)
                if code:
                    raise SystemExit(code)  # in the workspace: so the run counts as not finished
                _show_table(place)
            say(f"fusionrec adopt {run_id[:8]}  makes it the project's state")
    if code:
        raise SystemExit(code)


def _reproduced(paths: Paths, environment: Mapping[str, str], force: bool) -> int:
    """The exit code of ``dvc repro`` in ``paths``; after 0 the bundle is registered."""
    from fusionrec.stages import reproduce

    command = reproduce.command(force=force)
    child = reproduce.start(paths.project, paths.home, command, dict(environment), capture=False)
    try:
        code: int = child.wait()
    finally:
        reproduce.stop(child)
    if code == 0:
        os.environ.update(environment)
        from fusionrec.stages.runner import run_stage, show

        show(run_stage("register", paths))
    return code


@app.command(rich_help_panel=PANEL)
def run(
    stage: Annotated[
        str, typer.Argument(help="ingest, validate, split, embed, train, evaluate, bundle, register or promote")
    ],
    modality: Annotated[str | None, typer.Option(help="for embed: which modality of params.yaml")] = None,
    wait: Annotated[
        float | None, typer.Option(help="seconds to wait for another run; default FUSIONREC_LOCK_WAIT or 600")
    ] = None,
) -> None:
    """Run one stage now, whatever is up to date (what DVC calls)."""
    from fusionrec.stages.runner import main as run_main

    raise SystemExit(run_main(stage, modality, wait))


@app.command(rich_help_panel=PANEL)
def table(
    markdown: Annotated[bool, typer.Option("--markdown", help="as a Markdown table, for documents")] = False,
) -> None:
    """Print the results of the last evaluation."""
    _show_table(project(), markdown)


def _show_table(paths: Paths, markdown: bool = False) -> None:
    import json

    from fusionrec.errors import ConfigError
    from fusionrec.evaluation import table as results

    path = paths.evaluation / "table.json"
    if not path.is_file():
        raise ConfigError(f"{path} is missing: run `fusionrec repro` first")
    tests = path.with_name("tests.json")
    tested = json.loads(tests.read_text(encoding="utf-8")) if tests.is_file() else None
    rows = results.rows_for_people(json.loads(path.read_text(encoding="utf-8")), tested)
    if markdown:
        say(results.markdown(rows).rstrip())
    else:
        print_table([dict(row) for row in rows])
        say(_gate(paths))


def _gate(paths: Paths) -> str:
    """What the gate said about the present bundle, from the verdicts kept in the project."""
    from fusionrec.registry import verdict
    from fusionrec.registry.bundle import read_bundle_json

    name = params_of(paths).registry.name
    if not (paths.bundle / "bundle.json").is_file():
        return "gate: no bundle yet"
    found = verdict.of_bundle(paths.home, name, str(read_bundle_json(paths.bundle)["bundle"]))
    if found is None:
        return "gate: not judged yet (fusionrec register)"
    return f"gate: {name} version {found['version']} {found['verdict']}: {verdict.comparison(found)}"


def _need_source(paths: Paths, params: Params) -> None:
    from fusionrec.errors import ConfigError

    if not (paths.project / params.source.root).is_dir():
        hint = (
            "run `fusionrec demo-data` first"
            if params.source.root == "data/raw/atelier"
            else "point it to the catalogue"
        )
        raise ConfigError(f"source.root: {params.source.root} is not a folder; {hint}")


@app.command(rich_help_panel=PANEL)
def use(recipe: Annotated[str, typer.Argument(help="a file name in recipes/, without .yaml")]) -> None:
    """Write a recipe to params.yaml; switching back later is a cache checkout."""
    from fusionrec.stages import adopt as adopting
    from fusionrec.stages.lock import default_wait, project_lock

    paths = project()
    with project_lock(paths.home, "use", default_wait()):
        adopting.use(paths, recipe)
    say(f"params.yaml is now the recipe {recipe}; next: fusionrec plan, fusionrec repro")


@app.command(rich_help_panel=PANEL)
def adopt(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run id (or its beginning) of an isolated run")],
) -> None:
    """Make an isolated run the project's state: params.yaml, dvc.lock and data."""
    from fusionrec.stages import adopt as adopting
    from fusionrec.stages.lock import default_wait, project_lock

    paths = project()
    with project_lock(paths.home, "adopt", default_wait()):
        written = adopting.adopt(paths, run)
    say(f"wrote {', '.join(written)} and checked out the run's data")


@app.command(rich_help_panel=PANEL)
def up() -> None:
    """Start Prefect, MLflow, Evidently and the start page on this machine alone, until Ctrl-C."""
    from flows.up import main as up_main

    raise SystemExit(up_main())

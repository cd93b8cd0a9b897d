"""Commands that look for what is wrong with the project, its cache or its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusionrec.cli.root import app, params_of, print_table, project, say
from fusionrec.errors import ConfigError

PANEL = "Upkeep"

config_app = typer.Typer(no_args_is_help=True, help="Show or check params.yaml.")
app.add_typer(config_app, name="config", rich_help_panel=PANEL)


@app.command(rich_help_panel=PANEL)
def doctor() -> None:
    """Look for what is wrong or went unnoticed: unregistered bundle, missing weights, lock, versions. Exit 78 on
    failures."""
    from fusionrec.stages.doctor import examine

    found = examine(project())
    print_table([{"": f.level, "topic": f.topic, "found": f.text} for f in found])
    failed = [f"{f.topic}: {f.text}" for f in found if f.level == "fail"]
    if failed:
        raise ConfigError("\n".join([f"{len(failed)} of {len(found)} checks failed:", *failed]))


@app.command(rich_help_panel=PANEL)
def verify() -> None:
    """Re-hash the cache objects that dvc.lock uses and the embedding store; a flipped bit is named (exit 78)."""
    from fusionrec.stages.verify import verify as run_verify

    found = run_verify(project())
    say(f"{found.files:,} objects, {found.bytes / 2**20:,.1f} MiB: all as recorded")
    for name in found.missing[:10]:
        say(f"not in the cache: {name} (dvc pull, or fusionrec repro)")


@config_app.command("show")
def config_show() -> None:
    """The resolved parameters, defaults included. params.yaml holds no secrets; environment values that look so are
    hidden."""
    import yaml

    from fusionrec.stages.doctor import without_secrets

    say(
        yaml.safe_dump(
            without_secrets(params_of(project()).model_dump(mode="json")), sort_keys=False, allow_unicode=True
        ).strip()
    )


@config_app.command("check")
def config_check(
    file: Annotated[Path | None, typer.Argument(help="default: the project's params.yaml")] = None,
) -> None:
    """Validate a params file; every problem at once, exit 78."""
    from fusionrec import config

    path = file or project().project / "params.yaml"
    params = config.load(path, whole=True)
    say(f"{path.name} is valid: {params.train.retriever.kind} with {', '.join(params.modalities) or 'no'} modalities")

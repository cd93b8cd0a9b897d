"""``python -m flows.serve``: every deployment from one process, for a running Prefect server."""

from __future__ import annotations

from flows import pipeline as pipeline_module
from flows import stages

SINGLE = ("ingest", "validate", "split", "embed", "train", "evaluate", "bundle", "register", "promote")


def deployments() -> list[object]:
    """The pipeline, each stage alone, and promotion; the names are those of prefect.yaml."""
    made = [pipeline_module.pipeline.to_deployment("pipeline", tags=["fusionrec"], concurrency_limit=1)]
    made += [getattr(stages, name).to_deployment(name, tags=["fusionrec"], concurrency_limit=1) for name in SINGLE]
    return made


def main() -> None:
    """Serve until stopped."""
    from prefect import serve

    serve(*deployments(), limit=4)


if __name__ == "__main__":
    main()

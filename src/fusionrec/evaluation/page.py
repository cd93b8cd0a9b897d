"""How a page is made: a template of this package filled to one self-contained file, every text escaped, no script."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from fusionrec.evaluation import words


def render(template: str, context: Mapping[str, Any]) -> bytes:
    """The page as UTF-8 bytes; the same context gives the same bytes.

    A lone surrogate in a title cannot be encoded; it becomes a visible replacement, not an error.
    """
    return str(_environment().get_template(template).render(context)).encode("utf-8", "replace")


@cache
def _environment() -> Any:
    from jinja2 import PackageLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        loader=PackageLoader("fusionrec.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "n3": words.number,
        "signed": words.signed,
        "p": words.p_value,
        "thousands": words.thousands,
        "percent": words.percent,
        "times": words.times,
    }
    environment.globals["pretty"] = words.metric
    return environment

"""The demo catalogue ``atelier``: generated offline from a seed, with a known true preference.

No stage, recommender, source or metric may import this package: what they would find here is the answer.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionrec.demo.catalogue import write

__all__ = ["write"]


def __getattr__(name: str) -> Any:
    # On first use only: the processes that render media import this package and need no tables.
    if name == "write":
        from fusionrec.demo.catalogue import write

        return write
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The demo catalogue ``atelier``: generated offline from a seed, with a known true preference.

No stage, recommender, source or metric may import this package: what they would find here is the answer.
"""

from fusionrec.demo.catalogue import write

__all__ = ["write"]

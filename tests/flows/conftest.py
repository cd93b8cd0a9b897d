"""Importing a flow sets Prefect's environment, the home and the umask of the process; here they end with each file."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before, umask = dict(os.environ), os.umask(0o077)
    os.umask(umask)
    home = tmp_path_factory.mktemp("flows-home")
    os.environ |= {"FUSIONREC_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
    import flows.serve  # noqa: F401  (forms list what the project has that is current at the first import: this one)

    yield
    os.environ.clear()
    os.environ.update(before)
    os.umask(umask)

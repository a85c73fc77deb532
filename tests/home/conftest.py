"""The example home and a clock that stands still."""

from __future__ import annotations

import pytest
from tests.homes import Clock

from tumen.home.home import Home


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(clock: Clock) -> Home:
    return Home.load(clock=clock)

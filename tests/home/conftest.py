"""The example home and a clock that stands still."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tumen.home.home import Home


class Clock:
    """A clock a test winds on."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 20, 15, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def wind(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(clock: Callable[[], datetime]) -> Home:
    return Home.load(clock=clock)

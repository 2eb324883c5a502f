"""A browser, and the dashboard of a shop that runs on each database."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.support import chromium
from tests.support.chromium import Visits
from tests.support.databases import Factory
from tests.support.live_dashboard import LiveDashboard, serving


def pytest_configure() -> None:
    if chromium.find() is None:
        raise pytest.UsageError(chromium.ADVICE)


class ByDatabase(LoadScopeScheduling):  # type: ignore[misc]
    """Gives all tests of a database to one process, so that there is one server and one browser for each."""

    def _split_scope(self, nodeid: str) -> str:
        return "sqlite" if "sqlite" in nodeid.partition("[")[2] else "postgresql"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return ByDatabase(config, log)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium.started() as made:
        yield made


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def live(request: pytest.FixtureRequest) -> Iterator[LiveDashboard]:
    """The dashboard of a shop that runs."""
    factory: Factory = request.getfixturevalue(f"{request.param}_factory")
    url = factory.create()
    with serving(url) as made:
        yield made
    factory.drop(url)


@pytest.fixture
def visits(browser: Browser, live: LiveDashboard) -> Iterator[Visits]:
    """Opens pages of the dashboard. A test fails if one of them does what a page may not do."""
    expect.set_options(timeout=chromium.patience())
    made = Visits(browser, live.origin)
    yield made
    made.close()
    assert made.problems == []

"""docs/guides/api.md: its requests have the answers that it shows, and it lists all requests."""

import json
import re
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Oban
from oban.web import dashboard
from oban.web.api import openapi
from oban.web.api.routes import API_ROUTES
from oban.web.api.routing import ApiAction
from tests.support.api import ApiVisitor
from tests.support.processes import ROOT

PAGE = (ROOT / "docs" / "guides" / "api.md").read_text()
#: A request, and the answer that is shown for it.
EXAMPLE = re.compile(r"^```http\n(GET|POST) /oban/api/(\S+)\n(.*?)^```\n\n```json\n(.*?)^```$", re.M | re.S)
#: The status of the answer to the requests that add something.
CREATED = {"jobs": 201, "periodic": 201}


async def test_the_requests_have_the_answers_that_the_page_shows(sqlite_url: URL) -> None:
    examples = EXAMPLE.findall(PAGE)
    assert len(examples) == PAGE.count("```http") == PAGE.count("```json") > 5
    async with Oban(sqlite_url) as oban:
        app = dashboard(oban)
        async with ApiVisitor(app) as api:
            for method, path, rest, answer in examples:
                shown = json.loads(answer)
                if method == "GET":
                    found = await api.ask(path)
                else:
                    status = shown.get("status", CREATED.get(path, 200))
                    found = await api.tell(path, json.loads(rest.partition("\n\n")[2]), status)
                assert_shows(found, shown)
        await app.aclose()


def assert_shows(found: Any, shown: Any) -> None:
    """Compare an answer with a shortened one."""
    if isinstance(shown, dict):
        for key, value in shown.items():
            assert_shows(found[key], value)
    elif isinstance(shown, list):
        assert len(found) == len(shown), found
        for one, other in zip(found, shown, strict=True):
            assert_shows(one, other)
    else:
        assert found == shown


@pytest.mark.parametrize("route", API_ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_the_page_lists_every_request_with_its_permission(route: Any) -> None:
    path = re.sub(r":\w+", "", route.path.removeprefix("/"))
    base, _, last = path.rpartition("/")
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{route.method} api/")]
    row = next(
        row
        for row in rows
        if f"{route.method} {path}`" in row or (f"{route.method} {base}/" in row and f"`{last}`" in row)
    )
    permission = route.permission if isinstance(route, ApiAction) else ""
    assert row.endswith(f"| `{permission}` |" if permission else "| |")
    assert f"GET api/{openapi.NAME}" in PAGE

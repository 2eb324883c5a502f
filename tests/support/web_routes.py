"""Every page and action of the dashboard, with an address that exists: tests go through all of them."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing

from sqlalchemy import URL

from oban.web.app import ROUTES
from oban.web.routing import Action, Page

PAGES = [route for route in ROUTES if isinstance(route, Page)]
ACTIONS = [route for route in ROUTES if isinstance(route, Action)]

#: Values for the parameters of paths.
VALUES = {"id": "1", "queue": "default", "name": "default", "node": "n", "entry": "e", "worker": "w"}
#: These never end.
STREAMS = ("/events",)


def address(path: str) -> str:
    """A path of a route with values in place of its parameters."""
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda match: VALUES.get(match[1], "1"), path)


def pages() -> Iterator[str]:
    """The addresses of all pages."""
    yield from (address(page.path) for page in PAGES if page.path not in STREAMS)


def dump(url: URL) -> list[str]:
    """Everything in a database on SQLite, as statements."""
    with closing(sqlite3.connect(url.database or "")) as connection:
        return list(connection.iterdump())

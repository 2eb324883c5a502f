"""Pages made of templates, and how templates show numbers, durations and times."""

import functools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from oban import __version__
from oban.web import code, documents, security, texts
from oban.web.access import PERMISSIONS

if TYPE_CHECKING:
    from oban.web.visit import Visit

#: The cookie with the message that the next page shows.
FLASH_COOKIE = "oban_flash"
FLASH_LENGTH = 1000
MAX_COOKIE = 3000
#: The navigation: the path of each section and its name.
SECTIONS = (
    ("", "Overview"),
    ("jobs", "Jobs"),
    ("queues", "Queues"),
    ("nodes", "Nodes"),
    ("periodic", "Periodic"),
)


@functools.cache
def environment() -> Environment:
    """The environment of all templates. Values are escaped."""
    made = Environment(
        loader=PackageLoader("oban.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": texts.number,
        "compact": texts.compact,
        "duration": texts.duration,
        "pieces": texts.pieces,
        "plain": texts.plain,
        "visible": texts.visible,
        "document": documents.document,
        "traceback": code.traceback,
        "iso": iso,
    }
    made.globals |= {
        "version": __version__,
        "sections": SECTIONS,
        "permission_count": len(PERMISSIONS),
    }
    return made


@functools.cache
def compile_templates() -> None:
    """Compile all templates, which the first pages would otherwise wait for."""
    for name in environment().list_templates(extensions=["html"]):
        environment().get_template(name)


def page(visit: "Visit", name: str, status: int, context: Mapping[str, Any]) -> Response:
    """A page made of a template."""
    flash = visit.request.cookies.get(FLASH_COOKIE)
    kind, _, message = unquote(flash or "").partition(":")
    body = (
        environment()
        .get_template(name)
        .render(visit=visit, access=visit.access, flash=message, flash_failed=kind == "failed", **context)
    )
    # A row of SQLite can contain half of a surrogate pair, which UTF-8 has no form for.
    response = HTMLResponse(body.encode(errors="replace"), status)
    if flash is not None:
        _set_cookie(visit, response, FLASH_COOKIE, "", max_age=0)
    if visit.request.cookies.get(security.CSRF_COOKIE) != visit.csrf_token:
        _set_cookie(visit, response, security.CSRF_COOKIE, visit.csrf_token)
    return response


def set_flash(visit: "Visit", response: Response, message: str, *, failed: bool) -> None:
    """Let the next page show a message."""
    text = message[:FLASH_LENGTH]
    # Browsers drop cookies of more than 4 KB, and a character can take 12 bytes.
    while len(value := quote(f"{'failed' if failed else 'done'}:{text}")) > MAX_COOKIE:
        text = text[: len(text) // 2] + "…"
    _set_cookie(visit, response, FLASH_COOKIE, value, max_age=60)


def _set_cookie(
    visit: "Visit", response: Response, name: str, value: str, max_age: int | None = None
) -> None:
    response.set_cookie(
        name,
        value,
        max_age=max_age,
        path=visit.base,
        secure=visit.request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def iso(value: datetime) -> str:
    """A time for the attribute `datetime` of `<time>`."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds")

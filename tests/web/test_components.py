"""Each component, with values that try to be more than text."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jinja2 import ChoiceLoader, FileSystemLoader
from selectolax.lexbor import LexborHTMLParser
from starlette.requests import Request
from starlette.responses import Response

from oban import Oban
from oban.web import Access
from oban.web.instance import Instance
from oban.web.rendering import environment
from oban.web.visit import Visit

HARMLESS = "quiet"
HOSTILE = {
    "script": "</pre></summary><script>alert(1)</script><img src=x onerror=alert(1)>",
    "quotes": "\"' onmouseover=\"alert(1)\" style='x' `${1}` {{ 7 * 7 }}",
    "right to left": "\u202egnp.exe\u2066\u200f مرحبا",
    "control characters": "\x00\x1b[31m\x07\r\ud800",
    "long": "x<b>" * 1_000_000,
}


@pytest.fixture
def visit() -> Visit:
    """A visit to a dashboard whose database is not asked."""
    oban = Oban("sqlite+aiosqlite://")
    scope = {
        "type": "http", "method": "GET", "path": "/jobs", "root_path": "",
        "query_string": b"sort=-id&before=9",
        "headers": [], "scheme": "http",
        "server": ("localhost", 80),
    }  # fmt: skip
    return Visit(Request(scope), Instance("oban", oban, {"oban": ""}), Access.full("ada"))


def gallery(visit: Visit, hostile: Any) -> Response:
    made = environment().overlay(
        loader=ChoiceLoader([FileSystemLoader(Path(__file__).parent / "templates"), environment().loader])  # type: ignore[list-item]
    )
    body = made.get_template("gallery.html").render(
        visit=visit, access=visit.access, flash=hostile[:200], flash_failed=False, hostile=hostile,
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    return Response(body.encode(errors="replace"))


def parsed(visit: Visit, hostile: Any) -> LexborHTMLParser:
    return LexborHTMLParser(bytes(gallery(visit, hostile).body).decode())


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_value_adds_an_element_an_attribute_or_a_script(visit: Visit, hostile: str) -> None:
    tree = parsed(visit, hostile)
    usual = parsed(visit, HARMLESS)
    assert {node.tag for node in tree.css("*")} - {node.tag for node in usual.css("*")} <= {
        "details",
        "summary",
    }
    known = {name for node in usual.css("*") for name in node.attributes} | {"title"}
    assert {name for node in tree.css("*") for name in node.attributes} <= known
    assert len(tree.css("script")) == len(usual.css("script"))
    assert not tree.css("img, b, [style], [onerror], [onmouseover]")
    assert "7 * 7" not in hostile or "{{ 7 * 7 }}" in tree.text()


def test_a_text_of_megabytes_does_not_make_a_page_of_megabytes(visit: Visit) -> None:
    assert len(gallery(visit, HOSTILE["long"]).body) < 1_500_000


def test_characters_that_would_not_be_seen_are_shown_as_codes(visit: Visit) -> None:
    tree = parsed(visit, HOSTILE["right to left"])
    assert "U+202Egnp.exe" in tree.css_first("#args").text()  # type: ignore[union-attr]
    assert "\u202e" not in tree.css_first("#live table").text()  # type: ignore[union-attr]


def test_each_id_is_on_the_page_once(visit: Visit) -> None:
    ids = [node.attributes["id"] for node in parsed(visit, HARMLESS).css("[id]")]
    assert sorted(ids) == sorted(set(ids))  # type: ignore[type-var]


def test_each_control_has_a_name(visit: Visit) -> None:
    tree = parsed(visit, HARMLESS)
    labelled = {node.attributes["for"] for node in tree.css("label[for]")}
    for control in tree.css("input:not([type=hidden]), select, textarea, button, a"):
        named = control.attributes.get("aria-label") or control.attributes.get("id") in labelled
        assert named or control.text(strip=True) or control.parent.tag == "label", control.html  # type: ignore[union-attr]

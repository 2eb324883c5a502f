"""The documentation's site in a browser: diagrams, what it loads, what everybody can use, and its search."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from tests.support import axe, chromium
from tests.support.chromium import Visits
from tests.support.processes import ROOT
from tests.support.static_site import static_site

DOCS, SITE = ROOT / "docs", ROOT / "build" / "site"
WITH_DIAGRAMS = sorted(
    str(path.relative_to(DOCS).with_suffix(""))
    for path in DOCS.rglob("*.md")
    if re.search(r"^```mermaid$", path.read_text(), re.MULTILINE)
)
#: A question, and the pages of which one has to be among the first three results.
QUESTIONS = {
    "enqueue in my transaction with asyncpg": {"guides/enqueueing", "learn/transaction", "guides/drivers"},
    "how do I test": {"guides/testing"},
    "job stuck in executing": {"guides/diagnosing"},
    "cron twice": {"guides/periodic"},
    "behind PgBouncer": {"guides/pgbouncer"},
}

#: What the system prefers, and the theme of the site.
SCHEMES: dict[Literal["light", "dark"], str] = {"light": "default", "dark": "slate"}


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The address of the site as `make docs` has built it last."""
    index = SITE / "index.html"
    sources = [path for path in DOCS.rglob("*") if path.is_file()]
    newest = max(path.stat().st_mtime for path in [*sources, ROOT / "zensical.toml"])
    if not index.exists() or index.stat().st_mtime < newest:
        pytest.fail("build/site is missing or older than docs/: run make docs")
    with static_site(SITE) as made:
        yield made


@pytest.fixture
def site(browser: Browser, origin: str) -> Iterator[Visits]:
    """Opens pages of the site. A test fails if one of them has an error, or asks another host."""
    expect.set_options(timeout=chromium.patience())
    made = Visits(browser, origin)
    yield made
    made.close()
    assert made.problems == []


def address(page: str) -> str:
    path = Path(page)
    return f"/{path.parent if path.name == 'index' else path}/".replace("/./", "/")


def test_every_diagram_is_drawn(site: Visits) -> None:
    assert WITH_DIAGRAMS
    page = site.page()
    for name in WITH_DIAGRAMS:
        count = len(re.findall(r"^```mermaid$", (DOCS / f"{name}.md").read_text(), re.MULTILINE))
        page.goto(address(name))
        # The source of a diagram is a `pre`, which the theme replaces when Mermaid has drawn it.
        expect(page.locator("div.mermaid"), name).to_have_count(count)
        expect(page.locator("pre.mermaid"), name).to_have_count(0)
        for drawn in page.locator("div.mermaid").all():
            box = drawn.bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) > 50, name


def test_a_page_without_a_diagram_does_not_load_mermaid(site: Visits) -> None:
    page = site.page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/")
    page.wait_for_load_state("networkidle")
    assert any("diagrams.js" in url for url in asked)
    assert not any("mermaid" in url for url in asked)


@pytest.mark.parametrize("path", ["/", "/guides/testing/"])
def test_axe_finds_no_serious_violation_in_either_theme(site: Visits, path: str) -> None:
    page = site.page(path)
    for scheme, theme in SCHEMES.items():
        page.emulate_media(color_scheme=scheme)
        expect(page.locator("body")).to_have_attribute("data-md-color-scheme", theme)
        assert axe.violations(page) == [], scheme


def test_the_search_finds_each_answer_among_the_first_three(site: Visits) -> None:
    page = site.page("/")
    # Until its script has run, a page does not know the key.
    page.wait_for_load_state("networkidle")
    page.keyboard.press("/")
    box = page.get_by_role("combobox", name="Search")
    expect(box).to_be_focused()
    results = page.locator("a[href*='?h=']")
    found = {}
    for question in QUESTIONS:
        # In one piece, so that there are no results for the beginning of the question.
        box.fill(question)
        expect(results.first).to_be_visible()
        links = [str(link.get_attribute("href")) for link in results.all()[:3]]
        found[question] = {re.sub(r"^https?://[^/]+/|/?\?.*", "", link) for link in links}
        box.fill("")
        expect(results).to_have_count(0)
    assert {question: hits for question, hits in found.items() if not hits & QUESTIONS[question]} == {}

"""The map of the guides leads to every guide, by the title that it has in the navigation and on its page."""

import re
import tomllib
from typing import Any

from tests.support.processes import ROOT

INDEX = (ROOT / "docs/guides/index.md").read_text()


def titles(items: list[Any]) -> dict[str, str]:
    """The titles of the pages in a part of the navigation, by page."""
    found: dict[str, str] = {}
    for item in items:
        for title, target in item.items() if isinstance(item, dict) else ():
            found |= titles(target) if isinstance(target, list) else {target: title}
    return found


NAV = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
GUIDES = {
    page.removeprefix("guides/"): title for page, title in titles(NAV).items() if page.startswith("guides/")
}


def test_the_map_leads_to_every_guide_by_its_title() -> None:
    linked = {page: title for title, page in re.findall(r"\[([^\]]+)\]\((\w+\.md)\)", INDEX)}
    assert linked == GUIDES


def test_the_title_of_each_page_is_that_of_the_navigation() -> None:
    guides = {page: (ROOT / "docs/guides" / page).read_text().partition("\n")[0] for page in GUIDES}
    assert guides == {page: f"# {title}" for page, title in GUIDES.items()}

"""What all pages have in common, in a real browser."""

import pytest
from playwright.sync_api import expect

from tests.support.chromium import Visits

PAGES = ("/", "/jobs", "/jobs/new", "/queues", "/nodes", "/periodic", "/jobs/2401")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_one_heading_and_fits_on_a_phone(visits: Visits, path: str) -> None:
    page = visits.page(path, viewport={"width": 380, "height": 800})
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


@pytest.mark.parametrize("path", PAGES)
def test_a_page_can_be_read_without_scripts(visits: Visits, path: str) -> None:
    page = visits.page(path, java_script_enabled=False)
    expect(page.get_by_role("heading", level=1)).to_be_visible()

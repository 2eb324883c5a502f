"""The overview: its charts, their periods and tables, and where its figures lead."""

import re

from playwright.sync_api import expect

from tests.support.chromium import Visits

#: Whether anything is drawn on a canvas.
_IS_DRAWN = """canvas => canvas.getContext("2d")
    .getImageData(0, 0, canvas.width, canvas.height).data.some(value => value > 0)"""


def test_charts_are_drawn_and_their_periods_switch(visits: Visits) -> None:
    page = visits.page("/")
    charts = page.locator(".charts .chart")
    expect(charts.first.locator("canvas")).to_be_visible()
    for number in range(charts.count()):
        canvas = charts.nth(number).locator("canvas")
        canvas.scroll_into_view_if_needed()
        assert canvas.evaluate(_IS_DRAWN)
    periods = page.get_by_role("navigation", name="Period")
    periods.get_by_role("link", name="Last 24 hours").click()
    expect(page).to_have_url(re.compile("window=24h"))
    expect(periods.get_by_role("link", name="Last 24 hours")).to_have_attribute("aria-current", "page")
    expect(charts.first.locator("canvas")).to_be_visible()
    assert charts.first.locator("canvas").evaluate(_IS_DRAWN)
    # The numbers of a chart are in a table, for those who cannot see it.
    numbers = charts.first.locator("details")
    numbers.locator("summary").click()
    expect(numbers.get_by_role("table")).to_be_visible()
    assert numbers.locator("tbody tr").count() >= 48


def test_failures_of_a_worker_lead_to_its_failed_jobs(visits: Visits) -> None:
    page = visits.page("/")
    page.locator("#failures-by-worker").get_by_role("link", name="shop.ChargeCard").click()
    expect(page.locator("#rows tr").first).to_contain_text("shop.ChargeCard")
    states = {text.strip() for text in page.locator("#rows .state").all_text_contents()}
    assert states <= {"discarded", "retryable"}


def test_a_queue_that_is_behind_is_named_with_its_reason(visits: Visits) -> None:
    page = visits.page("/")
    behind = page.locator("#behind").get_by_role("row").filter(has_text="archive")
    expect(behind).to_contain_text(re.compile("no (live )?node", re.I))
    behind.get_by_role("link").nth(1).click()
    expect(page.locator("#rows tr").first).to_contain_text("shop.ArchiveOrder")


def test_the_overview_can_be_read_without_scripts(visits: Visits) -> None:
    page = visits.page("/", java_script_enabled=False)
    expect(page.locator("#failures-by-worker")).to_contain_text("shop.ChargeCard")
    expect(page.locator("#behind")).to_contain_text("newsletter")

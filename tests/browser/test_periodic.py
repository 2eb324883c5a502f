"""The pages of periodic entries, and what can be done there."""

import re

from playwright.sync_api import Locator, Page, expect

from oban.periodic import PeriodicInfo
from tests.support.chromium import Visits
from tests.support.live_dashboard import LiveDashboard

#: An entry that the nodes of the shop declare, which only tests of this file change.
ENTRY = "reports: sales"
PATH = f"/periodic/one?name={ENTRY}"


def stored(live: LiveDashboard) -> PeriodicInfo:
    (found,) = (each for each in live.run(live.shop.oban.list_periodic()) if each.name == ENTRY)
    return found


def row(page: Page) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=ENTRY, exact=True))


def test_an_entry_is_shown_in_words_with_its_zone_and_next_time(visits: Visits) -> None:
    page = visits.page("/periodic")
    expect(row(page)).to_contain_text("Europe/Berlin")
    expect(row(page)).to_contain_text("03:00")
    expect(row(page).locator("td[data-label=Next] time")).to_be_visible()


def test_an_entry_is_paused_and_resumed(visits: Visits, live: LiveDashboard) -> None:
    page = visits.page("/periodic")
    row(page).get_by_role("button", name="Pause").click()
    expect(page.locator("#flash")).to_contain_text("is paused")
    assert stored(live).paused
    page.goto(PATH)
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#flash")).to_contain_text("is active")
    assert not stored(live).paused


def test_an_entry_is_run_now(visits: Visits) -> None:
    page = visits.page(PATH)
    page.get_by_role("button", name="Run now").click()
    expect(page).to_have_url(re.compile(r"/jobs/\d+"))
    expect(page.locator("#flash")).to_contain_text(f"This job of {ENTRY} is in the queue reports.")
    expect(page.locator("#args")).to_contain_text("sales")


def test_an_edit_is_previewed_saved_and_reset(visits: Visits, live: LiveDashboard) -> None:
    before = stored(live).expression
    page = visits.page(PATH)
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Expression").fill("10,40 4 * * *")
    page.get_by_role("button", name="Preview the next times").click()
    expect(page.locator("#preview")).to_contain_text("04:10")
    expect(page.locator("#preview")).to_contain_text("04:40")
    # Nothing is saved yet, and what was entered is still there.
    assert stored(live).expression == before
    expect(page.get_by_label("Expression")).to_have_value("10,40 4 * * *")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#flash")).to_be_visible()
    assert stored(live).expression == "10,40 4 * * *"
    page.goto(PATH)
    page.get_by_role("button", name="Reset to code").click()
    page.get_by_role("dialog").locator("#confirm-yes").click()
    expect(page.locator("#flash")).to_contain_text("is as it was declared")
    assert stored(live).expression == before


def test_a_wrong_expression_is_refused_at_its_field(visits: Visits, live: LiveDashboard) -> None:
    before = stored(live).expression
    page = visits.page(f"/periodic/edit?name={ENTRY}")
    page.get_by_label("Expression").fill("61 * * * *")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Expression")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Expression")).to_have_value("61 * * * *")
    assert stored(live).expression == before
    visits.expect_problem("status of 4")


def test_an_entry_is_paused_and_edited_without_scripts(visits: Visits, live: LiveDashboard) -> None:
    page = visits.page(PATH, java_script_enabled=False)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#flash")).to_contain_text("is paused")
    page.goto(PATH)
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#flash")).to_contain_text("is active")
    page.goto(f"/periodic/edit?name={ENTRY}")
    page.get_by_label("Priority").fill("2")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#flash")).to_be_visible()
    assert stored(live).priority == 2
    page.goto(PATH)
    page.get_by_role("button", name="Reset to code").click()
    expect(page.locator("#flash")).to_contain_text("is as it was declared")


def test_a_user_who_may_only_look_can_change_no_entry(visits: Visits) -> None:
    page = visits.page(PATH, user="viewer")
    expect(page.get_by_role("heading", level=1)).to_contain_text(ENTRY)
    expect(page.locator("#live form[method=post]")).to_have_count(0)

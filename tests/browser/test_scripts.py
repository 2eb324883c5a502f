"""What the scripts of every page do: refreshing, the theme, the keyboard, dialogs and messages."""

import json
import re

from playwright.sync_api import Page, Route, expect

from tests.support.chromium import Visits

#: The header of a request that keeps the page up to date.
_IS_REFRESH = "x-refresh"


def refresh(page: Page) -> None:
    """Refresh the page, and wait until it has been."""
    page.evaluate("() => window.oban.refresh()")


def answer_refreshes(page: Page, change: tuple[str, str]) -> None:
    """Let each refresh answer the page as it is, with a text replaced."""

    def handle(route: Route) -> None:
        if _IS_REFRESH not in route.request.headers:
            route.fallback()
            return
        response = route.fetch()
        route.fulfill(response=response, body=response.text().replace(*change))

    page.route("**/*", handle)


def test_a_page_says_that_it_is_live(visits: Visits) -> None:
    expect(visits.page("/jobs/new").locator("#pulse")).to_have_text("Live")


def test_a_page_asks_by_itself_when_the_stream_ends(visits: Visits) -> None:
    page = visits.page()
    page.route("**/events", lambda route: route.fulfill(status=204))
    page.goto("/jobs/new")
    expect(page.locator("#pulse")).to_have_text("Polling")


def test_a_page_that_is_paused_does_not_refresh_until_it_is_told_to(visits: Visits) -> None:
    page = visits.page("/nodes")
    page.locator("#pulse").click()
    expect(page.locator("#pulse")).to_have_text("Paused")
    expect(page.locator("#pulse")).to_have_attribute("aria-pressed", "true")
    answer_refreshes(page, ("<h1>", "<h1>Refreshed "))
    page.keyboard.press("r")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Refreshed")


def test_a_page_that_cannot_refresh_says_so_until_it_can(visits: Visits) -> None:
    page = visits.page("/nodes")
    expect(page.locator("#pulse")).to_have_text("Live")
    page.route("**/nodes", lambda route: route.abort())
    refresh(page)
    expect(page.locator("#pulse")).to_have_text("Disconnected")
    page.unroute("**/nodes")
    refresh(page)
    expect(page.locator("#pulse")).to_have_text("Live")
    visits.expect_problem("ERR_FAILED")
    visits.expect_problem("htmx:")


def test_a_refresh_keeps_what_is_being_edited(visits: Visits) -> None:
    page = visits.page("/nodes")
    page.evaluate("""() => {
        const live = document.getElementById("live");
        live.insertAdjacentHTML("beforeend", '<input id="mine" data-keep value="first">');
    }""")
    page.locator("#mine").fill("edited")
    answer_refreshes(page, ("<h1>", "<h1>Refreshed "))
    refresh(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Refreshed")
    expect(page.locator("#mine")).to_have_value("edited")
    expect(page.locator("#mine")).to_be_focused()


def test_the_theme_is_chosen_and_set_before_the_page_is_painted(visits: Visits) -> None:
    page = visits.page("/nodes", color_scheme="light")
    page.locator("#settings > summary").click()
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 20, 19)"
    # The scripts that are deferred never run: the theme does not need them.
    page.route("**/messages.js*", lambda route: route.fulfill(body=""))
    page.goto("/queues", wait_until="commit")
    page.wait_for_selector("h1")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_keys_go_to_pages_and_can_be_turned_off(visits: Visits) -> None:
    page = visits.page("/nodes")
    page.keyboard.press("g")
    page.keyboard.press("q")
    page.wait_for_url("**/queues")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.get_by_label("Use shortcuts of a single key").uncheck()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_hidden()


def test_the_command_palette_goes_to_a_job(visits: Visits) -> None:
    page = visits.page("/nodes")
    page.keyboard.press("Control+k")
    expect(page.get_by_role("combobox", name="Page, action")).to_be_focused()
    page.keyboard.type("job 42")
    expect(page.get_by_role("option", name="Job 42")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/42")


def test_the_command_palette_finds_queues_and_chooses_with_arrows(visits: Visits) -> None:
    page = visits.page("/nodes")
    page.get_by_role("button", name="Go to").click()
    page.keyboard.type("o")
    expect(page.get_by_role("option", name="Overview")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option", name="Overview")).to_have_attribute("aria-selected", "false")
    page.get_by_role("combobox", name="Page, action").fill("media")
    expect(page.get_by_role("option", name="media")).to_be_visible()


def test_the_number_of_failures_is_in_the_title(visits: Visits) -> None:
    page = visits.page()
    event = f"event: refresh\ndata: {json.dumps({'failed': 3})}\n\n"
    page.route(
        "**/events", lambda route: route.fulfill(body=event, headers={"Content-Type": "text/event-stream"})
    )
    page.goto("/jobs/new")
    expect(page).to_have_title(re.compile(r"^\(3\) "))
    assert "favicon-failing" in (page.locator("link[rel=icon]").get_attribute("href") or "")


def test_a_time_is_relative_and_has_the_absolute_time_in_its_title(visits: Visits) -> None:
    page = visits.page("/jobs/1", timezone_id="Asia/Kolkata")
    moment = page.locator("time").first
    expect(moment).to_have_text(re.compile(r"^(\d+ h )?\d+ \w+\.? ago$"))
    expect(moment).to_have_attribute("title", re.compile(r"GMT\+5:30$"))


def test_an_error_of_a_request_is_a_message(visits: Visits) -> None:
    page = visits.page("/nodes")
    page.evaluate("() => htmx.ajax('GET', '/jobs/999999999', {target: 'h1'})")
    expect(page.get_by_role("status").filter(has_text="999999999")).to_be_visible()
    visits.expect_problem("404")


def test_a_refresh_keeps_selected_rows_and_what_is_folded(visits: Visits) -> None:
    page = visits.page("/jobs")
    box = page.locator("tbody input[type=checkbox]").first
    box.check()
    answer_refreshes(page, (">Jobs</h1>", ">Refreshed</h1>"))
    refresh(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Refreshed")
    expect(box).to_be_checked()
    page.goto("/jobs/1")
    folded = page.locator(".document details").first
    folded.locator("summary").first.click()
    expect(folded).not_to_have_attribute("open", "")
    answer_refreshes(page, (">Job 1</h1>", ">Refreshed</h1>"))
    refresh(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Refreshed")
    expect(folded).not_to_have_attribute("open", "")


def test_a_page_that_does_not_exist_is_not_loaded_again(visits: Visits) -> None:
    page = visits.page("/jobs/999999999")
    expect(page.get_by_role("heading", level=1)).to_contain_text("999999999")
    expect(page.locator("#pulse")).to_be_hidden()
    visits.expect_problem("404")


def test_rows_are_reached_selected_and_opened_with_the_keyboard(visits: Visits) -> None:
    page = visits.page("/jobs?q=state:discarded")
    page.keyboard.press("j")
    page.keyboard.press("j")
    row = page.locator("tbody tr.current")
    expect(row).to_have_count(1)
    page.keyboard.press("x")
    expect(row.locator("input[type=checkbox]")).to_be_checked()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/jobs/\d+$"))
    page.keyboard.press("g")
    page.keyboard.press("j")
    page.wait_for_url("**/jobs")
    page.keyboard.press("/")
    expect(page.locator("input[type=search]").first).to_be_focused()

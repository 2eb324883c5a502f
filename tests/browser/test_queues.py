"""The pages of queues and nodes, and the commands that they send to nodes."""

import uuid
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.support.chromium import Visits
from tests.support.live_dashboard import LiveDashboard


@pytest.fixture
def queue(live: LiveDashboard) -> Iterator[str]:
    """A queue that both nodes run, which only one test changes."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    live.run(live.shop.oban.start_queue(name, limit=2))
    yield name
    live.run(live.shop.oban.stop_queue(name))


def test_the_queue_that_is_behind_says_why(visits: Visits) -> None:
    page = visits.page("/queues")
    for queue, why in (
        ("newsletter", "Paused"),
        ("archive", "No node"),
        ("reports", "Paused on 1 of 2 nodes"),
    ):
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=queue, exact=True))
        expect(row).to_contain_text(why)


def test_a_queue_is_paused_and_resumed_on_one_node_and_on_all(visits: Visits, queue: str) -> None:
    page = visits.page(f"/queues/one?name={queue}")
    node = page.get_by_role("row").filter(has=page.get_by_role("link", name="web-2", exact=True))
    node.get_by_role("button", name="Pause").click()
    expect(page.locator("h1")).to_contain_text("partly paused")
    node.get_by_role("button", name="Resume").click()
    expect(page.locator("h1")).to_contain_text("running")
    on_all = page.get_by_role("region", name="On all nodes")
    on_all.get_by_role("button", name="Pause").click()
    expect(page.locator("h1")).to_contain_text("paused")
    expect(page.locator("h1")).not_to_contain_text("partly")


def test_a_queue_is_scaled_on_all_nodes(visits: Visits, queue: str) -> None:
    page = visits.page(f"/queues/one?name={queue}")
    on_all = page.get_by_role("region", name="On all nodes")
    on_all.get_by_label("Limit").first.fill("7")
    on_all.get_by_role("button", name="Scale").click()
    expect(page.get_by_role("region", name="Nodes", exact=True)).to_contain_text("0 / 7")


def test_a_queue_is_stopped_after_a_confirmation(visits: Visits, queue: str) -> None:
    page = visits.page(f"/queues/one?name={queue}")
    page.get_by_role("region", name="On all nodes").get_by_role("button", name="Stop").click()
    page.get_by_role("dialog").locator("#confirm-yes").click()
    expect(page.get_by_role("region", name="Nodes", exact=True)).not_to_contain_text("web-1")


def test_a_queue_is_paused_without_scripts(visits: Visits, queue: str) -> None:
    page = visits.page(f"/queues/one?name={queue}", java_script_enabled=False)
    page.get_by_role("region", name="On all nodes").get_by_role("button", name="Pause").click()
    expect(page.locator("#flash")).to_be_visible()


def test_a_user_who_may_only_look_can_command_no_queue(visits: Visits) -> None:
    page = visits.page("/queues/one?name=mail", user="viewer")
    expect(page.locator("h1")).to_contain_text("mail")
    expect(page.locator("#live form[method=post]")).to_have_count(0)


def test_each_node_is_shown_with_its_queues(visits: Visits) -> None:
    page = visits.page("/nodes")
    for node in ("web-1", "web-2"):
        expect(page.get_by_role("row").filter(has_text=node)).to_contain_text("default")


def test_a_hidden_tab_gives_its_stream_back_so_that_a_seventh_tab_loads(visits: Visits) -> None:
    context = visits.context()
    for _ in range(6):
        page = context.new_page()
        page.goto("/nodes")
        expect(page.locator("#pulse")).to_have_text("Live")
        # As a browser does it when another tab comes to the front.
        page.evaluate(
            """() => {
                Object.defineProperty(document, "hidden", {value: true});
                document.dispatchEvent(new Event("visibilitychange"));
            }"""
        )
    seventh = context.new_page()
    seventh.goto("/nodes")
    expect(seventh.locator("#pulse")).to_have_text("Live")

"""Takes a picture of each page and state of the dashboard, light and dark, wide and narrow.

python -m tests.browser.screenshots                    # all, into build/screenshots
python -m tests.browser.screenshots jobs queues        # those whose names begin like this
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from playwright.sync_api import Error, Page

from oban import JobState
from oban.models import Job
from tests.support import chromium
from tests.support.chromium import Visits
from tests.support.databases import SQLiteFactory
from tests.support.live_dashboard import LiveDashboard, serving

FOLDER = Path("build/screenshots")
WIDTHS = {"wide": 1280, "narrow": 380}
THEMES = ("light", "dark")

#: What is done on a page before its picture is taken.
Step = Callable[[Page], object]


def _nothing(page: Page) -> None:
    pass


def _see(selector: str) -> Step:
    """Wait until an element is there that the page does not have at first."""
    return lambda page: page.locator(selector).first.wait_for()


def _press(key: str) -> Step:
    return lambda page: page.keyboard.press(key)


def shots(live: LiveDashboard) -> dict[str, tuple[str, Step]]:
    """The name of each picture, with the address and the step before it."""

    def job(*conditions: object) -> str:
        return f"/jobs/{live.run(live.shop.job(*conditions)).id}"

    return {
        "overview": ("/", _see(".charts canvas")),
        "jobs": ("/jobs", _nothing),
        "jobs-discarded": ("/jobs?q=state:discarded", _nothing),
        "jobs-none": ("/jobs?q=tag:nobody", _nothing),
        "jobs-wrong": ("/jobs?q=state:nonsense", _nothing),
        "job-executing": (job(Job.state == JobState.EXECUTING), _nothing),
        "job-discarded": (job(Job.state == JobState.DISCARDED), _nothing),
        "job-completed": (job(Job.state == JobState.COMPLETED, Job.worker == "shop.ConfirmOrder"), _nothing),
        "job-waiting": (job(Job.queue == "newsletter"), _nothing),
        "job-missing": ("/jobs/999999", _nothing),
        "new-job": ("/jobs/new", _nothing),
        "queues": ("/queues", _nothing),
        "queue": ("/queues/one?name=reports", _nothing),
        "job-edit": (job(Job.queue == "newsletter") + "/edit", _nothing),
        "job-delete": (job(Job.queue == "newsletter") + "/delete", _nothing),
        "bulk-preview": (
            "/jobs/bulk?q=queue:newsletter&action=cancel&all=1",
            _see("#bulk form[method=post]"),
        ),
        "bulk-update": (
            "/jobs/bulk?q=queue:newsletter&action=update&all=1",
            _see('#bulk [role=status]:has-text("updated.")'),
        ),
        "nodes": ("/nodes", _nothing),
        "node": ("/nodes/one?name=web-1", _nothing),
        "periodic": ("/periodic", _nothing),
        "periodic-entry": ("/periodic/one?name=reports: weekly", _nothing),
        "periodic-edit": ("/periodic/edit?name=reports: weekly", _nothing),
        "missing": ("/nonsense", _nothing),
        "shortcuts": ("/queues", _press("?")),
        "palette": ("/queues", _press("Control+k")),
    }


def take(live: LiveDashboard, names: Sequence[str], looks: Sequence[str] = ()) -> list[str]:
    """Take the pictures whose names begin with one of these, or all; returns the problems of the pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    problems = []
    with chromium.started() as browser:
        visits = Visits(browser, live.origin)
        for theme in THEMES:
            for kind, width in WIDTHS.items():
                if looks and f"{theme}-{kind}" not in looks:
                    continue
                page = visits.page(color_scheme=theme, viewport={"width": width, "height": 900})
                for name, (path, step) in shots(live).items():
                    if names and not name.startswith(tuple(names)):
                        continue
                    page.goto(path)
                    try:
                        step(page)
                    except Error as error:
                        problems.append(f"{name}, {theme}, {kind}: {error}")
                    page.screenshot(path=FOLDER / f"{name}-{theme}-{kind}.png", full_page=True)
                    if (found := page.evaluate("document.documentElement.scrollWidth")) > width:
                        problems.append(f"{name}, {theme}, {kind}: {found} pixels wide")
        visits.close()
    return [*problems, *visits.problems]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.browser.screenshots", description=__doc__)
    parser.add_argument("names", nargs="*", help="the beginnings of names (default: all)")
    parser.add_argument("--look", action="append", help="such as light-wide (default: all four)")
    options = parser.parse_args()
    if chromium.find() is None:
        print(chromium.ADVICE, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, serving(SQLiteFactory(Path(folder)).create()) as live:
        problems = take(live, options.names, options.look or ())
    print(*problems, f"wrote {len(list(FOLDER.glob('*.png')))} pictures to {FOLDER}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Chromium for tests: where it is, how it is started, and what a page may not do in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Dialog, Page, sync_playwright

from tests.support.waiting import slowdown

#: What to do without a browser.
ADVICE = "make test-browser needs Chromium: run apt-get install chromium, or set CHROMIUM to the path of one"
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Nothing but the server of the tests can be reached.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
#: Reports what the policy of the page has refused, also where the console does not.
_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", event =>
    console.error(`the policy refuses ${event.violatedDirective}: ${event.blockedURI} ${event.sourceFile}`));
"""


def find() -> str | None:
    """The path of Chromium, or None if there is none."""
    named = os.environ.get("CHROMIUM")
    return shutil.which(named) if named else shutil.which("chromium") or shutil.which("chromium-browser")


def patience() -> float:
    """The milliseconds that a test waits for a page: more on a busy machine."""
    return 15_000 * slowdown()


@contextmanager
def started() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Visits:
    """Opens pages, each in a context of its own, and notes what a page may not do.

    Args:
        browser: The browser.
        origin: The address that pages come from. A request to another one is a problem.
    """

    def __init__(self, browser: Browser, origin: str) -> None:
        self._browser, self._origin = browser, origin
        self._contexts: list[BrowserContext] = []
        #: What pages have done that they may not, in words.
        self.problems: list[str] = []

    def context(self, user: str = "ada", **options: Any) -> BrowserContext:
        """A context, with options of Playwright's `new_context`, in which a user visits."""
        values: dict[str, Any] = {
            "base_url": self._origin,
            "extra_http_headers": {"X-User": user},
            "viewport": {"width": 1280, "height": 800},
            "timezone_id": "UTC",
            "locale": "en-GB",
            "reduced_motion": "reduce",
            **options,
        }
        made = self._browser.new_context(**values)
        self._contexts.append(made)
        made.set_default_timeout(patience())
        if values.get("java_script_enabled", True):
            made.add_init_script(_VIOLATIONS)
        made.on(
            "console",
            lambda message: self._note(
                message.type == "error", f"console: {message.text} {message.location}"
            ),
        )
        made.on("dialog", self._dismiss)
        made.on("weberror", lambda error: self._note(True, f"error: {error.error}"))
        made.on(
            "request", lambda request: self._note(self._is_foreign(request.url), f"request: {request.url}")
        )
        return made

    def page(self, path: str = "", user: str = "ada", **options: Any) -> Page:
        """A page in a context of its own."""
        page = self.context(user, **options).new_page()
        if path:
            page.goto(path)
        return page

    def expect_problem(self, text: str) -> None:
        """Forget the problems with a text in them, of which there is at least one."""
        kept = [problem for problem in self.problems if text not in problem]
        assert len(kept) < len(self.problems), f"no problem with {text!r}: {self.problems}"
        self.problems = kept

    def allow(self, text: str) -> None:
        """Forget the problems with a text in them, if there are any."""
        self.problems = [problem for problem in self.problems if text not in problem]

    def close(self) -> None:
        for each in self._contexts:
            each.close()

    def _is_foreign(self, url: str) -> bool:
        return not url.startswith((f"{self._origin}/", "data:", "blob:", "about:"))

    def _dismiss(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _note(self, happened: bool, text: str) -> None:
        if happened:
            self.problems.append(text)

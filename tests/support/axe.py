"""axe-core, which finds what people with disabilities cannot use on a page."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Page

_SCRIPT = Path(__file__).parents[1] / "browser" / "vendor" / "axe-core" / "axe.min.js"
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
#: Violations that a test does not accept.
_SEVERE = ("serious", "critical")


def violations(page: Page) -> list[str]:
    """The serious and critical violations on a page as it is now, one sentence for each."""
    if not page.evaluate("'axe' in window"):
        # Through the debugger, as the policy of the page refuses scripts of others.
        page.evaluate(_SCRIPT.read_text())
    options: dict[str, Any] = {"runOnly": {"type": "tag", "values": _RULES}, "resultTypes": ["violations"]}
    result = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:300] for node in each['nodes']][:5]}"
        for each in result["violations"]
        if each["impact"] in _SEVERE
    ]

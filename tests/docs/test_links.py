"""Links between documents lead to files that exist, and to headings that they have."""

import re
from functools import cache
from pathlib import Path

from oban import errors
from tests.support.processes import ROOT

_NAMES = ("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/*.md", "examples/*/*.md")
DOCUMENTS = [document for name in _NAMES for document in ROOT.glob(name)]


@cache
def prose(document: Path) -> str:
    """A document without its blocks of code."""
    return re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)


@cache
def anchors(document: Path) -> set[str]:
    """The anchors that GitHub makes for the headings, and that the site makes for docstrings."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    texts = [re.sub(r"\]\([^)]*\)|[`\[]", "", heading).lower() for heading in headings]
    made = re.findall(r"^::: (oban\..+)$", prose(document), re.MULTILINE)
    if "oban.errors" in made:
        made += [f"oban.errors.{name}" for name in vars(errors)]
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts} | {*made}


def test_links_lead_to_files_and_headings() -> None:
    broken = []
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
            path, _, anchor = link.partition("#")
            target = (document.parent / path).resolve() if path else document
            if ":" in path:
                continue
            # That of a picture names the theme in which it is shown.
            has_anchor = anchor and target.suffix == ".md"
            if not target.exists() or (has_anchor and anchor not in anchors(target)):
                broken.append(f"{document.relative_to(ROOT)}: {link}")
    assert broken == []

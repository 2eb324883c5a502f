"""Fenced code blocks of the documents."""

import re

from tests.support.processes import ROOT


def fenced(document: str, language: str) -> list[str]:
    """Return all blocks of a language in a document, which is named by its path from `ROOT`."""
    text = (ROOT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)

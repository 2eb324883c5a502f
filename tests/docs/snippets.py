"""The fenced blocks of the documents."""

import re

from tests.support.processes import ROOT


def fenced(document: str, language: str) -> list[str]:
    """The contents of all blocks of a language in a document, named by its path from `ROOT`."""
    text = (ROOT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)

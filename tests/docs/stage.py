"""The Python snippets of a page of `docs/`, and what it takes to run one as it stands."""

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from oban import Cancel, Job, Oban, Worker
from tests.support.rows import insert_rows, row

DOCS = Path(__file__).parents[2] / "docs"
_FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: The jobs that the page calls by their ids, and the one that it calls `job`.
NUMBERED = (123, 456, 789)
JOB = 1001


@dataclass(frozen=True)
class Snippet:
    """One fenced block of Python; `line` is where its code begins on the page."""

    page: str
    line: int
    code: str

    def compiled(self) -> CodeType:
        # Moved down, so that a traceback names the line of the page.
        source = "\n" * (self.line - 1) + self.code
        code: CodeType = compile(source, self.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return code


def snippets(page: str) -> list[Snippet]:
    """All Python snippets of a page, in its order."""
    text = (DOCS / page).read_text()
    return [
        Snippet(page, text.count("\n", 0, found.start(1)) + 1, found[1]) for found in _FENCE.finditer(text)
    ]


class Page:
    """The snippets of one page, and which of them tests run."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (DOCS / name).read_text()
        self.snippets = snippets(name)
        self.shown: list[Snippet] = []

    def shows(self, part: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Give a test, as its argument `snippet`, the one snippet that holds `part`."""
        (snippet,) = (found for found in self.snippets if part in found.code)
        self.shown.append(snippet)
        return pytest.mark.parametrize("snippet", [pytest.param(snippet, id=part)])

    def says(self, sentence: str) -> None:
        """Fail unless the page does say it: a test must not outlive its sentence."""
        assert sentence in " ".join(self.text.split())


@dataclass
class Stage:
    """What is around a snippet: a client, rows for the ids that it uses, and names."""

    oban: Oban
    names: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names |= {
            "__name__": "managing_jobs",
            "oban": self.oban,
            "Worker": Worker,
            "Cancel": Cancel,
            "datetime": datetime,
            "job_ids": list(NUMBERED),
            "batch_id": "batch-7",
        }

    async def set(self, *states: str, job: str = "available", **columns: Any) -> None:
        """Insert jobs 123, 456, 789 in the states given (one for all, or one each), and `job`."""
        each = states if len(states) > 1 else states * len(NUMBERED)
        made = [row(state, id=id_, **columns) for id_, state in zip(NUMBERED, each, strict=True)]
        await insert_rows(self.oban.engine, *made, row(job, id=JOB, **columns))
        self.names["job"] = await self.job()

    async def run(self, snippet: Snippet) -> None:
        """Run a snippet; the names that it defines are in `names` afterwards."""
        result = eval(snippet.compiled(), self.names)
        if inspect.isawaitable(result):
            await result

    async def job(self, id_: int = JOB) -> Job:
        """A job, as it is in the database now."""
        found = await self.oban.get_job(id_)
        assert found is not None
        return found

    async def states(self) -> list[str]:
        """The states of 123, 456 and 789; `gone` for those that are not there."""
        found = [await self.oban.get_job(id_) for id_ in NUMBERED]
        return ["gone" if job is None else str(job.state) for job in found]

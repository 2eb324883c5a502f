"""Runs the Python snippets of a page of `docs/` unchanged."""

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from oban import Cancel, Job, Oban, Worker
from tests.support.rows import insert_rows, row

DOCS = Path(__file__).parents[2] / "docs"
_FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: The ids that the page uses, and the id of the job that it calls `job`.
NUMBERED = (123, 456, 789)
JOB = 1001


@dataclass(frozen=True)
class Snippet:
    """A fenced block of Python; `line` is the first line of its code on the page."""

    page: str
    line: int
    code: str

    def compiled(self) -> CodeType:
        # Padded with empty lines, so that a traceback shows the line of the page.
        source = "\n" * (self.line - 1) + self.code
        code: CodeType = compile(source, self.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return code


def snippets(page: str) -> list[Snippet]:
    """Return all Python snippets of a page in order."""
    text = (DOCS / page).read_text()
    return [
        Snippet(page, text.count("\n", 0, found.start(1)) + 1, found[1]) for found in _FENCE.finditer(text)
    ]


class Page:
    """The snippets of one page, and those of them that tests run."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (DOCS / name).read_text()
        self.snippets = snippets(name)
        self.shown: list[Snippet] = []

    def shows(self, *parts: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Pass the only snippet that contains each of `parts` to a test, as its argument `snippet`."""
        shown = []
        for part in parts:
            (snippet,) = (found for found in self.snippets if part in found.code)
            shown.append(pytest.param(snippet, id=part))
            self.shown.append(snippet)
        return pytest.mark.parametrize("snippet", shown)

    def says(self, sentence: str) -> None:
        """Fail unless the page has this sentence, so that a test does not outlive it."""
        assert sentence in " ".join(self.text.split())


@dataclass
class Stage:
    """The context of a snippet: a client, rows for the ids that it uses, and its global names."""

    oban: Oban
    names: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names |= {
            "__name__": "managing_jobs",
            "oban": self.oban,
            "Worker": Worker,
            "Cancel": Cancel,
            "datetime": datetime,
            "UTC": UTC,
            "job_ids": list(NUMBERED),
            "batch_id": "batch-7",
        }

    async def set(self, *states: str, job: str = "available", **columns: Any) -> None:
        """Insert jobs 123, 456 and 789 in `states` (one for all, or one each), and `job`."""
        each = states if len(states) > 1 else states * len(NUMBERED)
        made = [row(state, id=id_, **columns) for id_, state in zip(NUMBERED, each, strict=True)]
        await insert_rows(self.oban.engine, *made, row(job, id=JOB, **columns))
        self.names["job"] = await self.job()

    async def run(self, snippet: Snippet) -> None:
        """Run a snippet; `names` contains the names that it defines afterwards."""
        result = eval(snippet.compiled(), self.names)
        if inspect.isawaitable(result):
            await result

    async def job(self, id_: int = JOB) -> Job:
        """Read a job from the database."""
        found = await self.oban.get_job(id_)
        assert found is not None
        return found

    async def states(self) -> list[str]:
        """Read the states of jobs 123, 456 and 789; `gone` stands for a missing row."""
        found = [await self.oban.get_job(id_) for id_ in NUMBERED]
        return ["gone" if job is None else str(job.state) for job in found]

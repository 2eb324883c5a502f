"""The applications of `docs/frameworks/` are served by the test clients of their frameworks.

Each page is written to a folder. Its own tests run there, with those of `framework_tests/`, in one process.
"""

import re
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.docs.commands import commands
from tests.docs.snippets import fenced
from tests.docs.stage import Page
from tests.docs.written_project import PYTEST, WrittenProject, file_name

#: Warnings are errors, but for one of Advanced Alchemy with SQLAlchemy 2.1.
INI = f"{PYTEST}pythonpath = .\nfilterwarnings =\n    error\n    ignore:The declarative_mixin decorator\n"
MORE = Path(__file__).parent / "framework_tests"
PAGES = ["docs/frameworks/flask.md", "docs/frameworks/litestar.md", "docs/frameworks/starlette.md"]


@pytest.mark.parametrize("document", PAGES)
def test_the_application_enqueues_in_its_transactions_and_runs_jobs(document: str, tmp_path: Path) -> None:
    page = Page(document.removeprefix("docs/"))
    project = WrittenProject(tmp_path, URL.create("sqlite", database=str(tmp_path / "app.db")))
    for snippet in page.snippets:
        assert file_name(snippet)
        project.write(snippet)
    more = (MORE / f"{Path(document).stem}.py").read_text()
    project.write_text("tests/test_more.py", more)
    project.write_text("pytest.ini", INI)
    tests = sum(code.count("\ndef test_") for code in [more, *(each.code for each in page.snippets)])
    del project.environment["DATABASE_URL"]
    assert f"{tests} passed" in project.finish("pytest", "-q", "-p", "no:cacheprovider")


@pytest.mark.parametrize("document", PAGES)
def test_the_commands_name_what_the_application_has(document: str) -> None:
    serve, start = commands(document)
    assert start == ["oban", "start", "app:create_oban"]
    text = "\n".join(fenced(document, "python"))
    assert "def create_oban() -> Oban:" in text
    # A server imports `app` from the module, or calls `create_app` there.
    assert re.search(r"\bapp\b", " ".join(serve))
    assert re.search(r"^app = |^def create_app", text, re.MULTILINE)

"""The shop of the pages about tests is written to files, and its tests pass under pytest."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from oban import testing
from oban.testing import plugin
from oban.testing.enqueued_filters import EnqueuedFilters
from tests.docs.snippets import fenced
from tests.support.databases import PostgreSQLFactory
from tests.support.processes import ROOT

GUIDE = "docs/guides/testing.md"
PAGES = [
    GUIDE,
    "docs/guides/testing_enqueued.md",
    "docs/guides/testing_running.md",
    "docs/guides/testing_clock.md",
    "docs/guides/testing_setup.md",
    "docs/guides/testing_nodes.md",
]
ENQUEUED = "docs/guides/testing_enqueued.md"
RUNNING = "docs/guides/testing_running.md"
RECIPES = ["docs/guides/testing_web.md", "docs/guides/testing_recipes.md"]
#: Prints the message that the guide shows.
FAILING = """
import pytest
import test_message


async def test_it(oban, oban_session, monkeypatch):
    monkeypatch.setattr(test_message.pytest, "raises", lambda *_, **__: Printing())
    await test_message.test_a_failing_assertion_explains_itself(oban, oban_session)


class Printing:
    def __enter__(self):
        pass

    def __exit__(self, kind, error, trace):
        print(f"<{error}>")
        return True
"""


def write(folder: Path, pages: list[str]) -> int:
    """Write the files of some pages, and return how many tests they have.

    Several snippets of one file follow each other.
    """
    count = 0
    for snippet in (snippet for page in pages for snippet in fenced(page, "python")):
        first, _, code = snippet.partition("\n")
        name = re.fullmatch(r"# ([\w/]+\.py)", first)
        assert name, first
        path = folder / name[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(code + "\n\n")
        count += len(re.findall(r"^ *(?:async )?def test_", code, re.MULTILINE))
    (configuration,) = fenced(GUIDE, "ini")
    (folder / "pytest.ini").write_text(configuration)
    return count


#: Turns warnings into errors.
STRICT = ("-W", "error")


def run(project: Path, *arguments: str, code: int = 0, **variables: str) -> str:
    """Run the tests of the project; returns what pytest prints, which ends with this exit code."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OBAN_")}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command, cwd=project, env=environment | variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_the_tests_of_the_pages_pass_and_a_failing_assertion_prints_what_the_guide_says(
    tmp_path: Path,
) -> None:
    count = write(tmp_path, PAGES)
    (tmp_path / "tests/test_z_shown.py").write_text(FAILING)
    output = run(tmp_path, *STRICT, "-rP")
    assert f"\n{count + 1} passed" in output
    (message,) = re.findall(r"^<(.*?)>$", output, re.MULTILINE | re.DOTALL)
    assert fenced(ENQUEUED, "text") == [message + "\n"]


def names_in_table(page: str, heading: str) -> dict[str, str]:
    """The second cell of the rows of the tables below a heading, by each name in the first cell."""
    section = (ROOT / page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", section, re.MULTILINE)
    return {name: second for first, second in rows for name in re.findall(r"`(\w+)", first)}


def test_the_tables_have_every_helper_filter_option_and_fixture() -> None:
    assert names_in_table("docs/reference/testing.md", "Helpers for tests").keys() == set(testing.__all__)
    assert names_in_table(ENQUEUED, "Filters").keys() == EnqueuedFilters.__annotations__.keys()
    options = inspect.signature(testing.drain_queue).parameters
    documented = names_in_table(RUNNING, "Drain a queue")
    assert documented.keys() == options.keys()
    for name, default in documented.items():
        assert name in ("oban", "session") or default == f"`{options[name].default!r}`".replace("'", '"')
    fixtures = names_in_table(GUIDE, "The first test")
    fixtures |= names_in_table("docs/guides/testing_setup.md", "Fixtures to override")
    assert fixtures.keys() == {name for name in vars(plugin) if name.startswith(("oban", "sync_oban"))}


# It imports several frameworks.
@pytest.mark.slow
def test_the_tests_of_the_pages_and_the_recipes_pass(tmp_path: Path) -> None:
    count = write(tmp_path, [*PAGES, *RECIPES])
    assert f"\n{count} passed" in run(tmp_path, *STRICT)


@pytest.mark.slow
def test_they_pass_on_postgresql_in_two_processes(
    tmp_path: Path, postgresql_factory: PostgreSQLFactory
) -> None:
    count = write(tmp_path, [*PAGES, *RECIPES])
    url = postgresql_factory.create(empty=True)
    output = run(
        tmp_path, *STRICT, "-n", "2", OBAN_TEST_DATABASE_URL=url.render_as_string(hide_password=False)
    )
    assert f"\n{count} passed" in output
    postgresql_factory.drop(url)


@pytest.mark.slow
def test_a_forgotten_await_fails_a_test_with_the_configuration_of_the_guide(tmp_path: Path) -> None:
    (configuration,) = fenced(GUIDE, "ini")
    (tmp_path / "pytest.ini").write_text(configuration)
    (tmp_path / "test_it.py").write_text(
        "from oban.testing import assert_enqueued\n\nasync def test_it(oban):\n    assert_enqueued()\n"
    )
    assert "coroutine 'assert_enqueued' was never awaited" in run(tmp_path, code=1)

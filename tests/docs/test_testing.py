"""The application and the tests of `docs/testing.md` are written to files, and pass under pytest."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.snippets import fenced
from tests.support.databases import PostgreSQLFactory

PAGE = "docs/testing.md"
SNIPPETS = fenced(PAGE, "python")


def write_project(folder: Path) -> None:
    """Write each snippet to the file that its first line names; several of one file follow each other."""
    for snippet in SNIPPETS:
        first, _, code = snippet.partition("\n")
        name = re.fullmatch(r"# ([\w/]+\.py)", first)
        assert name, first
        path = folder / name[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(code + "\n\n")
    (configuration,) = fenced(PAGE, "ini")
    (folder / "pytest.ini").write_text(configuration)


def test_every_test_of_the_page_passes(
    tmp_path: Path, postgresql_factory: PostgreSQLFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(tmp_path)
    url = postgresql_factory.create(empty=True)
    monkeypatch.setenv("TEST_DATABASE_URL", url.render_as_string(hide_password=False))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    postgresql_factory.drop(url)
    tests = sum(len(re.findall(r"^(?:async )?def test_", snippet, re.MULTILINE)) for snippet in SNIPPETS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\n{tests} passed" in done.stdout

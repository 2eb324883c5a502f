"""The project of `docs/frameworks/django.md` is written, migrated and tested by Django itself."""

import re
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.docs import django_project
from tests.docs.commands import commands
from tests.docs.stage import Page
from tests.docs.written_project import WrittenProject, file_name

PAGE = Page("frameworks/django.md")
_, RUN_JOBS, TEST = commands("docs/frameworks/django.md")


def database(url: URL, folder: Path) -> dict[str, object]:
    """The settings of Django for a database. That of its tests is created, and dropped at the end."""
    if url.get_backend_name() == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(folder / "app.db"),
            "OPTIONS": {"transaction_mode": "IMMEDIATE"},
            # A node has a connection of its own, which a database in memory does not allow.
            "TEST": {"NAME": str(folder / "test.db")},
        }
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.database,
        "USER": url.username,
        "PASSWORD": url.password or "",
        "HOST": url.query.get("host", url.host),
        "PORT": str(url.port or ""),
    }


@pytest.fixture
def project(empty_url: URL, tmp_path: Path) -> WrittenProject:
    made = WrittenProject(tmp_path, empty_url)
    for snippet in PAGE.snippets:
        assert file_name(snippet)
        made.write(snippet)
    settings = django_project.SETTINGS.format(database=database(empty_url, tmp_path))
    made.write_text("manage.py", django_project.MANAGE)
    made.write_text("shop/__init__.py", "")
    made.write_text("shop/settings.py", settings)
    made.write_text("shop/urls.py", django_project.URLS)
    made.write_text("shop/migrations/__init__.py", "")
    made.write_text("shop/migrations/0001_initial.py", django_project.INITIAL)
    made.write_text("shop/test_more.py", django_project.TESTS)
    made.write_text("run.py", django_project.RUN)
    made.environment["DJANGO_SETTINGS_MODULE"] = "shop.settings"
    return made


def test_the_tests_of_the_page_pass_and_jobs_belong_to_the_transactions_of_django(
    project: WrittenProject,
) -> None:
    printed = project.finish(*TEST[1:])
    found = len(re.findall(r"^    def test_", django_project.TESTS, re.MULTILINE))
    # Nothing has ended the process before.
    assert re.search(rf"Ran {found + 2} tests.*\nOK", printed, re.DOTALL), printed


@pytest.mark.slow
@pytest.mark.either_database
def test_the_command_runs_jobs_until_it_is_told_to_stop(project: WrittenProject) -> None:
    command = [re.sub("8081", "0", argument) for argument in RUN_JOBS[1:]]
    printed = project.finish("run.py", *command)
    assert "charging ann@example.com\n" in printed
    assert "completed\n" in printed

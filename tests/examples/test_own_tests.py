"""The applications' own tests, all in one process, with the commands of the README."""

import re
import shlex

import psycopg
import pytest

from tests.examples.processes import EXAMPLES, finish
from tests.examples.processes import text as shown
from tests.support.databases import Factory

README = (EXAMPLES / "README.md").read_text()
#: The second one has the URL of a database on PostgreSQL in front.
ON_SQLITE, ON_POSTGRESQL = (
    shlex.split(line) for line in re.findall(r"^\$ (.*pytest)$", README, re.MULTILINE)
)
TESTED = {"fastapi_app", "flask_app", "flask_sqlalchemy_app", "sqlmodel_app", "test_script"}


def run(command: list[str], **variables: str) -> None:
    output = finish("-m", *command, "-p", "no:cacheprovider", **variables)
    assert set(re.findall(r"^(\w+)\S* \.+ ", output, re.MULTILINE)) == TESTED
    assert re.search(r"^=+ \d+ passed in ", output, re.MULTILINE), output


@pytest.mark.slow
def test_the_tests_of_the_applications_pass() -> None:
    run(ON_SQLITE)


@pytest.mark.slow
def test_the_tests_of_the_applications_pass_on_postgresql(postgresql_factory: Factory) -> None:
    setting, *command = ON_POSTGRESQL
    variable, _, example = setting.partition("=")
    url = postgresql_factory.create(empty=True)
    try:
        run(command, **{variable: shown(url.set(drivername=example.partition(":")[0]))})
        with psycopg.connect(shown(url.set(drivername="postgresql"))) as connection:
            # The tests have used this database, and rolled back their rows.
            for table in ("oban_jobs", "orders", "invoices", "member", "imported_orders"):
                number = connection.execute(f"SELECT nextval('{table}_id_seq')").fetchone()
                assert number is not None
                assert number[0] > 1
                assert connection.execute(f"SELECT id FROM {table}").fetchall() == []
    finally:
        postgresql_factory.drop(url)

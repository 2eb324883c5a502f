"""The setting `oban.notify` turns announcements off, and the inserting session's search_path changes none."""

from typing import Any

import pytest
from sqlalchemy import URL, text

from oban import Job, SyncOban, migration
from tests.support.schema import sync_engine

CHANNELS = ("public.oban_insert", "public.oban_signal")
INSERT = (
    "INSERT INTO public.oban_jobs (worker, state, scheduled_at) VALUES ('a', 'available', now()),"
    " ('a', 'scheduled', now())"
)


def heard(url: URL, *statements: str) -> list[str]:
    """The channels of what is announced when these statements commit together."""
    with sync_engine(url).connect() as listening, sync_engine(url).connect() as connection:
        driver: Any = listening.connection.driver_connection
        driver.autocommit = True
        for channel in (*CHANNELS, "end"):
            driver.execute(f'LISTEN "{channel}"')
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.commit()
        connection.exec_driver_sql('NOTIFY "end"')
        connection.commit()
        found: list[str] = []
        for notice in driver.notifies(timeout=5):
            if notice.channel == "end":
                break
            found.append(notice.channel)
        return sorted(found)


@pytest.mark.parametrize("value", ["off", "'OFF'", "false", "no", "0"])
def test_it_turns_announcements_off(lasting_jobs: URL, value: str) -> None:
    assert heard(lasting_jobs, f"SET LOCAL oban.notify = {value}", INSERT) == []


@pytest.mark.parametrize("value", ["on", "''", "true", "DEFAULT"])
def test_other_values_leave_them_on(lasting_jobs: URL, value: str) -> None:
    assert heard(lasting_jobs, f"SET LOCAL oban.notify = {value}", INSERT) == list(CHANNELS)


def test_it_is_forgotten_after_the_transaction(lasting_jobs: URL) -> None:
    assert heard(lasting_jobs, "SET LOCAL oban.notify = off", "COMMIT", "BEGIN", INSERT) == list(CHANNELS)


def test_it_turns_off_what_the_client_announces(lasting_jobs: URL) -> None:
    options = {"options": "-c oban.notify=off"}
    silent = sync_engine(lasting_jobs.update_query_dict(options))
    oban = SyncOban(silent)
    with sync_engine(lasting_jobs).connect() as listening:
        driver: Any = listening.connection.driver_connection
        driver.autocommit = True
        for channel in CHANNELS:
            driver.execute(f'LISTEN "{channel}"')
        job = oban.enqueue(Job(worker="tests.Any"))
        oban.cancel_job(job.id)
        oban.retry_job(job.id)
        oban.update_job(job.id, {"queue": "other"})
        oban.pause_queue("other")
        driver.execute("SELECT pg_notify('public.oban_insert', 'end')")
        assert [notice.payload for notice in driver.notifies(timeout=5, stop_after=1)] == ["end"]
    silent.dispose()


#: Functions and operators that would be found before those of pg_catalog, or match better.
_HOSTILE = """
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.jsonb_build_object(text, text) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
CREATE FUNCTION hostile.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT NULL::void';
CREATE FUNCTION hostile.lower(text) RETURNS text LANGUAGE sql AS 'SELECT ''off''';
CREATE FUNCTION hostile.concatenated(text, text) RETURNS text LANGUAGE sql AS 'SELECT ''elsewhere''';
CREATE OPERATOR hostile.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.concatenated);
"""


@pytest.mark.parametrize("path", ["hostile, pg_catalog", "''", "pg_catalog", "hostile, public, pg_catalog"])
def test_functions_of_the_search_path_change_nothing(lasting_jobs: URL, path: str) -> None:
    with sync_engine(lasting_jobs).begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS hostile CASCADE")
        connection.exec_driver_sql(_HOSTILE)
    assert heard(lasting_jobs, f"SET search_path = {path}", INSERT) == list(CHANNELS)


def test_an_older_revision_announces_whatever_the_setting_is(postgresql_schema_urls: tuple[URL, URL]) -> None:
    url, _ = postgresql_schema_urls
    migration.upgrade(url, revision="0003")
    assert heard(url, "SET LOCAL oban.notify = off", INSERT) == list(CHANNELS)
    with sync_engine(url).begin() as connection:
        connection.execute(text("DELETE FROM oban_jobs"))

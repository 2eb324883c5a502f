"""`oban check`: what it prints, and its exit codes, which are those of monitoring plugins."""

import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from sqlalchemy import URL

from oban import migration
from oban.cli.check import EXIT_CODES
from oban.cli.documents import DOCUMENTS, json_schema
from oban.diagnosis.health import CODES
from tests.support.commands import invoke, node, text
from tests.support.databases import Factory
from tests.support.rows import TABLE, row
from tests.support.schema import render, run_script, sync_engine
from tests.support.terminal import Terminals
from tests.support.waiting import Deadline

DROP = "DROP INDEX oban_jobs_staging_index"


@pytest.fixture(params=["sqlite", "asyncpg"])
def factory(request: pytest.FixtureRequest) -> Factory:
    """Each database once."""
    made: Factory = request.getfixturevalue(f"{request.param}_factory")
    return made


def let_a_job_wait(url: URL) -> None:
    """Store a job that has waited for two hours, in a queue that no node runs."""
    with sync_engine(url).begin() as connection:
        old = datetime.now(UTC) - timedelta(hours=2)
        connection.execute(TABLE.insert(), [row(queue="mail", scheduled_at=old)])


def test_a_healthy_instance_has_the_exit_code_0(url: URL) -> None:
    result = invoke("check", "--database-url", text(url))
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert result.stdout.startswith("OK: 1")
    assert result.stdout.endswith(" checks of the instance Oban have found no problem.\n")
    verbose = invoke("check", "--database-url", text(url), "--verbose").stdout.splitlines()
    assert verbose[1] == ""
    assert [line.split(":")[0] for line in verbose[2:5]] == [
        *("ok database", "ok schema_version", "ok schema_drift"),
    ]


def test_a_warning_has_the_exit_code_1_and_advice(url: URL) -> None:
    run_script(url, DROP)
    result = invoke("check", "--database-url", text(url))
    first, advice = result.stdout.splitlines()
    assert result.exit_code == 1
    assert first == "WARNING: oban_jobs has no index oban_jobs_staging_index."
    assert advice.startswith("  Run CREATE INDEX ")


def test_a_critical_finding_has_the_exit_code_2_and_comes_first(url: URL) -> None:
    run_script(url, DROP)
    let_a_job_wait(url)
    result = invoke("check", "--database-url", text(url))
    lines = result.stdout.splitlines()
    assert result.exit_code == 2
    waits = "No live node runs the queue mail, whose oldest job has waited for 2 hours."
    assert lines[:3] == [f"CRITICAL: {waits} (1 more)", "", f"critical unserved_queue: {waits}"]
    assert "warning schema_drift: oban_jobs has no index oban_jobs_staging_index." in lines
    skipped = invoke("check", "--database-url", text(url), "--skip", "unserved_queue")
    assert skipped.exit_code == 1
    later = invoke("check", "--database-url", text(url), "--oldest-job-critical", "9000")
    assert (later.exit_code, later.stdout[:9]) == (1, "WARNING: ")


def test_a_database_that_cannot_be_reached_is_critical(url: URL) -> None:
    gone = url.set(database="/nowhere/gone.db" if url.get_backend_name() == "sqlite" else "gone")
    result = invoke("check", "--database-url", text(gone))
    assert result.exit_code == 2
    assert result.stdout.startswith("CRITICAL: ")
    reason = "the directory /nowhere does not exist" if "/nowhere" in text(gone) else '"gone" does not exist'
    assert reason in result.stdout.splitlines()[0]


def test_a_check_creates_no_file(folder: Path) -> None:
    result = invoke("check", "--database-url", "sqlite:///typo.db")
    assert result.exit_code == 2
    file = folder / "typo.db"
    assert result.stdout.startswith(f"CRITICAL: There is no database: the file {file} does not exist.\n")
    assert not file.exists()


def test_tables_that_are_missing_are_critical(url: URL) -> None:
    migration.downgrade(render(url))
    result = invoke("check", "--database-url", text(url))
    assert result.exit_code == 2
    assert result.stdout.startswith("CRITICAL: There are no Oban tables")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--bad"], "No such option '--bad'."),
        (["--skip", "bloa"], "Invalid value for '--skip': 'bloa' is not one of"),
        (["--timeout", "0"], "Invalid value for '--timeout'"),
        (["--oldest-job-warning", "soon"], "Invalid value for '--oldest-job-warning'"),
        (["--oldest-job-warning", "-1"], "oldest_job_warning must be a number of at least 0, not -1.0"),
        (["--clock-skew-warning", "61"], "clock_skew_warning must not be greater than clock_skew_critical"),
        (["--database-url", "mysql://h/d"], "mysql is not supported"),
        (["--database-url", "sqlite:///x.db", "--prefix", "jobs"], "sqlite has no schemas"),
        (["--app", "nowhere:oban"], "nowhere:oban: No module named 'nowhere'"),
        (["--app", "broken:oban"], "broken:oban: cannot import broken: RuntimeError: no"),
        ([], "No database: use --database-url"),
    ],
)
def test_wrong_options_and_configuration_have_the_exit_code_3(arguments: list[str], reason: str) -> None:
    with open("broken.py", "w") as module:
        module.write("raise RuntimeError('no')")
    if arguments and not {"--database-url", "--app"} & {*arguments}:
        arguments = [*arguments, "--database-url", "sqlite:///x.db"]
    result = invoke("check", *arguments)
    assert result.exit_code == 3
    assert result.stdout.startswith(f"UNKNOWN: {reason}")
    document = json.loads(invoke("check", *arguments, "--json").stdout)
    assert (document["severity"], document["findings"][0]["code"]) == ("unknown", "configuration")
    jsonschema.validate(document, schema())


def test_what_a_role_may_not_read_has_the_exit_code_3(postgresql_url: URL) -> None:
    role = f"reader_{postgresql_url.database}"
    run_script(
        postgresql_url,
        f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};"
        f" REVOKE ALL ON oban_alembic_version FROM {role}",
    )
    try:
        url = text(postgresql_url.set(username=role))
        result = invoke("check", "--database-url", url, "--skip", "transaction")
        assert result.exit_code == 3
        reason = "permission denied for table oban_alembic_version"
        assert result.stdout.startswith(f"UNKNOWN: The check could not be made: {reason}.")
        skipped = ("--skip", "schema_version", "--skip", "schema_drift", "--skip", "transaction")
        assert invoke("check", "--database-url", url, *skipped).exit_code == 0
    finally:
        run_script(postgresql_url, f"DROP OWNED BY {role}; DROP ROLE {role}")


def schema() -> dict[str, Any]:
    whole = json_schema()
    return {**whole, "properties": {}, "type": "object", **whole["properties"]["check"]}


def test_the_document_follows_its_schema(url: URL) -> None:
    run_script(url, DROP)
    let_a_job_wait(url)
    result = invoke("check", "--database-url", text(url), "--json")
    document = json.loads(result.stdout)
    jsonschema.validate(document, schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "severity": "bad"}, schema())
    assert result.exit_code == EXIT_CODES["critical"]
    assert (document["instance"], document["severity"]) == ("Oban", "critical")
    assert {finding["code"] for finding in document["findings"]} <= set(CODES)
    assert "check" in DOCUMENTS


@pytest.mark.parametrize("columns", [160, 50])
def test_texts_fit_the_terminal(url: URL, terminals: Terminals, columns: int) -> None:
    run_script(url, DROP)
    let_a_job_wait(url)
    code, lines = terminals.run("check", "--database-url", text(url), columns=columns)
    assert code == 2
    words = " ".join(" ".join(lines).split())
    assert words.startswith(
        "CRITICAL: No live node runs the queue mail, whose oldest job has waited for 2 hours."
    )
    assert "warning schema_drift: oban_jobs has no index oban_jobs_staging_index." in words
    assert len(lines[0]) > 50 if columns == 160 else len(lines) > 8
    plain = terminals.open(
        "check", "--database-url", text(url), columns=columns, environment={"NO_COLOR": "1"}
    )
    with plain:
        plain.finish()
        assert b"\x1b[3" not in plain.output


def test_harmful_names_cannot_change_the_terminal(sqlite_url: URL) -> None:
    with sync_engine(sqlite_url).begin() as connection:
        connection.execute(TABLE.insert(), [row(queue="\x1b[2Jred|x\n")])
    result = invoke("check", "--database-url", text(sqlite_url))
    assert "\x1b" not in result.stdout
    # A vertical bar would begin performance data.
    assert "|" not in result.stdout.splitlines()[0]


@pytest.mark.slow
def test_a_killed_node_is_found(sqlite_url: URL) -> None:
    arguments = ("--database-url", text(sqlite_url))
    with node(*arguments, "--import", "app.workers", "--lease", "1", "--node", "n1") as process:
        wait_for(arguments, lambda output: "n1 leads the instance" in output)
        process.send_signal(signal.SIGKILL)
        process.wait()
        output = wait_for(arguments, lambda output: "stale_node: The node n1" in output)
    assert output.startswith("CRITICAL: The node n1 (process ")


def wait_for(arguments: tuple[str, ...], condition: Callable[[str], bool]) -> str:
    deadline = Deadline(10)
    while not condition(output := invoke("check", *arguments, "--verbose").stdout):
        assert not deadline.passed(), output
    return output

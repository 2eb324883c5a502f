"""`oban jobs cancel`, `retry`, `delete` and `update`: what they change, ask and report."""

import shlex
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Job, SyncOban
from oban.documents.actions import CANCEL, DELETE, RETRY, UPDATE
from tests.cli.shop import Shop
from tests.support.rows import STATES, row
from tests.support.terminal import Terminals

ACTIONS = {"cancel": CANCEL, "retry": RETRY, "delete": DELETE, "update": UPDATE}
#: The change that an update needs.
CHANGE = {"update": ["--set-priority", "9"]}


def every_state(shop: Shop) -> dict[str, int]:
    """A job in each state, all in the queue `mail`."""
    made = shop.add_all(row(state, queue="mail") for state in STATES)
    return dict(zip(STATES, made, strict=True))


def changed(shop: Shop, before: dict[int, dict[str, Any]]) -> set[str]:
    """The former states of the jobs that are no longer what they were."""
    now = shop.rows()
    return {found["state"] for id_, found in before.items() if now.get(id_) != found}


@pytest.mark.parametrize("verb", ACTIONS)
def test_filtered_jobs_are_changed_after_a_confirmation(shop: Shop, verb: str) -> None:
    every_state(shop)
    shop.add("available", queue="other")
    before = shop.rows()
    action = ACTIONS[verb]
    expected = {str(state) for state in action.states}
    number = len(expected)
    command = ("jobs", verb, "--queue", "mail", *CHANGE.get(verb, ()))
    for answer, code in (("n\r", 1), ("y\r", 0)):
        assert changed(shop, before) == set()
        with shop.terminals.open(*command, columns=150, environment=shop.environment) as terminal:
            question = terminal.wait_for("[y/N]")
            assert f"{verb.capitalize()} {number} jobs (" in question
            assert all(f"1 {state}" in question for state in STATES)
            terminal.press(answer)
            assert terminal.finish() == code
            assert ("Aborted" in terminal.text) is (answer == "n\r")
    assert terminal.lines[-1] == f"{number} jobs were {action.done}."
    assert changed(shop, before) == expected


@pytest.mark.parametrize("verb", ACTIONS)
@pytest.mark.either_database
def test_a_dry_run_shows_counts_by_state_and_changes_nothing(shop: Shop, verb: str) -> None:
    every_state(shop)
    shop.add("available", queue="mail")
    before = shop.rows()
    applies = {str(state) for state in ACTIONS[verb].states}
    counts = {state: 2 if state == "available" else 1 for state in STATES}
    plan = shop.json(verb, "--queue", "mail", "--dry-run", *CHANGE.get(verb, ()))
    assert plan == {
        "dry_run": True,
        "changed": sum(counts[state] for state in applies),
        "would_change": {state: number for state, number in counts.items() if state in applies},
        "would_leave": {state: number for state, number in counts.items() if state not in applies},
        "left_alone": [],
    }
    code, lines = shop.jobs(verb, "--queue", "mail", "--dry-run", *CHANGE.get(verb, ()))
    assert code == 0
    assert lines[0].startswith(f"{plan['changed']} jobs would be {ACTIONS[verb].done}: ")
    assert changed(shop, before) == set()


def test_the_lines_of_a_dry_run(sqlite_shop: Shop) -> None:
    sqlite_shop.add_all([row(), row(), row("scheduled"), row("completed"), row("executing")])
    assert sqlite_shop.jobs("cancel", "--all", "--dry-run") == (
        0,
        [
            "4 jobs would be cancelled: 2 available, 1 scheduled, 1 executing.",
            "1 job would be left alone: 1 completed.",
        ],
    )
    assert sqlite_shop.jobs("delete", "5", "4", "9", "--dry-run", columns=60) == (
        0,
        [
            "1 job would be deleted: 1 completed.",
            "1 job would be left alone: 1 executing.",
            "Job 5 is left alone: it is executing; cancel it first.",
            "There is no job 9.",
        ],
    )


#: By command: the jobs in these states are left alone, with the end of the line about each.
LEFT_ALONE = {
    "cancel": {"completed": "", "discarded": "", "cancelled": ""},
    "retry": {"available": "", "executing": ""},
    "delete": {"executing": "; cancel it first"},
}


@pytest.mark.parametrize("verb", LEFT_ALONE)
@pytest.mark.either_database
def test_ids_are_changed_without_a_question_and_the_others_have_a_reason(shop: Shop, verb: str) -> None:
    ids = every_state(shop)
    before = shop.rows()
    left_alone = LEFT_ALONE[verb]
    code, lines = shop.jobs(verb, *map(str, [*ids.values(), 99, ids["available"]]))
    assert code == 0
    assert lines[0] == f"{len(ids) - len(left_alone)} jobs were {ACTIONS[verb].done}."
    assert sorted(lines[1:]) == sorted(
        [
            *(f"Job {ids[state]} is left alone: it is {state}{end}." for state, end in left_alone.items()),
            "There is no job 99.",
        ]
    )
    assert changed(shop, before) == set(STATES) - left_alone.keys()


@pytest.mark.parametrize("verb", LEFT_ALONE)
@pytest.mark.either_database
def test_json_says_what_was_changed_and_what_not(shop: Shop, verb: str) -> None:
    state = next(iter(LEFT_ALONE[verb]))
    left, other = shop.add(state), shop.add("scheduled")
    assert shop.json(verb, str(left), str(other), "99") == {
        "dry_run": False,
        "changed": 1,
        "would_change": None,
        "would_leave": None,
        "left_alone": [
            {"id": left, "reason": "state", "state": state, "other_id": None},
            {"id": 99, "reason": "missing", "state": None, "other_id": None},
        ],
    }


@pytest.mark.parametrize("verb", LEFT_ALONE)
@pytest.mark.either_database
def test_the_exit_code_says_that_nothing_was_changed(shop: Shop, verb: str) -> None:
    done = ACTIONS[verb].done
    assert shop.jobs(verb, "99", columns=60) == (1, [f"No job was {done}.", "There is no job 99."])
    assert shop.jobs(verb, "--queue", "mail") == (1, [f"0 jobs would be {done}."])
    assert shop.jobs(verb, "--queue", "mail", "--yes") == (1, [f"No job was {done}."])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--yes"], "No jobs are chosen"),
        (["--all", "--queue", "mail"], "--all means every job: leave it out, or leave out ids and filters."),
        (["--all", "1"], "--all means every job"),
        (["--queue", "mail"], "1 available)? Confirm with --yes, as the input is not a terminal."),
        (["0"], "0 is not in the range"),
        (["9223372036854775808"], "is not in the range"),
        (["seven"], "'seven' is not a valid int"),
    ],
)
def test_wrong_usage_changes_nothing(sqlite_shop: Shop, arguments: list[str], problem: str) -> None:
    sqlite_shop.add("available", queue="mail")
    before = sqlite_shop.rows()
    result = sqlite_shop.invoke("cancel", *arguments)
    assert result.exit_code == 2, result.output
    assert problem in " ".join(result.stderr.split())
    assert sqlite_shop.rows() == before


@pytest.mark.parametrize("verb", ACTIONS)
def test_every_command_refuses_to_change_all_jobs_by_accident(sqlite_shop: Shop, verb: str) -> None:
    sqlite_shop.add("scheduled")
    before = sqlite_shop.rows()
    for arguments, problem in (
        ([], "No jobs are chosen: pass ids, or filters such as --state or --queue, or --all for every job."),
        (["--all"], "1 scheduled)? Confirm with --yes, as the input is not a terminal."),
    ):
        result = sqlite_shop.invoke(verb, *arguments, *CHANGE.get(verb, ()))
        assert result.exit_code == 2, result.output
        assert problem in " ".join(result.stderr.split())
    assert sqlite_shop.rows() == before


@pytest.mark.parametrize("verb", ACTIONS)
@pytest.mark.either_database
def test_all_jobs_are_changed_if_that_is_confirmed(shop: Shop, verb: str) -> None:
    every_state(shop)
    before = shop.rows()
    result = shop.invoke(verb, "--all", "--yes", *CHANGE.get(verb, ()))
    assert result.exit_code == 0, result.output
    assert changed(shop, before) == {str(state) for state in ACTIONS[verb].states}


def test_ids_and_filters_are_combined(shop: Shop) -> None:
    shop.add_all([row(queue="mail"), row(queue="mail"), row()])
    result = shop.invoke("cancel", "1", "3", "--queue", "mail", "--yes")
    assert result.stdout == "1 job was cancelled.\n"
    assert shop.states() == {1: "cancelled", 2: "available", 3: "available"}


def test_a_unique_job_in_the_way_of_a_retry_is_named(shop: Shop) -> None:
    url: URL = shop.url.set(drivername="sqlite" if "sqlite" in shop.url.drivername else "postgresql+psycopg")
    with SyncOban(url) as oban:
        first = oban.enqueue(Job(worker="app.Sync", unique=True))
        oban.cancel_job(first)
        second = oban.enqueue(Job(worker="app.Sync", unique=True))
    line = f"Job {first.id} is left alone: it is unique, and job {second.id} is in its way."
    assert shop.jobs("retry", str(first.id)) == (1, ["No job was retried.", line])
    assert shop.jobs("retry", "--state", "cancelled", "--yes") == (1, ["No job was retried.", line])
    assert shop.json("retry", str(first.id))["left_alone"] == [
        {"id": first.id, "reason": "conflict", "state": None, "other_id": second.id}
    ]


@pytest.mark.either_database
def test_a_job_that_has_used_all_attempts_that_there_can_be_is_named(shop: Shop) -> None:
    shop.add("discarded", attempt=32767, max_attempts=32767)
    assert shop.jobs("retry", "1") == (
        1,
        [
            "No job was retried.",
            "Job 1 is left alone: it has used 32,767 attempts, the most that there can be.",
        ],
    )


@pytest.mark.either_database
def test_a_retry_can_have_a_time_a_queue_and_a_priority(shop: Shop) -> None:
    shop.add_all([row("discarded"), row("discarded", attempt=20)])
    options = ["--set-queue", "slow", "--set-priority", "7"]
    assert shop.invoke("retry", "1", "--schedule-in", "1h", *options).exit_code == 0
    assert shop.invoke("retry", "2", "--scheduled-at", "2091-07-01T08:30+02:00", *options).exit_code == 0
    first, second = shop.rows().values()
    assert [(found["state"], found["queue"], found["priority"]) for found in (first, second)] == [
        ("scheduled", "slow", 7)
    ] * 2
    assert abs(first["scheduled_at"] - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)
    assert second["scheduled_at"] == datetime(2091, 7, 1, 6, 30, tzinfo=UTC)
    assert second["max_attempts"] == 21


#: By arguments of an update, the columns that it writes.
UPDATES: dict[str, dict[str, Any]] = {
    "--set-priority 0": {"priority": 0},
    "--set-queue slow": {"queue": "slow"},
    "--set-worker app.New": {"worker": "app.New"},
    "--set-tag B --set-tag a": {"tags": ["a", "b"]},
    "--set-max-attempts 7": {"max_attempts": 7},
    "--set-args '{\"id\": [1]}'": {"args": {"id": [1]}},
    "--set-meta {}": {"meta": {}},
    "--scheduled-at 2091-07-01T08:30": {
        "scheduled_at": datetime(2091, 7, 1, 8, 30, tzinfo=UTC),
        "state": "scheduled",
    },
}


@pytest.mark.either_database
def test_each_option_of_an_update_changes_its_columns_only(shop: Shop) -> None:
    for arguments, expected in UPDATES.items():
        job_id = shop.add(meta={"a": 1})
        before = shop.rows()[job_id]
        result = shop.invoke("update", str(job_id), *shlex.split(arguments))
        assert (result.exit_code, result.stdout) == (0, "1 job was updated.\n"), result.output
        assert shop.rows()[job_id] == {**before, **expected}


@pytest.mark.parametrize(
    ("verb", "arguments", "problem"),
    [
        ("update", "", "Nothing is to be changed: pass an option such as --set-priority 0."),
        ("update", "--set-priority 10", "10 is not in the range"),
        ("update", "--set-queue 'a b'", "'a b' is not a queue name"),
        ("update", "--set-max-attempts 0", "max_attempts must be 1 to 32767, not 0"),
        ("update", "--set-args [1]", "--set-args: '[1]' is not a JSON object, such as"),
        ("update", "--set-meta {a}", "--set-meta: '{a}' is not a JSON object, such as"),
        ("update", "--scheduled-at soon", "--scheduled-at: 'soon' is not a time such as"),
        ("retry", "--scheduled-at 2091-01-01 --schedule-in 1h", "exclude each other"),
        ("retry", "--schedule-in soon", "'soon' is not a duration"),
        ("retry", "--schedule-in 999999999d", "ends after the year 9999"),
        ("retry", "--set-queue ''", "'' is not a queue name"),
    ],
)
def test_a_wrong_change_is_wrong_usage(sqlite_shop: Shop, verb: str, arguments: str, problem: str) -> None:
    sqlite_shop.add("scheduled")
    result = sqlite_shop.invoke(verb, "1", *shlex.split(arguments))
    assert result.exit_code == 2, result.output
    assert problem in " ".join(result.stderr.split())


@pytest.mark.either_database
def test_an_update_of_a_job_that_does_not_exist_changes_none(shop: Shop) -> None:
    shop.add()
    before = shop.rows()
    result = shop.invoke("update", "1", "99", "--set-priority", "9")
    assert (result.exit_code, result.output) == (1, "Error: no job has the id 99\n")
    assert shop.rows() == before


@pytest.mark.parametrize("verb", ["cancel", "delete"])
def test_a_change_that_the_database_refuses_is_an_error(
    postgresql_url: URL, terminals: Terminals, verb: str
) -> None:
    shop = Shop(postgresql_url, terminals)
    shop.add_all([row("scheduled"), row("scheduled")])
    with shop.connected() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {postgresql_url.database} SET lock_timeout = '50ms'")
    with shop.connected() as connection:
        connection.exec_driver_sql("SELECT 1 FROM oban_jobs WHERE id = 2 FOR UPDATE")
        results = [shop.invoke(verb, "1", "2"), shop.invoke(verb, "--all", "--yes")]
    for result in results:
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: the database has refused a statement: ")
        assert "lock timeout" in result.stderr
    assert set(shop.states().values()) == {"scheduled"}


def test_rows_that_other_programs_have_spoilt_can_be_changed(shop: Shop) -> None:
    shop.add_all([row("executing"), row("executing")])
    shop.spoil(1, "args = '[1]', meta = 'null', errors = '{}', scheduled_at = '0001-01-01'")
    shop.spoil(2, "args = '[1]', meta = 'null', errors = '{}', scheduled_at = '0001-01-01'")
    for arguments in (("cancel", "1"), ("cancel", "--state", "executing", "--yes"), ("retry", "1", "2")):
        assert shop.invoke(*arguments).exit_code == 0, arguments
    assert shop.invoke("update", "1", "2", "--set-priority", "9").exit_code == 0
    assert shop.invoke("delete", "--all", "--yes").stdout == "2 jobs were deleted.\n"

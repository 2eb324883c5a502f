"""`oban jobs list`, `show` and `wait`, in a wide and in a narrow terminal and for other programs."""

import re
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from oban.documents.jobs import JobDocument
from oban.models import Attempt
from tests.cli.shop import Shop
from tests.support.rows import MADE, TABLE, row

TRACEBACK = (
    'Traceback (most recent call last):\n  File "app.py", line 7, in process\nValueError: no such customer'
)
ERROR = {"attempt": 3, "at": "2024-03-09T22:18:30.000000Z", "error": TRACEBACK}


HOSTILE = "\x1b[2J\x1b]0;x\x07\x9b31m[bold red]x[/]\u202eabc\u200f\ttab"
PROGRESS = {"attempt": 3, "done": 3, "total": 10, "message": "reading", "at": "2024-03-09T22:18:00+00:00"}

_WIDE = """\
ID  STATE      QUEUE    WORKER         ATTEMPT  WHEN (UTC)           ERROR                         ARGS
 3  executing  mail     app.SendEmail     1/20  2024-03-09 22:17:30                                {args}
 2  discarded  mail     app.SendEmail      3/3  2024-03-09 22:18:30  ValueError: no such customer  {path}
 1  completed  reports  app.Report        1/20  2024-03-09 22:18:30                                {path}\
"""
WIDE = _WIDE.format(args='{"customer": {"id": 7}}', path='{"path": ["a", 1, null]}').splitlines()
#: By the width of the terminal.
NARROW = {
    100: """\
ID  STATE      QUEUE    WORKER         ATTEMPT  WHEN (UTC)       ERROR             ARGS
 3  executing  mail     app.SendEmail     1/20  …03-09 22:17:30                    {"customer": {"i…
 2  discarded  mail     app.SendEmail      3/3  …03-09 22:18:30  ValueError: no …  {"path": ["a", 1…
 1  completed  reports  app.Report        1/20  …03-09 22:18:30                    {"path": ["a", 1…\
""",
    80: """\
ID  STATE      QUEUE    WORKER        WHEN (UTC)       ERROR        ARGS
 3  executing  mail     …p.SendEmail  …03-09 22:17:30               {"customer"…
 2  discarded  mail     …p.SendEmail  …03-09 22:18:30  ValueError…  {"path": ["…
 1  completed  reports  app.Report    …03-09 22:18:30               {"path": ["…\
""",
    36: """\
ID  STATE      WORKER
 3  executing  app.SendEmail
 2  discarded  app.SendEmail
 1  completed  app.Report\
""",
}


def fill(shop: Shop) -> list[int]:
    return shop.add_all(
        [
            row("completed", worker="app.Report", queue="reports"),
            row("discarded", worker="app.SendEmail", queue="mail", attempt=3, max_attempts=3, errors=[ERROR]),
            row(
                "executing", worker="app.SendEmail", queue="mail", args={"customer": {"id": 7}}, tags=["vip"]
            ),
        ]
    )


@pytest.mark.either_database
def test_a_wide_terminal_shows_all_columns(shop: Shop) -> None:
    fill(shop)
    code, lines = shop.jobs("list", columns=140)
    assert code == 0
    assert lines == WIDE


@pytest.mark.either_database
def test_a_narrow_terminal_shortens_texts_and_then_leaves_columns_out(shop: Shop) -> None:
    fill(shop)
    for columns, expected in NARROW.items():
        assert shop.jobs("list", columns=columns) == (0, expected.splitlines())


@pytest.mark.either_database
def test_another_program_gets_a_line_for_each_job(shop: Shop) -> None:
    fill(shop)
    shop.add(worker=(worker := f"app.{'Long' * 30}"), queue=(queue := "mail" * 20))
    result = shop.invoke("list", "--sort", "oldest")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ID", "1", "2", "3", "4"]
    assert result.stdout.splitlines()[-1].split()[2:4] == [queue, worker]
    assert "\x1b" not in result.stdout


@pytest.mark.either_database
def test_the_newest_jobs_are_listed_and_a_hint_says_that_there_are_more(shop: Shop) -> None:
    shop.add_all(row() for _ in range(22))
    code, lines = shop.jobs("list")
    assert code == 0
    assert [int(line.split()[0]) for line in lines[1:-1]] == list(range(22, 2, -1))
    assert lines[-1] == "There are more jobs: raise --limit, or add filters."
    assert "There are more" not in shop.invoke("list", "--limit", "22").output
    result = shop.invoke("list", "--limit", "1", "--json")
    assert '"id": 22' in result.stdout
    assert result.stderr == lines[-1] + "\n"


@pytest.mark.either_database
def test_jobs_are_sorted_by_when_they_are_due(shop: Shop) -> None:
    for minutes in (5, 1, 3):
        shop.add(scheduled_at=MADE + timedelta(minutes=minutes))
    assert [job["id"] for job in shop.json("list", "--sort", "due")] == [2, 3, 1]


@pytest.mark.either_database
def test_a_list_without_jobs_says_so(shop: Shop) -> None:
    assert shop.jobs("list") == (0, ["There are no jobs."])
    assert shop.jobs("list", "--queue", "mail") == (0, ["No job matches."])
    assert shop.json("list") == []


def shown(shop: Shop, job_id: int, columns: int = 120) -> list[str]:
    code, lines = shop.jobs("show", str(job_id), columns=columns)
    assert code == 0
    return [re.sub(r"\(\d.* days ago\)", "(long ago)", line) for line in lines]


@pytest.mark.either_database
def test_everything_about_a_job_is_shown(shop: Shop) -> None:
    meta = {"source": "api", "progress": PROGRESS}
    job_id = shop.add(
        "discarded",
        worker="app.SendEmail",
        queue="mail",
        attempt=3,
        max_attempts=3,
        tags=["eu", "vip"],
        errors=[{**ERROR, "error": "the first one"}, ERROR],
        args={"customer": {"id": 7}},
        meta=meta,
    )
    assert shown(shop, job_id) == [
        "Job 1 is discarded",
        "worker        app.SendEmail",
        "queue         mail",
        "priority      3",
        "attempt       3 of 3",
        "tags          eu, vip",
        "progress      3 of 10 (30%): reading",
        "inserted      2024-03-09 22:15:30 UTC (long ago)",
        "due           2024-03-09 22:16:30 UTC (long ago)",
        "last attempt  2024-03-09 22:17:30 UTC (long ago)",
        "discarded     2024-03-09 22:18:30 UTC (long ago)",
        "node          node-1, producer 0b5f3a86-30e4-4c3a-9a67-1c8b7d1a2e01",
        "",
        "Args",
        "{",
        '  "customer": {',
        '    "id": 7',
        "  }",
        "}",
        "",
        "Meta",
        "{",
        '  "source": "api"',
        "}",
        "",
        "Last error, of attempt 3 at 2024-03-09T22:18:30.000000Z",
        *TRACEBACK.splitlines(),
    ]


def add_attempts(shop: Shop, job_id: int, *attempts: dict[str, Any]) -> None:
    values = {
        "job_id": job_id,
        "node": "node-1",
        "started_at": MADE,
        "ended_at": MADE + timedelta(seconds=2.5),
    }
    with shop.connected() as connection:
        for number, attempt in enumerate(attempts, 1):
            connection.execute(insert(Attempt).values(attempt=number, **{**values, **attempt}))


@pytest.mark.either_database
def test_the_attempts_and_the_log_of_the_last_one_are_shown(shop: Shop) -> None:
    job_id = shop.add("completed", attempt=3)
    at = "2024-03-09T22:15:31.500000+00:00"
    log = [{"at": at, "level": "INFO", "text": "3 pages"}, {"at": at, "level": "ERROR", "text": "a\nb"}]
    add_attempts(
        shop,
        job_id,
        {
            "outcome": "failed",
            "error": TRACEBACK,
            "log": [{"at": at, "level": "INFO", "text": "the first one"}],
        },
        {"outcome": "rescued", "node": None, "ended_at": MADE + timedelta(hours=2)},
        {"outcome": "completed", "log": log, "started_at": None, "ended_at": MADE + timedelta(hours=3)},
    )
    lines = shown(shop, job_id)
    assert lines[lines.index("Attempts") :] == [
        "Attempts",
        "ATTEMPT  OUTCOME    BEGAN (UTC)             TOOK  NODE    ERROR",
        "      1  failed     2024-03-09 22:15:30  2.500 s  node-1  ValueError: no such customer",
        "      2  rescued    2024-03-09 22:15:30  2 hours  -",
        "      3  completed  -                          -  node-1",
        "",
        "Log of attempt 3",
        "22:15:31 INFO 3 pages",
        "22:15:31 ERROR a",
        "b",
    ]
    narrow = shown(shop, job_id, columns=60)
    assert "      1  failed     …03-09 22:15:30  2.500 s  ValueError: n…" in narrow
    first, *_ = shop.json("show", str(job_id))["attempts"]
    assert (first["attempt"], first["outcome"], first["error"]) == (1, "failed", TRACEBACK)


def test_the_traces_of_attempts_are_shown_if_there_are_any(sqlite_shop: Shop) -> None:
    job_id = sqlite_shop.add("completed", attempt=2)
    trace = "0af7651916cd43dd8448eb211c80319c"
    add_attempts(sqlite_shop, job_id, {"outcome": "failed"}, {"outcome": "completed", "trace": trace})
    heading, first, second = shown(sqlite_shop, job_id)[-3:]
    assert heading.endswith("  TRACE")
    assert trace not in first
    assert second.endswith(f"  {trace}")
    traces = [attempt["trace"] for attempt in sqlite_shop.json("show", str(job_id))["attempts"]]
    assert traces == [None, trace]


def test_of_many_attempts_the_last_ones_are_shown(sqlite_shop: Shop) -> None:
    job_id = sqlite_shop.add("completed")
    add_attempts(sqlite_shop, job_id, *({"outcome": "snoozed"} for _ in range(25)))
    output = sqlite_shop.invoke("show", str(job_id)).stdout
    assert output.count("snoozed") == 20
    assert "5 earlier ones, which --json prints" in output
    assert len(sqlite_shop.json("show", str(job_id))["attempts"]) == 25


def test_attempts_that_other_programs_have_spoilt_are_shown(sqlite_shop: Shop) -> None:
    job_id = sqlite_shop.add("completed")
    add_attempts(sqlite_shop, job_id, {"outcome": HOSTILE, "node": HOSTILE, "error": HOSTILE})
    for sql in (
        "log = '{}'",
        "log = 'nonsense', progress = 'x'",
        'log = \'[1, null, {}, {"at": 3, "level": [], "text": "\x1b[2J"}]\'',
        "attempt = 'x', outcome = x'00', node = 7, error = 7, started_at = 'soon', ended_at = 7",
    ):
        with sqlite_shop.connected() as connection:
            connection.exec_driver_sql(f"UPDATE oban_attempts SET {sql}")
        result = sqlite_shop.invoke("show", str(job_id))
        assert result.exit_code == 0, sql
        assert all(char == "\n" or char.isprintable() for char in result.stdout), sql
        assert len(sqlite_shop.json("show", str(job_id))["attempts"]) == 1, sql


def test_long_lines_are_continued_in_a_narrow_terminal(sqlite_shop: Shop) -> None:
    job_id = sqlite_shop.add(args={"text": "word " * 20 + "z" * 100})
    lines = shown(sqlite_shop, job_id, columns=60)
    assert all(len(line) <= 60 for line in lines)
    assert "".join(lines).count("word") == 20
    assert "".join(lines).count("z") == 100
    # Another program gets the line as it is.
    assert "z" * 100 in sqlite_shop.invoke("show", str(job_id)).stdout


def test_documents_are_coloured_unless_no_color_is_set(sqlite_shop: Shop) -> None:
    job_id = sqlite_shop.add(args={"id": 7})
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        with sqlite_shop.terminals.open(
            *("jobs", "show", str(job_id)), environment={**sqlite_shop.environment, **environment}
        ) as terminal:
            assert terminal.finish() == 0
        assert (b"\x1b[3" in terminal.output or b"\x1b[1;3" in terminal.output) is coloured


@pytest.mark.parametrize("command", ["show", "wait"])
@pytest.mark.either_database
def test_a_job_that_does_not_exist_is_an_error(shop: Shop, command: str) -> None:
    result = shop.invoke(command, "99")
    assert (result.exit_code, result.output) == (1, "Error: there is no job 99\n")


@pytest.mark.either_database
def test_json_has_every_column_of_a_job(shop: Shop) -> None:
    job_id = shop.add("completed", tags=["vip"], meta={"a": "é"})
    document = shop.json("show", str(job_id))
    assert document.pop("attempts") == []
    assert shop.json("list") == [document]
    assert document.keys() >= {column.key for column in TABLE.c} - {"unique_rule"}
    assert document["inserted_at"] == "2024-03-09T22:15:30.123456Z"
    assert (document["state"], document["tags"], document["meta"]) == ("completed", ["vip"], {"a": "é"})


@pytest.mark.parametrize(
    ("state", "columns", "code", "lines"),
    [
        ("completed", {}, 0, ["Job 1 is completed."]),
        (
            "completed",
            {"meta": {"recorded": True, "return": [1, "a"]}},
            0,
            ["Job 1 is completed.", 'It recorded [1, "a"]'],
        ),
        ("cancelled", {}, 1, ["Job 1 is cancelled."]),
        (
            "discarded",
            {"errors": [ERROR]},
            1,
            ["Job 1 is discarded.", "Its last error is ValueError: no such customer"],
        ),
        ("executing", {}, 3, ["Job 1 is still executing after 0.05 seconds."]),
        ("scheduled", {}, 3, ["Job 1 is still scheduled after 0.05 seconds."]),
    ],
)
def test_waiting_ends_with_a_code_that_says_how(
    shop: Shop, state: str, columns: dict[str, Any], code: int, lines: list[str]
) -> None:
    shop.add(state, **columns)
    assert shop.jobs("wait", "1", "--timeout", "0.05") == (code, lines)
    result = shop.invoke("wait", "1", "--timeout", "0.05s", "--json")
    assert result.exit_code == code
    assert f'"state": "{state}"' in result.stdout


@pytest.mark.either_database
def test_waiting_ends_when_the_job_does(shop: Shop) -> None:
    job_id = shop.add("executing")
    command = ("jobs", "wait", str(job_id))
    with shop.terminals.open(*command, environment=shop.environment) as terminal:
        # The command connects meanwhile, or has read the row already.
        shop.spoil(job_id, "state = 'completed', completed_at = '2024-03-09 22:20:00'")
        terminal.wait_for("Job 1 is completed.")
        assert terminal.finish() == 0


@pytest.mark.either_database
def test_texts_of_jobs_cannot_control_the_terminal(shop: Shop) -> None:
    job_id = shop.add(
        "discarded",
        worker=HOSTILE,
        queue=HOSTILE,
        tags=[HOSTILE],
        args={HOSTILE: HOSTILE},
        meta={"a": HOSTILE},
        attempted_by=[HOSTILE, HOSTILE],
        unique_key=HOSTILE,
        errors=[{"attempt": HOSTILE, "at": HOSTILE, "error": f"{HOSTILE}\n{HOSTILE}"}],
    )
    for arguments in (("list",), ("show", str(job_id)), ("wait", str(job_id)), ("list", "--json")):
        with shop.terminals.open("jobs", *arguments, columns=200, environment=shop.environment) as terminal:
            terminal.finish()
        output = terminal.output.decode()
        # Colours are all that the command itself sends.
        plain = re.sub(r"\x1b\[[\d;]*m", "", output).replace("\r\n", "\n")
        assert all(char == "\n" or char.isprintable() for char in plain), arguments
        if arguments != ("wait", str(job_id)):
            assert "[bold red]x[/]" in plain
    document = shop.json("show", str(job_id))
    assert (document["worker"], document["args"]) == (HOSTILE, {HOSTILE: HOSTILE})


def test_four_megabytes_are_cut_for_people_and_complete_for_programs(shop: Shop) -> None:
    job_id = shop.add(args={"text": "x" * 4_000_000})
    result = shop.invoke("show", str(job_id))
    assert result.exit_code == 0
    assert len(result.stdout) < 25_000
    assert "more characters, which --json prints" in result.stdout
    assert len(shop.json("show", str(job_id))["args"]["text"]) == 4_000_000
    assert len(shop.invoke("list").stdout) < 500


_DEEP = "[" * 900 + "]" * 900
#: What another program can store, as SQL, by database.
SPOILT = {
    "both": [
        "args = '[1]'",
        "args = 'null'",
        f"""args = '{{"a": {_DEEP}}}'""",
        "meta = '[1]'",
        """meta = '{"progress": 3}'""",
        """meta = '{"progress": {"attempt": 1, "at": "2024-01-01", "done": [1], "message": {}}}'""",
        """errors = '{"a": 1}'""",
        "errors = 'null'",
        """errors = '[1, null, "x", {}]'""",
        """errors = '[null]'""",
        """errors = '[{"error": "x"}]'""",
        "attempt = 32766, max_attempts = 32767",
        "scheduled_at = '0001-01-01'",
    ],
    "postgresql": [
        "tags = '{NULL}', attempted_by = '{NULL, NULL}'",
        "tags = '{{a,b},{c,d}}', attempted_by = '{{a,b},{c,d}}'",
        "scheduled_at = 'infinity', completed_at = '-infinity', inserted_at = '4713-01-01 BC'",
        "state = 'completed', completed_at = NULL",
    ],
    "sqlite": [
        "args = 'nonsense', meta = '', errors = '{'",
        "args = x'00ff', worker = x'00ff', queue = 7, tags = 7, errors = 7",
        "tags = '[1, null, {}]', attempted_by = 'x'",
        """args = '{"a": "\\ud800"}', tags = '["\\udc80"]'""",
        "scheduled_at = 'soon', inserted_at = '', completed_at = 'never'",
        "priority = 1.5, attempt = 1.5, unique_key = 7",
    ],
}


def test_rows_that_other_programs_have_spoilt_are_shown(shop: Shop) -> None:
    spoilt = [*SPOILT["both"], *SPOILT[shop.url.get_backend_name()]]
    ids = shop.add_all(row("executing") for _ in spoilt)
    for job_id, sql in zip(ids, spoilt, strict=True):
        shop.spoil(job_id, sql)
        result = shop.invoke("show", str(job_id))
        assert result.exit_code == 0, (sql, result.output)
        assert result.stdout.startswith(f"Job {job_id} is "), sql
    assert len(shop.invoke("list").stdout.splitlines()) == 1 + len(spoilt)
    documents = shop.json("list")
    assert [document["id"] for document in documents] == ids[::-1]
    assert all(document.keys() == JobDocument.__dataclass_fields__.keys() for document in documents)

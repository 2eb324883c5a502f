"""The command line in real processes: exit codes, messages, and signals."""

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

import oban as package
from oban import Job, JobState, Oban
from oban.cli import main
from oban.errors import SchemaMissing
from tests.support.commands import invoke, node, oban, text, until
from tests.support.databases import SQLiteFactory
from tests.support.waiting import eventually


@pytest.mark.parametrize("group", [(), ("jobs",), ("queues",), ("periodic",)])
def test_the_lines_about_commands_are_whole_sentences(group: tuple[str, ...]) -> None:
    lines = invoke(*group, "--help").stdout.partition("Commands:\n")[2].splitlines()
    assert len(lines) > 5
    assert [line for line in lines if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize("module", ["oban.cli", "oban.cli.stats"])
def test_a_command_that_is_interrupted_while_it_is_imported_shows_no_traceback(module: str) -> None:
    program = f"""
import sys
class Interrupted:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
sys.argv = ["oban", "stats"]
from oban.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Aborted!\n")


@pytest.mark.parametrize("argument", ["--version", "version"])
def test_both_the_option_and_the_command_print_the_version(argument: str) -> None:
    assert invoke(argument).stdout == f"oban {package.__version__}\n"


async def test_install_creates_and_uninstall_removes_the_tables_with_the_url_from_the_environment(
    empty_url: URL,
) -> None:
    made = await asyncio.to_thread(invoke, "install", OBAN_DATABASE_URL=text(empty_url))
    assert made.exit_code == 0, made.stderr
    async with Oban(empty_url) as client:
        await client.enqueue(Job(worker="echo"))
    option = ("--database-url", text(empty_url))
    assert (await asyncio.to_thread(invoke, "install", *option)).exit_code == 0
    async with Oban(empty_url) as client:
        assert len(await client.list_jobs()) == 1
    assert (await asyncio.to_thread(invoke, "uninstall", *option)).exit_code == 0
    with pytest.raises(SchemaMissing, match="oban install --database-url"):
        async with Oban(empty_url, queues={"default": 1}):
            pass


def test_start_says_that_there_are_no_tables(sqlite_factory: SQLiteFactory) -> None:
    started = oban("start", "--database-url", text(sqlite_factory.create(empty=True)))
    assert started.returncode == 1
    assert "there are no Oban tables" in started.stderr
    assert "oban install --database-url" in started.stderr
    assert "Traceback" not in started.stderr


def test_a_missing_url_is_named() -> None:
    result = invoke("install")
    assert result.exit_code == 2
    assert "--database-url" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--database-url", "mysql://u:secret@host/db"], "mysql is not supported"),
        (["--database-url", "nonsense"], "the database URL cannot be read"),
        (["--database-url", "postgresql+pygresql://u:secret@host/db"], "pygresql is not supported"),
        (["--database-url", "sqlite://", "--queues", "a:b"], "'a:b' is not NAME:LIMIT"),
        (["--database-url", "sqlite://", "--queues", "a:"], "'a:' is not NAME:LIMIT"),
        (["--database-url", "sqlite://", "--queues", "a=1"], "'a=1' is not NAME:LIMIT"),
        (["--database-url", "sqlite://", "--node", "", "--processes", "2"], "node must be a string that is"),
        (["--database-url", "sqlite://", "--queues", "a:1,a:2"], "'a' is listed twice"),
        (["--database-url", "sqlite://", "--queues", "a:1", "--queues", "b,a"], "'a' is listed twice"),
        (["--database-url", "sqlite://", "--queues", "a:0"], "limit must be an integer from 1 to 10000"),
        (["--database-url", "sqlite://", "--queues", "a b:1"], "'a b' is not a queue name"),
        (["--database-url", "sqlite://", "--import", "no.such"], "--import no.such: No module named 'no'"),
        (["--database-url", "sqlite://", "--prefix", "x"], "sqlite has no schemas"),
        (["--database-url", "sqlite://", "--lease", "soon"], "'soon' is not a valid float"),
        (
            ["--database-url", "sqlite://", "--lease", "0"],
            "must be at least 0.1 and less than 1e9 seconds, not 0.0",
        ),
        (
            ["--database-url", "sqlite://", "--lease", "nan"],
            "must be finite, not nan",
        ),
        (["--database-url", "sqlite://", "--notifier", "redis"], "'redis' is not one of 'listen', 'poll'"),
        (
            [
                "--database-url",
                "sqlite://",
                "--notifier",
                "poll",
                "--listen-url",
                "postgresql://u:secret@h/d",
            ],
            "listen_url and notifier='poll' contradict each other",
        ),
        (["--database-url", "sqlite://", "--processes", "0"], "0 is not in the range 1<=x<=256"),
        (["--database-url", "mysql://u:secret@host/db", "--processes", "2"], "mysql is not supported"),
    ],
)
def test_start_reports_an_error_in_one_line_without_the_password(
    arguments: list[str], words: str, started: list[Oban]
) -> None:
    result = invoke("start", *arguments)
    assert result.exit_code in (1, 2)
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert "secret" not in result.output
    assert started == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["mysql://u:secret@host/db", "--processes", "2"], 1, "Error: mysql is not supported"),
        (["sqlite://u:secret@host/db", "--queues", "a:b"], 2, "'a:b' is not NAME:LIMIT"),
    ],
)
def test_an_error_is_all_that_the_process_prints_and_its_exit_code(
    arguments: list[str], code: int, words: str
) -> None:
    result = oban("start", "--database-url", *arguments)
    assert result.returncode == code
    assert words in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert "secret" not in result.stdout + result.stderr


def test_install_says_which_database_is_down_without_the_password() -> None:
    result = invoke("install", "--database-url", "postgresql://me:secret@127.0.0.1:1/shop?password=secret")
    assert result.exit_code == 1
    assert "cannot reach the database postgresql+asyncpg://me:***@127.0.0.1:1/shop" in result.stderr
    assert "secret" not in result.stderr


def test_start_keeps_trying_while_the_database_is_down_and_stops_at_a_signal() -> None:
    with node("--database-url", "postgresql://me:secret@127.0.0.1:1/shop") as process:
        first = until(process, "trying again")
        until(process, "trying again")
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    assert "me:***@127.0.0.1:1/shop" in first[-1]
    assert "secret" not in "".join(first)


def test_start_can_be_stopped_while_it_waits_for_a_server_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with node("--database-url", f"postgresql://me@127.0.0.1:{port}/shop") as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGTERM)
                assert process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_import_of_the_application_ends_with_code_0_at_once(
    folder: Path, number: signal.Signals
) -> None:
    # An application that swallows every exception, and has threads that Python would wait for.
    (folder / "app" / "slow.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=[60]).start()\n"
        "print('imports', flush=True)\n"
        "while True:\n"
        "    try: time.sleep(60)\n"
        "    except BaseException: pass\n"
    )
    with node("--database-url", "sqlite://", "--import", "app.slow") as process:
        until(process, "imports")
        process.send_signal(number)
        assert process.wait() == 0


def test_each_option_of_the_command_line_reaches_the_instance(
    started: list[Oban], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OBAN_LISTEN_URL", "postgresql://direct/shop")
    arguments = "--queues a:1,b:2 --queues c:3 --name Other --node web --lease 30 --shutdown-grace-period 3"
    arguments += " --prefix jobs"
    main(["start", "--database-url", "postgresql://pooled/shop", *arguments.split()], standalone_mode=False)
    options = started[0].options
    assert (options.name, options.node, options.lease, options.prefix) == ("Other", "web", 30, "jobs")
    assert (options.shutdown_grace_period, options.notifier) == (3, "listen")
    assert options.listen_url == "postgresql://direct/shop"
    assert {name: queue.limit for name, queue in options.queues.items()} == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize(
    ("factory", "number"), [("sqlite", signal.SIGINT), ("postgresql", signal.SIGTERM)], indirect=["factory"]
)
async def test_start_runs_jobs_and_ends_with_code_0_at_a_signal(url: URL, number: signal.Signals) -> None:
    with node("--database-url", text(url), "--queues", "default:2", "--import", "app.workers") as process:
        async with Oban(url) as client:
            job = await client.enqueue(Job(worker="echo", args={"a": 1}))

            async def completed() -> bool:
                row = await client.get_job(job.id)
                return row is not None and row.state is JobState.COMPLETED

            await eventually(completed)
        process.send_signal(number)
        assert await asyncio.to_thread(process.wait, 10) == 0


async def test_what_the_application_has_registered_for_the_exit_runs(folder: Path, sqlite_url: URL) -> None:
    with (folder / "app" / "workers.py").open("a") as workers:
        workers.write("import atexit\natexit.register(print, 'goodbye')\natexit.register(lambda: 1 / 0)\n")
    with node("--database-url", text(sqlite_url), "--import", "app.workers") as process:
        until(process, "runs default:10")
        process.terminate()
        assert "goodbye\n" in until(process, "goodbye")
        assert process.wait() == 0


def test_a_handler_of_the_exit_that_hangs_is_not_waited_for() -> None:
    code = "import atexit, sys, time; from oban.cli import node; node.EXIT_TIMEOUT = 0.01;"
    code += "atexit.register(time.sleep, 3600); print('unwritten', end=''); node.exit_after_handlers()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "unwritten", "")


async def test_a_second_signal_does_not_wait_and_puts_the_job_back(url: URL) -> None:
    async with Oban(url) as client:
        job = await client.enqueue(Job(worker="slow"))
        with node("--database-url", text(url), "--import", "app.workers") as process:
            await asyncio.to_thread(until, process, "slow has begun")
            process.send_signal(signal.SIGTERM)
            stopping = (await asyncio.to_thread(until, process, "waiting for running jobs"))[-1]
            assert "(running: 1; a second Ctrl-C or SIGTERM puts them back" in stopping
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 10) == 0
        row = await client.get_job(job.id)
        assert row is not None
        assert (row.state, row.attempt, row.errors) == (JobState.AVAILABLE, 0, [])


async def test_a_worker_that_was_not_imported_is_a_failed_attempt_with_a_clear_error(
    sqlite_url: URL,
) -> None:
    async with Oban(sqlite_url) as client:
        job = await client.enqueue(Job(worker="echo"))
        with node("--database-url", text(sqlite_url)):

            async def failed() -> Job | None:
                row = await client.get_job(job.id)
                return row if row and row.state is JobState.RETRYABLE else None

            row = await eventually(failed)
    assert "no worker named 'echo' is registered" in row.errors[0]["error"]

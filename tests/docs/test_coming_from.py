"""Our side of `docs/coming_from/` runs on SQLite; the other side is parsed, and its names were run before.

The modules that forward jobs of another queue run with a stand-in for that queue.
"""

import functools
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import pytest
from sqlalchemy import URL, create_engine

import oban.testing
from oban import Job, Oban, SyncOban, Worker, migration
from oban.cli import main
from oban.job_function import FunctionWorker
from oban.testing import drain_queue
from oban.worker_entries import declared_entries
from tests.docs.commands import commands
from tests.docs.peers import PEERS, files, foreign_imports, used_names
from tests.docs.snippets import fenced
from tests.support.databases import PostgreSQLFactory, SQLiteFactory
from tests.support.processes import ROOT

INDEX = "docs/coming_from/index.md"
COMPARISON = "docs/coming_from/comparison.md"
PAGES = {
    "Celery": "docs/coming_from/celery.md",
    "RQ": "docs/coming_from/rq.md",
    "arq": "docs/coming_from/arq.md",
    "Dramatiq": "docs/coming_from/dramatiq.md",
    "Procrastinate": "docs/coming_from/procrastinate.md",
    "APScheduler": "docs/coming_from/apscheduler.md",
    "oban-py": "docs/coming_from/oban_py.md",
    "Elixir": "docs/coming_from/oban_elixir.md",
}
#: Pages whose module is written for a `SyncOban`, and for an `Oban`.
SYNC = ["Celery", "RQ", "Dramatiq", "APScheduler"]
ASYNC = ["arq", "Procrastinate", "oban-py", "Elixir"]
#: How a receipt ends that cannot be sent at all.
REFUSED = {
    **dict.fromkeys(PAGES, "discarded"),
    "RQ": "retryable",
    "oban-py": "retryable",
    "Elixir": "cancelled",
}
#: After how many days a review is asked for, and the time zone of the report, as in the other module.
DAYS = {**dict.fromkeys(PAGES, 7), "Dramatiq": 1}
ZONES = {
    **dict.fromkeys(PAGES, "UTC"),
    **dict.fromkeys(("Celery", "APScheduler", "oban-py", "Elixir"), "Europe/Berlin"),
}
OURS = ("oban", "shop", "sqlalchemy", *sys.stdlib_module_names)

pytestmark = pytest.mark.usefixtures("own_registry")


class Shop:
    """The package `shop` of a page, on a database of its own."""

    def __init__(self, url: URL, patch: pytest.MonkeyPatch) -> None:
        self.url = url
        self.sync_url = url.set(drivername="sqlite")
        self._patch = patch
        self._jobs: Any = None
        self.install("shop", "")
        for file in files(INDEX)[:2]:
            self.install(_module_name(file.path), file.code)
        engine = create_engine(self.sync_url)
        sys.modules["shop.models"].Base.metadata.create_all(engine)
        engine.dispose()

    def install(self, name: str, code: str) -> Any:
        """Execute a module, which can be imported until the test ends."""
        module = ModuleType(name)
        self._patch.setitem(sys.modules, name, module)
        package, _, last = name.rpartition(".")
        if package:
            self._patch.setattr(sys.modules[package], last, module, raising=False)
        exec(compile(code, name, "exec"), module.__dict__)
        return module

    def jobs(self, peer: str) -> Any:
        """Our module of a page."""
        self._patch.setenv("DATABASE_URL", str(self.sync_url if peer in SYNC else self.url))
        (file,) = (file for file in files(PAGES[peer]) if not file.peer)
        self._jobs = self.install(_module_name(file.path), file.code)
        return self._jobs

    def moving(self, peer: str) -> Any:
        """The module of a page that forwards jobs from the other queue."""
        (file,) = (file for file in files(PAGES[peer]) if file.moving)
        self.sets("REDIS_URL", "redis://localhost")
        return self.install(_module_name(file.path), file.code)

    def sets(self, name: str, value: str) -> None:
        """Set an environment variable until the test ends."""
        self._patch.setenv(name, value)

    def breaks(self, error: Exception) -> None:
        """Let no mail be delivered any more."""

        def deliver(address: str, subject: str) -> None:
            raise error

        self._patch.setattr(self._jobs, "deliver", deliver)


def _module_name(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


@pytest.fixture
def shop(sqlite_factory: SQLiteFactory, monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(sqlite_factory.create(), monkeypatch)


@pytest.mark.parametrize("peer", PEERS)
def test_the_other_side_uses_only_names_that_have_run(peer: str) -> None:
    known = PEERS[peer]
    owners = {name.partition(".")[0] for name in known.names}
    shown = [file for file in files(PAGES[peer]) if file.peer]
    assert {file.peer for file in shown} == {peer}
    imports = {found for file in shown for found in foreign_imports(file.code, OURS)}
    assert imports == {(module, name) for module, names in known.imports.items() for name in names}
    assert {name for file in shown for name in used_names(file.code, owners)} == known.names


@pytest.mark.parametrize("peer", PEERS)
def test_a_page_names_the_version_that_has_run(peer: str) -> None:
    text = (ROOT / PAGES[peer]).read_text()
    assert f"{peer} {PEERS[peer].version}" in " ".join(text.split())


@pytest.mark.parametrize("peer", PAGES)
def test_commands_have_options_that_exist_and_import_our_module(peer: str) -> None:
    for program, name, *arguments in commands(PAGES[peer]):
        assert program == "oban"
        command = main.get_command(click.Context(main), name)
        assert command is not None
        context = command.make_context(name, arguments)
        ours = {_module_name(file.path) for file in files(PAGES[peer]) if not file.peer}
        target = context.params["target"] or ""
        assert {*context.params["import"], target.partition(":")[0]} - {""} <= ours


def due_in_days(job: Job) -> float:
    """After how many days a job is due."""
    return round((job.scheduled_at - job.inserted_at).total_seconds() / 86400, 2)


def waits_for_a_minute(job: Job) -> bool:
    """Whether the next attempt of a job is a minute later, or somewhat more on a slow machine."""
    assert job.attempted_at is not None
    return 59 < (job.scheduled_at - job.attempted_at).total_seconds() < 90


@pytest.mark.parametrize("peer", SYNC)
def test_an_order_sends_a_receipt_and_later_asks_for_a_review(
    peer: str, shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = shop.jobs(peer)
    assert jobs.place_order("ann@example.com") == 1
    assert sorted(due_in_days(job) for job in jobs.oban.list_jobs()) == [0, DAYS[peer]]
    assert drain_queue("mailers", jobs.oban, with_scheduled=False)["completed"] == 1
    assert capsys.readouterr().out == "to ann@example.com: Receipt for order 1\n"
    assert drain_queue("mailers", jobs.oban)["completed"] == 1
    assert capsys.readouterr().out == "to ann@example.com: How did you like it?\n"


@pytest.mark.parametrize("peer", SYNC)
def test_a_busy_mail_server_is_tried_again_after_a_minute(peer: str, shop: Shop) -> None:
    jobs = shop.jobs(peer)
    shop.breaks(sys.modules["shop.mail"].Busy())
    jobs.place_order("ann@example.com")
    assert drain_queue("mailers", jobs.oban, with_scheduled=False)["retryable"] == 1
    (receipt,) = (job for job in jobs.oban.list_jobs() if job.state == "retryable")
    assert receipt.max_attempts == 5
    assert waits_for_a_minute(receipt)


@pytest.mark.parametrize("peer", SYNC)
def test_another_error_ends_the_job_if_the_other_queue_does_not_retry_it(peer: str, shop: Shop) -> None:
    jobs = shop.jobs(peer)
    shop.breaks(ValueError("no such address"))
    jobs.place_order("ann@example.com")
    assert drain_queue("mailers", jobs.oban, with_scheduled=False)[REFUSED[peer]] == 1


@pytest.mark.parametrize("peer", SYNC)
def test_the_report_is_made_at_three_and_stores_its_result(peer: str, shop: Shop) -> None:
    jobs = shop.jobs(peer)
    jobs.place_order("ann@example.com")
    (entry,) = declared_entries("Oban", [])
    assert (entry.declared["expression"], entry.declared["timezone"]) == ("0 3 * * *", ZONES[peer])
    job = jobs.sales_report.enqueue_sync()
    assert drain_queue("default", jobs.oban)["completed"] == 1
    assert jobs.oban.get_job(job.id).recorded == {"orders": 1}


@pytest.mark.parametrize("peer", ASYNC)
async def test_an_async_module_does_the_same(
    peer: str, shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = shop.jobs(peer)
    oban = jobs.oban
    assert await jobs.place_order("ann@example.com") == 1
    assert sorted(due_in_days(job) for job in await oban.list_jobs()) == [0, DAYS[peer]]
    assert (await drain_queue("mailers", oban))["completed"] == 2
    assert capsys.readouterr().out.splitlines() == [
        "to ann@example.com: Receipt for order 1",
        "to ann@example.com: How did you like it?",
    ]
    (entry,) = declared_entries("Oban", [])
    assert (entry.declared["expression"], entry.declared["timezone"]) == ("0 3 * * *", ZONES[peer])
    report = await (jobs.sales_report if hasattr(jobs, "sales_report") else jobs.SalesReport).enqueue()
    assert (await drain_queue("default", oban))["completed"] == 1
    assert (await oban.get_job(report.id)).recorded == {"orders": 1}
    shop.breaks(sys.modules["shop.mail"].Busy())
    await jobs.place_order("bob@example.com")
    assert (await drain_queue("mailers", oban, with_scheduled=False, with_safety=True))["retryable"] == 1
    (busy,) = (job for job in await oban.list_jobs() if job.state == "retryable")
    assert waits_for_a_minute(busy)
    shop.breaks(ValueError("no such address"))
    await jobs.place_order("cid@example.com")
    assert (await drain_queue("mailers", oban, with_scheduled=False, with_safety=True))[REFUSED[peer]] == 1
    await jobs.engine.dispose()


def forwarded(oban: SyncOban) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    return [(job.worker, job.args, job.meta) for job in oban.list_jobs()]


def test_tasks_of_celery_are_forwarded_once(shop: Shop) -> None:
    class Celery:
        def __init__(self, *arguments: Any, **options: Any) -> None: ...

        def task(self, **options: Any) -> Callable[[Any], Any]:
            assert options["bind"]
            return lambda function: function

    shop.install("celery", "").Celery = Celery
    jobs = shop.jobs("Celery")
    tasks = shop.moving("Celery")
    for _ in range(2):
        tasks.send_receipt(SimpleNamespace(request=SimpleNamespace(id="a")), 1, "ann@example.com")
        tasks.ask_for_review(SimpleNamespace(request=SimpleNamespace(id="b")), 1)
    assert forwarded(jobs.oban) == [
        ("shop.jobs.send_receipt", {"order_id": 1, "address": "ann@example.com"}, {"celery_id": "a"}),
        ("shop.jobs.AskForReview", {"order": 1}, {"celery_id": "b"}),
    ]


def test_jobs_of_rq_are_forwarded_once(shop: Shop) -> None:
    shop.install("rq", "").get_current_job = lambda: SimpleNamespace(id="a")
    jobs = shop.jobs("RQ")
    tasks = shop.moving("RQ")
    for _ in range(2):
        tasks.send_receipt(1, "ann@example.com")
        tasks.ask_for_review(1)
    assert forwarded(jobs.oban) == [
        ("shop.jobs.send_receipt", {"order_id": 1, "address": "ann@example.com"}, {"rq_id": "a"}),
        ("shop.jobs.AskForReview", {"order": 1}, {"rq_id": "a"}),
    ]


#: The table that the migrations of Elixir make, without its indexes.
ELIXIR = """
    CREATE TYPE oban_job_state AS ENUM (
        'available', 'scheduled', 'executing', 'retryable', 'completed', 'discarded', 'cancelled'
    );
    CREATE TABLE oban_jobs (
        id bigserial PRIMARY KEY, state oban_job_state NOT NULL DEFAULT 'available',
        queue text NOT NULL DEFAULT 'default', worker text NOT NULL, args jsonb NOT NULL,
        errors jsonb[] NOT NULL DEFAULT '{}', attempt integer NOT NULL DEFAULT 0,
        max_attempts integer NOT NULL DEFAULT 20,
        inserted_at timestamp NOT NULL DEFAULT timezone('UTC', now()),
        scheduled_at timestamp NOT NULL DEFAULT timezone('UTC', now()),
        attempted_at timestamp, completed_at timestamp, attempted_by text[], discarded_at timestamp,
        priority integer NOT NULL DEFAULT 0, tags varchar(255)[] DEFAULT '{}', meta jsonb DEFAULT '{}',
        cancelled_at timestamp
    );
    INSERT INTO oban_jobs (state, queue, worker, args, tags, attempt, errors, attempted_by) VALUES
        ('retryable', 'mailers', 'Shop.SendReceipt', '{"order": 1, "address": "a@b.c"}', '{paid}', 1,
         ARRAY['{"at": "2026-11-29T12:00:00Z", "attempt": 1, "error": "busy"}'::jsonb], '{web-1}'),
        ('available', 'mailers', 'Shop.AskForReview', '{"order": 1}', '{}', 0, '{}', NULL),
        ('executing', 'mailers', 'Shop.AskForReview', '{"order": 2}', '{}', 1, '{}', '{web-1}'),
        ('available', 'other', 'Shop.Other', '{}', '{}', 0, '{}', NULL)
"""


def test_a_statement_moves_waiting_jobs_of_elixir(postgresql_factory: PostgreSQLFactory) -> None:
    (move,) = fenced("docs/coming_from/oban_elixir.md", "sql")
    url = postgresql_factory.create(empty=True).set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(ELIXIR)
    migration.upgrade(url, prefix="jobs")
    for _ in range(2):
        with engine.begin() as connection:
            connection.exec_driver_sql(move)
    moved = SyncOban(engine, prefix="jobs").list_jobs()
    assert [(job.worker, job.state, job.attempt, job.tags, job.meta) for job in moved] == [
        ("Shop.SendReceipt", "retryable", 1, ["paid"], {}),
        ("Shop.AskForReview", "available", 0, [], {}),
    ]
    assert moved[0].errors == [{"at": "2026-11-29T12:00:00Z", "attempt": 1, "error": "busy"}]
    with engine.connect() as connection:
        left = connection.exec_driver_sql("SELECT state::text, queue FROM public.oban_jobs ORDER BY id").all()
    assert [tuple(row) for row in left] == [("executing", "mailers"), ("available", "other")]
    engine.dispose()
    postgresql_factory.drop(url)


async def test_jobs_of_arq_are_forwarded_once(shop: Shop) -> None:
    shop.install("arq", "")
    shop.install("arq.connections", "").RedisSettings = SimpleNamespace(from_dsn=str)
    jobs = shop.jobs("arq")
    tasks = shop.moving("arq")
    assert tasks.WorkerSettings.functions == [tasks.send_receipt, tasks.ask_for_review]
    for _ in range(2):
        await tasks.send_receipt({"job_id": "a"}, 1, "ann@example.com")
        await tasks.ask_for_review({"job_id": "b"}, 1)
    found = [(job.worker, job.meta) for job in await jobs.oban.list_jobs()]
    assert found == [("shop.jobs.send_receipt", {"arq_id": "a"}), ("shop.jobs.AskForReview", {"arq_id": "b"})]
    await jobs.engine.dispose()


def test_messages_of_dramatiq_are_forwarded_once(shop: Shop) -> None:
    class Broker:
        def __init__(self, url: str) -> None: ...

        def add_middleware(self, middleware: object) -> None: ...

    class CurrentMessage:
        @classmethod
        def get_current_message(cls) -> Any:
            return SimpleNamespace(message_id="a")

    dramatiq = shop.install("dramatiq", "")
    dramatiq.set_broker = lambda broker: None
    dramatiq.actor = lambda queue_name: lambda function: function
    shop.install("dramatiq.brokers", "")
    shop.install("dramatiq.brokers.redis", "").RedisBroker = Broker
    shop.install("dramatiq.middleware", "").CurrentMessage = CurrentMessage
    jobs = shop.jobs("Dramatiq")
    tasks = shop.moving("Dramatiq")
    for _ in range(2):
        tasks.send_receipt(1, "ann@example.com")
        tasks.ask_for_review(1)
    assert forwarded(jobs.oban) == [
        ("shop.jobs.send_receipt", {"order_id": 1, "address": "ann@example.com"}, {"message_id": "a"}),
        ("shop.jobs.AskForReview", {"order": 1}, {"message_id": "a"}),
    ]


def test_dates_of_apscheduler_are_moved_once_and_its_schedules_stay(shop: Shop) -> None:
    removed = []
    due = datetime(2091, 7, 1, tzinfo=UTC)

    class DateTrigger: ...

    def old(id: str, name: str, *args: Any, trigger: object) -> SimpleNamespace:
        found = SimpleNamespace(id=id, func_ref=f"shop.tasks:{name}", args=args, trigger=trigger)
        found.next_run_time, found.remove = due, lambda: removed.append(id)
        return found

    date = DateTrigger()
    stored = [
        old("a", "send_receipt", 1, "ann@example.com", trigger=date),
        old("b", "ask_for_review", 1, trigger=date),
        old("nightly", "sales_report", trigger="cron"),
    ]
    shop.install("apscheduler", "")
    shop.install("apscheduler.triggers", "")
    shop.install("apscheduler.triggers.date", "").DateTrigger = DateTrigger
    jobs = shop.jobs("APScheduler")
    shop.install("shop.tasks", "").scheduler = SimpleNamespace(
        start=lambda paused: None, shutdown=lambda: None, get_jobs=lambda: stored
    )
    (script,) = (file for file in files(PAGES["APScheduler"]) if file.path == "move_jobs.py")
    for _ in range(2):
        shop.install("move_jobs", script.code)
    assert removed == ["a", "b"] * 2
    assert [(job.worker, job.state, job.scheduled_at) for job in jobs.oban.list_jobs()] == [
        ("shop.jobs.send_receipt", "scheduled", due),
        ("shop.jobs.AskForReview", "scheduled", due),
    ]


def test_scheduled_jobs_of_rq_are_moved_once(shop: Shop) -> None:
    removed: list[str] = []
    due = datetime(2091, 7, 1, tzinfo=UTC)

    def old(id: str, name: str, *args: Any) -> SimpleNamespace:
        delete = functools.partial(removed.append, id)
        return SimpleNamespace(id=id, func_name=f"shop.tasks.{name}", args=args, kwargs={}, delete=delete)

    stored = {"a": old("a", "send_receipt", 1, "ann@example.com"), "b": old("b", "ask_for_review", 1)}
    registry = SimpleNamespace(get_job_ids=lambda: list(stored), get_scheduled_time=lambda job: due)
    queue = SimpleNamespace(scheduled_job_registry=registry, fetch_job=stored.get)
    shop.install("redis", "").Redis = SimpleNamespace(from_url=str)
    shop.install("rq", "").Queue = lambda name, connection: queue
    jobs = shop.jobs("RQ")
    shop.sets("REDIS_URL", "redis://localhost")
    (script,) = (file for file in files(PAGES["RQ"]) if file.path == "move_scheduled.py")
    for _ in range(2):
        shop.install("move_scheduled", script.code)
    assert removed == ["a", "b"] * 2
    assert [(job.worker, job.state, job.scheduled_at, job.meta) for job in jobs.oban.list_jobs()] == [
        ("shop.jobs.send_receipt", "scheduled", due, {"rq_id": "a"}),
        ("shop.jobs.AskForReview", "scheduled", due, {"rq_id": "b"}),
    ]


def test_the_last_photo_publishes_the_album(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = (file for file in files(INDEX) if file.path == "shop/albums.py")
    shop.jobs("Celery")
    albums = shop.install("shop.albums", file.code)
    sys.modules["shop.models"].Base.metadata.create_all(albums.engine)
    albums.upload(["a", "b"])
    oban = sys.modules["shop.jobs"].oban
    assert drain_queue("images", oban)["completed"] == 3
    assert capsys.readouterr().out == "resizing a\nresizing b\npublishing album 1\n"
    assert all(isinstance(job, Job) for job in oban.list_jobs())


def test_the_figures_are_those_that_the_benchmarks_report() -> None:
    shown, measured = (
        re.findall(r"^\| (?:drain|insert|latency|scheduled).*$", (ROOT / page).read_text(), re.MULTILINE)
        for page in (COMPARISON, "benchmarks/README.md")
    )
    assert len(shown) == 8
    assert [line for line in measured if line.count("|") == 6] == shown


@pytest.mark.parametrize("table", range(2))
def test_every_row_of_the_comparison_has_a_cell_for_each_library(table: int) -> None:
    tables = [
        block.splitlines()
        for block in (ROOT / COMPARISON).read_text().split("\n\n")
        if block.startswith("| | oban | ") and "raw" not in block.splitlines()[0]
    ]
    assert {line.count("|") for line in tables[table]} == {tables[table][0].count("|")}


#: What the tables of words call that is not ours.
NOT_OURS = {"add", "select", "where", "timedelta", "uniform", "get", "process", "X", "f"}


@pytest.mark.parametrize("peer", PAGES)
def test_the_words_on_our_side_exist(peer: str) -> None:
    text = (ROOT / PAGES[peer]).read_text()
    rows = re.findall(r"^\| .*? \| (.*?) \| .*\|$", text.partition("\n## Words\n")[2], re.MULTILINE)
    code = "; ".join(re.findall(r"`([^`]+)`", " ".join(rows)))
    ours = {name for owner in (oban, oban.testing, Oban, Job, FunctionWorker, Worker) for name in dir(owner)}
    assert len(rows) > 20
    assert set(re.findall(r"(\w+)\(", code)) - ours - NOT_OURS == set()
    known = set(main.list_commands(click.Context(main)))
    assert set(re.findall(r"\boban ([a-z]+)", code)) <= known

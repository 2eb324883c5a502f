"""How long the questions of an operator take with a million jobs: lists, filters, statistics and metrics.

python -m benchmarks.operate
python -m benchmarks.operate --databases sqlite --rows 100000 --rounds 5
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import URL, create_engine, select

from benchmarks import databases
from benchmarks.databases import Database, Filling
from benchmarks.meter import cpu_of_server
from benchmarks.scenarios import BOTH
from oban import Job, Oban, filters
from oban.prometheus import ObanMetrics

#: Milliseconds within which each answer is promised.
PROMISE = 300
#: What `oban jobs list` reads by default: one job more than it shows.
LIMIT = 21

_STATE = """CASE WHEN n % 2500 = 0 THEN 'executing' WHEN n % 100 < 76 THEN 'completed'
 WHEN n % 100 < 91 THEN 'available' WHEN n % 100 < 95 THEN 'scheduled' WHEN n % 100 < 97 THEN 'retryable'
 WHEN n % 100 < 99 THEN 'cancelled' ELSE 'discarded' END"""
_QUEUE = "CASE WHEN n % 10 < 6 THEN 'default' WHEN n % 10 < 8 THEN 'media' ELSE 'mail' END"
#: A queue for each tenant. The number is prime, so that each has jobs in most states.
_MANY_QUEUES = "'tenant-' || (n % 9973)"
_ENDED = ", ".join(
    f"CASE WHEN state = '{state}' THEN made END" for state in ("completed", "cancelled", "discarded")
)
_INTO = """INSERT INTO oban_jobs (state, queue, worker, attempt, priority, args, meta, tags, attempted_by,
 inserted_at, scheduled_at, attempted_at, completed_at, cancelled_at, discarded_at)"""
#: Jobs of the last days, one every half second. Of each `order` there is one, of each `account` one in
#: a thousand, and of each `kind` one in five.
_FILL = {
    "postgresql": f"""
{_INTO} SELECT CAST(state AS oban_job_state), queue, 'app.Worker' || (n % 20), 1, n / 100 % 4,
 jsonb_build_object('order', n, 'account', n % 1000, 'kind', 'kind-' || (n % 5), 'note', repeat('x', 60)),
 '{{"by": "import"}}', ARRAY['tag-' || (n % 10)], ARRAY['node', 'uuid'], made, made, made, {_ENDED}
 FROM (SELECT n, {_STATE} AS state, {_QUEUE} AS queue,
   timezone('UTC', now()) - (%(rows)s - n) * interval '0.5 seconds' AS made
   FROM generate_series(1, %(rows)s) AS n) AS numbered
""".replace("% ", "%% "),
    "sqlite": f"""
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows)
{_INTO} SELECT state, queue, 'app.Worker' || (n % 20), 1, n / 100 % 4,
 json_object('order', n, 'account', n % 1000, 'kind', 'kind-' || (n % 5), 'note', printf('%.60c', 'x')),
 '{{"by": "import"}}', json_array('tag-' || (n % 10)), '["node", "uuid"]', made, made, made, {_ENDED}
 FROM (SELECT n, {_STATE} AS state, {_QUEUE} AS queue,
   strftime('%Y-%m-%d %H:%M:%f000', 'now', '-' || ((:rows - n) / 2) || ' seconds') AS made FROM numbers)
""",
}
#: The indexes that docs/guides/filters.md recommends if jobs are often searched by their args.
_INDEXES = {
    "postgresql": {"bench_args": "USING gin (args jsonb_path_ops)"},
    "sqlite": {
        f"bench_{key}": f"(CASE WHEN json_valid(args) = 1 THEN json_extract(args, '$.{key}') END)"
        for key in ("order", "account", "kind")
    },
}
_DRIVERS = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}

Question = Callable[[Oban], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """How long one question took, in milliseconds.

    The median, the 95th percentile, and the mean of the CPU time, which other programs do not change.
    """

    database: str
    question: str
    indexed: bool
    p50: float
    p95: float
    cpu: float

    def __str__(self) -> str:
        question = f"{self.question}{', with an index on args' if self.indexed else ''}"
        met = "met" if self.p95 < PROMISE else "only the median" if self.p50 < PROMISE else "missed"
        return (
            f"{self.database:<10}  {question:<60}  {self.p50:8.1f}  {self.p95:8.1f}  {self.cpu:8.1f}  {met}"
        )


HEAD = f"{'':<10}  {'':<60}  {'p50 ms':>8}  {'p95 ms':>8}  {'CPU ms':>8}  under {PROMISE} ms"


def newest(*conditions: Any) -> Question:
    """The newest jobs that fulfil conditions, as `oban jobs list` reads them."""
    return lambda oban: oban.list_jobs(select(Job).where(*conditions).order_by(Job.id.desc()), limit=LIMIT)


LISTS: dict[str, Question] = {
    "list": newest(),
    "list of a state with 1 % of the jobs": newest(filters.state("discarded")),
    "list of a state with 0.04 % of the jobs": newest(filters.state("executing")),
    "list of a queue and a state": newest(filters.queue("mail"), filters.state("discarded")),
    "list of a worker": newest(filters.worker("app.Worker7")),
    "list of a tag": newest(filters.tags("tag-3")),
}
BY_ARGS: dict[str, Question] = {
    "args filter, 1 job in 5": newest(filters.args("kind") == "kind-1"),
    "args filter, 1 job in 1,000": newest(filters.args("account") == 7),
    "args filter, 1 job in all": newest(filters.args("order") == 77),
    "args filter, no job": newest(filters.args("order") == -1),
}
STATS: dict[str, Question] = {
    "stats": lambda oban: oban.stats(),
    "stats, counting up to 10,000": lambda oban: oban.stats(count_limit=10_000),
}


async def _scrape(oban: Oban) -> bytes:
    """Scrape the metrics, and wait for the numbers from the database however long they take."""
    registry = CollectorRegistry()
    metrics = ObanMetrics(oban, registry=registry)
    metrics.sampler.begin()
    while metrics.sampler.age is None:  # noqa: ASYNC110
        # The thread that reads them tells nobody. This is short beside what is measured.
        await asyncio.sleep(0.0005)
    return generate_latest(registry)


METRICS: dict[str, Question] = {"scrape of the metrics": _scrape}
MANY_QUEUES: dict[str, Question] = {"scrape of the metrics, with 9,973 queues": _scrape}


def fill(url: URL, rows: int, *, many_queues: bool = False) -> None:
    """Insert the jobs, in three queues or in thousands, and let the database take note of them."""
    name = url.get_backend_name()
    statement = _FILL[name]
    if many_queues:
        escape = ("% ", "%% ") if name == "postgresql" else ("%", "%")
        statement = statement.replace(_QUEUE.replace(*escape), _MANY_QUEUES.replace(*escape))
    engine = create_engine(url.set(drivername=_DRIVERS[name]), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement, {"rows": rows})
        if name == "postgresql":
            connection.exec_driver_sql("VACUUM (ANALYZE) oban_jobs")
    engine.dispose()


def execute(url: URL, *statements: str) -> None:
    """Run statements that cannot be in a transaction."""
    engine = create_engine(url.set(drivername=_DRIVERS[url.get_backend_name()]), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def measure(database: Database, rows: int, rounds: int) -> Iterator[Answer]:
    """Ask all questions about a table of this size, without an index on args and with one."""
    url = database.prepare(Filling())
    fill(url, rows)
    yield from asyncio.run(
        _ask(url, {**LISTS, **BY_ARGS, **STATS, **METRICS}, rounds, database.server, indexed=False)
    )
    indexes = _INDEXES[url.get_backend_name()]
    execute(url, *(f"CREATE INDEX {name} ON oban_jobs {on}" for name, on in indexes.items()))
    yield from asyncio.run(_ask(url, BY_ARGS, rounds, database.server, indexed=True))
    # The database can be prepared for other jobs afterwards.
    execute(url, *(f"DROP INDEX {name}" for name in indexes))
    url = database.prepare(Filling())
    fill(url, rows, many_queues=True)
    yield from asyncio.run(_ask(url, MANY_QUEUES, rounds, database.server, indexed=False))


async def _ask(
    url: URL, questions: dict[str, Question], rounds: int, server: int | None, *, indexed: bool
) -> list[Answer]:
    answers = []
    for name, question in questions.items():
        times, used = [], 0.0
        # The first time, pages are read from the disk, and the statement is compiled.
        for number in range(rounds + 1):
            # A new connection, as each command has. PostgreSQL plans a statement differently when it is
            # repeated on one.
            async with Oban(url) as oban:
                await oban.get_job(1)
                before, cpu = time.perf_counter(), _cpu(server)
                await question(oban)
                if number:
                    times.append(1000 * (time.perf_counter() - before))
                    used += 1000 * (_cpu(server) - cpu)
        p95 = quantiles(times, n=20, method="inclusive")[-1] if len(times) > 1 else times[0]
        answers.append(Answer(url.get_backend_name(), name, indexed, median(times), p95, used / rounds))
    return answers


def _cpu(server: int | None) -> float:
    """The CPU seconds of this process, and of the server if it runs on this machine."""
    return time.process_time() + (0.0 if server is None else cpu_of_server(server))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operate", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--databases", choices=BOTH, action="append", help="postgresql or sqlite (default: both)"
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="jobs in the table (default: 1,000,000)")
    parser.add_argument("--rounds", type=int, default=20, help="how often each is asked (default: 20)")
    parser.add_argument(
        "--database-url",
        help="a PostgreSQL server, on which a database is created and dropped again"
        " (default: one is started, with default settings)",
    )
    options = parser.parse_args(arguments)
    wanted = options.databases or BOTH
    with ExitStack() as stack:
        opened: list[Database] = []
        if "postgresql" in wanted:
            opened.append(stack.enter_context(databases.postgresql(options.database_url)))
        if "sqlite" in wanted:
            opened.append(stack.enter_context(databases.sqlite()))
        print(
            *(database.about for database in opened), f"{options.rows:,} jobs", "", HEAD, sep="\n", flush=True
        )
        for database in opened:
            for answer in measure(database, options.rows, options.rounds):
                print(answer, flush=True)


if __name__ == "__main__":
    main()

"""How long the dashboard's server takes for each page on a table of a million jobs.

python -m benchmarks.pages
python -m benchmarks.pages --databases sqlite --rows 100000 --requests 20 --pages jobs
"""

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx2
from sqlalchemy import URL, create_engine, func, select, text
from sqlalchemy.orm import Session

from benchmarks import databases
from benchmarks.databases import Database, Filling
from benchmarks.meter import cpu_of_server
from benchmarks.scenarios import BOTH
from oban import Job, Oban, Periodic, Worker, __version__
from oban.models import Producer
from oban.web import dashboard

#: Milliseconds: what is aimed at, and what no request should exceed.
AIM, LIMIT = 100, 300
#: Nodes, queues of each, and periodic entries.
NODES, QUEUES, ENTRIES = 50, 20, 100
_ORIGIN = "http://localhost"
_DRIVERS = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
#: 98 % are completed. Most of the others wait, in a few of the 200 queues.
_STATE = """CASE WHEN n % 1000 < 980 THEN 'completed' WHEN n % 1000 < 988 THEN 'available'
 WHEN n % 1000 < 992 THEN 'scheduled' WHEN n % 1000 < 994 THEN 'retryable' 
 WHEN n % 1000 < 995 THEN 'discarded' WHEN n % 10000 = 999 THEN 'executing' ELSE 'cancelled' END"""
_ENDED = ", ".join(
    f"CASE WHEN state = '{state}' THEN made END" for state in ("completed", "cancelled", "discarded")
)
_INTO = """INSERT INTO oban_jobs (state, queue, worker, attempt, priority, args, meta, tags, errors,
 attempted_by, inserted_at, scheduled_at, attempted_at, completed_at, cancelled_at, discarded_at)"""
_ERROR = "Traceback (most recent call last): in process; ValueError: order "
#: Jobs of the last six days, two a second. Of each tag `customer:…` there are 20.
_FILL = {
    "postgresql": (
        f"""
{_INTO} SELECT CAST(state AS oban_job_state), 'queue-' || (n * 7 % 200), 'app.Worker' || (n % 40), 1,
 n / 100 % 4,
 jsonb_build_object('order', n, 'account', n % 1000, 'customer', jsonb_build_object('id', n % 50000)),
 '{{"by": "import"}}', ARRAY['customer:' || (n % 50000), 'kind-' || (n % 5)],
 CASE WHEN n % 1000 < 970 THEN '[]' ELSE jsonb_build_array(jsonb_build_object(
   'attempt', 1, 'at', to_char(made, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'error', '{_ERROR}' || n)) END,
 ARRAY['node-' || (n % 8), 'uuid-' || (n % 8)], made, made, made, {_ENDED}
 FROM (SELECT n, {_STATE} AS state,
   timezone('UTC', now()) - (%(rows)s - n) * interval '0.5 seconds' AS made
   FROM generate_series(1, %(rows)s) AS n) AS numbered""".replace("% ", "%% "),
        """
INSERT INTO oban_attempts (job_id, attempt, outcome, node, producer, started_at, ended_at, error)
 SELECT id, 1, CASE WHEN state IN ('retryable', 'discarded') THEN 'failed' ELSE 'completed' END,
 attempted_by[1], attempted_by[2], attempted_at, attempted_at + interval '0.2 seconds',
 errors->0->>'error' FROM oban_jobs""",
    ),
    "sqlite": (
        f"""
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows)
{_INTO} SELECT state, 'queue-' || (n * 7 % 200), 'app.Worker' || (n % 40), 1,
 n / 100 % 4,
 json_object('order', n, 'account', n % 1000, 'customer', json_object('id', n % 50000)),
 '{{"by": "import"}}', json_array('customer:' || (n % 50000), 'kind-' || (n % 5)),
 CASE WHEN n % 1000 < 970 THEN '[]' 
  ELSE json_array(json_object('attempt', 1, 'at', made, 'error', '{_ERROR}' || n)) END,
 json_array('node-' || (n % 8), 'uuid-' || (n % 8)), made, made, made, {_ENDED}
 FROM (SELECT n, {_STATE} AS state,
   strftime('%Y-%m-%d %H:%M:%f000', 'now', '-' || ((:rows - n) / 2) || ' seconds') AS made FROM numbers)""",
        """
INSERT INTO oban_attempts (job_id, attempt, outcome, node, producer, started_at, ended_at, error)
 SELECT id, 1, CASE WHEN state IN ('retryable', 'discarded') THEN 'failed' ELSE 'completed' END,
 json_extract(attempted_by, '$[0]'), json_extract(attempted_by, '$[1]'), attempted_at, attempted_at,
 json_extract(errors, '$[0].error') FROM oban_jobs""",
    ),
}
#: What is searched, and why it may be slow.
SEARCHES = {
    "jobs, a state of 1 job in 1,000": "state:discarded",
    "jobs, a queue": "queue:queue-67",
    "jobs, a queue and a state": "queue:queue-67 state:available",
    "jobs, a worker": "worker:app.Worker7",
    "jobs, a worker by its end": "worker:*Worker7",
    "jobs, a node": "node:node-3",
    "jobs, a tag of 20 jobs": "tag:customer:77",
    "jobs, a tag of 1 job in 5": "tag:kind-3",
    "jobs, an args path of 20 jobs": "args.customer.id:77",
    "jobs, an args path of 1 job": "args.order:77",
    "jobs, a priority": "priority:3",
    "jobs, a time": "completed:<1h",
    "jobs, nothing matches": "tag:nobody",
    "jobs, no args match": "args.order:-1",
    "jobs, a word of an error": "ValueError",
    "jobs, a word that is nowhere": "nowhere",
    "jobs, a negation of most jobs": "-state:completed",
    "jobs, a negation and a rare tag": "-tag:kind-3 tag:customer:77",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is measured, of the name of its page."""

    page: str
    path: str
    #: What a dry run is about; None for a request that only reads.
    body: dict[str, Any] | None = None

    async def send(self, client: httpx2.AsyncClient) -> httpx2.Response:
        if self.body is None:
            return await client.get(self.path)
        return await client.post(self.path, json={**self.body, "dry_run": True})


@dataclass(frozen=True, slots=True)
class Answer:
    """How long a request took, in milliseconds.

    The median, the 95th percentile, the longest, and the mean of the CPU time of this process and the server,
    which other programs do not change.
    """

    database: str
    page: str
    status: int
    p50: float
    p95: float
    longest: float
    cpu: float

    def __str__(self) -> str:
        met = "met" if self.p50 < AIM else "under the limit" if self.longest < LIMIT else "missed"
        state = "" if self.status == 200 else f", status {self.status}"
        return (
            f"{self.database:<10}  {self.page + state:<46}"
            f"  {self.p50:8.1f}  {self.p95:8.1f}  {self.longest:8.1f}  {self.cpu:8.1f}  {met}"
        )


HEAD = f"{'':<10}  {'':<46}  {'p50 ms':>8}  {'p95 ms':>8}  {'max ms':>8}  {'CPU ms':>8}  p50 under {AIM} ms"


def fill(url: URL, rows: int) -> None:
    """Insert jobs and their attempts, and let the database take note of them."""
    name = url.get_backend_name()
    engine = create_engine(url.set(drivername=_DRIVERS[name]), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in _FILL[name]:
            connection.exec_driver_sql(statement, {"rows": rows} if "rows" in statement else {})
        connection.exec_driver_sql("VACUUM (ANALYZE)" if name == "postgresql" else "ANALYZE")
    engine.dispose()


def fill_nodes(url: URL) -> None:
    """Insert `NODES` nodes that run `QUEUES` queues each, periodic entries, and a job with large args."""
    engine = create_engine(url.set(drivername=_DRIVERS[url.get_backend_name()]))
    meta = {"limit": 10, "local_limit": 10, "paused": False, "lease": 86_400.0}
    workers = [f"app.Worker{number}" for number in range(40)]
    with Session(engine) as session, session.begin():
        for node in range(NODES):
            about = {**meta, "pid": 1000 + node, "version": __version__, "python": "3.12", "workers": workers}
            for number in range(QUEUES):
                queue = f"queue-{(node * QUEUES + number) * 7 % 200}"
                running = {"running": list(range(1, 6))}
                session.add(
                    Producer(
                        uuid=uuid4(), name="Oban", node=f"node-{node}", queue=queue, meta=about | running
                    )
                )
    engine.dispose()
    asyncio.run(_fill_jobs(url))


async def _fill_jobs(url: URL) -> None:
    async with Oban(url) as oban:
        for number in range(ENTRIES):
            await oban.add_periodic(Periodic(f"entry-{number}", "*/5 * * * *", Nothing.new({"n": number})))
        await oban.enqueue(Nothing.new({"text": "lorem ipsum " * 330_000}))


class Nothing(Worker):
    """A worker whose jobs are never run."""

    async def process(self, job: Job) -> None:
        pass


def requests(first: int, last: int) -> Iterator[Request]:
    """Every page, with the ids of the first and the last job, which has large args."""
    yield Request("overview", "/")
    for window in ("24h", "7d"):
        yield Request(f"overview, {window}", f"/?window={window}")
    yield Request("jobs", "/jobs")
    for name, query in SEARCHES.items():
        yield Request(name, f"/jobs?q={quote(query)}")
    for order in ("oldest", "due"):
        yield Request(f"jobs, {order} first", f"/jobs?q=state:scheduled&sort={order}")
    yield Request("job, the newest", f"/jobs/{last - 1}")
    yield Request("job, 4 MB of args", f"/jobs/{last}")
    yield Request("job, the oldest", f"/jobs/{first}")
    yield Request("new job", "/jobs/new")
    yield Request("queues", "/queues")
    yield Request("nodes", "/nodes")
    yield Request("periodic", "/periodic")
    yield Request("queue", "/queues/one?name=queue-67")
    yield Request("node", "/nodes/one?name=node-7")
    yield Request("suggestions", "/jobs/suggest?q=queue:queue-6")
    yield Request("suggestions of workers", "/jobs/suggest?q=worker:W")
    yield Request("palette", "/palette?q=worker1")
    yield Request("bulk preview of 8,000 jobs", "/jobs/bulk?q=state:available&action=cancel&all=1")
    yield Request("bulk preview of all jobs", "/jobs/bulk?action=delete&all=1")
    yield Request("API, list of jobs", "/api/jobs")
    yield Request("API, due first", "/api/jobs?sort=due&state=scheduled&limit=20")
    yield Request("API, search for a tag", f"/api/jobs?q={quote('tag:customer:77')}")
    yield Request("API, counts of all jobs", "/api/counts")
    yield Request("API, counts of a state", "/api/counts?state=available")
    yield Request("API, queues", "/api/queues")
    yield Request("API, nodes", "/api/nodes")
    yield Request("API, why", f"/api/jobs/{last - 1}/why")
    yield Request("API, dry run of a state", "/api/jobs/cancel", {"filter": {"state": ["available"]}})
    yield Request("API, dry run of all jobs", "/api/jobs/delete", {"all": True})


async def ask(url: URL, names: Sequence[str], count: int, server: int | None) -> list[Answer]:
    """Ask for each page, one request after another, after one that is not measured."""
    answers = []
    async with Oban(url) as oban:
        app = dashboard(oban)
        try:
            first, last = await _ids(oban)
            kind = url.get_backend_name()
            answers.append(await _round_trip(oban, kind, count, server))
            transport = httpx2.ASGITransport(app=app, client=("127.0.0.1", 50_000))
            async with httpx2.AsyncClient(transport=transport, base_url=_ORIGIN, timeout=60) as client:
                for each in requests(first, last):
                    if not names or each.page.startswith(tuple(names)):
                        answers.append(await _measure(client, each, kind, count, server))
                        print(answers[-1], flush=True)
        finally:
            await app.aclose()
    return answers


async def _ids(oban: Oban) -> tuple[int, int]:
    async with oban.engine.connect() as connection:
        row = (await connection.execute(select(func.min(Job.id), func.max(Job.id)))).one()
    return row[0], row[1]


async def _round_trip(oban: Oban, kind: str, count: int, server: int | None) -> Answer:
    """The least that a statement can take."""

    async def ask() -> int:
        async with oban.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        return 200

    answer = await _time(ask, kind, "SELECT 1, for comparison", count, server)
    print(answer, flush=True)
    return answer


async def _measure(
    client: httpx2.AsyncClient, request: Request, kind: str, count: int, server: int | None
) -> Answer:
    async def ask() -> int:
        return (await request.send(client)).status_code

    return await _time(ask, kind, request.page, count, server)


async def _time(
    ask: Callable[[], Awaitable[int]], kind: str, page: str, count: int, server: int | None
) -> Answer:
    # The first time, templates and statements are compiled, and pages are read from the disk.
    status = await ask()
    times, began = [], _cpu(server)
    for _ in range(count):
        before = time.perf_counter()
        await ask()
        times.append(1000 * (time.perf_counter() - before))
    cpu = 1000 * (_cpu(server) - began) / count
    p95 = quantiles(times, n=20, method="inclusive")[-1] if len(times) > 1 else times[0]
    return Answer(kind, page, status, median(times), p95, max(times), cpu)


def _cpu(server: int | None) -> float:
    return time.process_time() + (0.0 if server is None else cpu_of_server(server))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--databases", choices=BOTH, action="append", help="postgresql or sqlite (default: both)"
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="jobs in the table (default: 1,000,000)")
    parser.add_argument("--requests", type=int, default=50, help="requests for each page (default: 50)")
    parser.add_argument(
        "--pages", action="append", help="the beginning of a page's name (default: all pages)"
    )
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
        load = os.getloadavg()[0]
        print(
            f"{options.rows:,} jobs, load {load:.1f} on {os.cpu_count()} cores",
            "",
            HEAD,
            sep="\n",
            flush=True,
        )
        for database in opened:
            url = database.prepare(Filling())
            fill(url, options.rows)
            fill_nodes(url)
            asyncio.run(ask(url, options.pages or (), options.requests, database.server))


if __name__ == "__main__":
    main()

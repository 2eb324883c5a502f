"""Nodes in real processes, and faults in them."""

import asyncio
import atexit
import contextlib
import itertools
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Self

from sqlalchemy import URL, text

from oban import Job, Oban
from tests.faults import recording
from tests.faults.history import Fault, History
from tests.faults.invariants import FINAL, Violation, check
from tests.faults.node import PAUSED, run_forked
from tests.faults.workers import LEDGER_URL
from tests.support.waiting import eventually

#: Seconds that a process has to start running jobs.
START = 30.0
_pids: set[int] = set()
# Nodes are forked from a process that has imported everything, so they start in milliseconds. On a small
# machine the imports alone would take longer than a node lives in some tests.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    [
        *("tests.faults.node", "tests.faults.workers", "oban.notifier.listen", "pytest"),
        *("sqlalchemy.dialects.postgresql.asyncpg", "asyncpg", "aiosqlite"),
    ]
)


@atexit.register
def _kill_all() -> None:
    for pid in list(_pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end_forking() -> None:
    """End the process that nodes are forked from, and its helper, which would outlive the tests."""
    helpers: list[Any] = [forkserver._forkserver, resource_tracker._resource_tracker]
    for helper in helpers:
        helper._stop()


class Node:
    """One node of a cluster. Each process that it starts has its own name: `n1.1`, `n1.2`, …"""

    def __init__(self, cluster: "Cluster", number: int) -> None:
        self.cluster = cluster
        self.number = number
        self.life = 0
        self.process: ForkServerProcess | None = None
        #: Overrides for this node: keyword arguments of `Oban`, and other keys of `tests.faults.node`.
        self.options: dict[str, Any] = {}
        self.config: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The name of the current or last process, which is the `node` of its Oban."""
        return f"n{self.number}.{self.life}"

    @property
    def running(self) -> bool:
        """Whether its process exists, running or frozen."""
        return self.process is not None and self.process.exitcode is None

    @property
    def is_ready(self) -> bool:
        """Whether its process runs jobs."""
        return self.running and "ready" in self.log.splitlines()

    @property
    def log(self) -> str:
        """The stderr of the current or last process."""
        path = self._log
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def _log(self) -> Path:
        return self.cluster.folder / f"{self.name}.log"

    async def start(self, wait: bool = True) -> None:
        """Start a new process, and with `wait` wait until it runs jobs."""
        assert not self.running
        self.life += 1
        cluster = self.cluster
        config = {
            "url": cluster.url.render_as_string(hide_password=False),
            **cluster.config,
            **self.config,
            "options": {"node": self.name, **cluster.options, **self.options},
        }
        self.process = _processes.Process(
            target=run_forked, args=(config, cluster.environment, str(self._log)), name=self.name
        )
        self.process.start()
        assert self.process.pid is not None
        _pids.add(self.process.pid)
        if wait:
            await self.ready()

    async def ready(self) -> None:
        """Wait until it runs jobs. Fails if its process ends."""

        def is_ready() -> bool:
            assert self.running, f"{self.name} did not start: {self.log}"
            return self.is_ready

        await eventually(is_ready, START)

    async def kill(self) -> None:
        """Send SIGKILL, and wait for the end of the process."""
        since, name = time.time(), self.name
        self.send(signal.SIGKILL)
        await self.gone()
        self.cluster.faults.append(Fault(name, "kill", since, time.time()))

    async def freeze(self, seconds: float) -> None:
        """Send SIGSTOP, and SIGCONT after this many seconds."""
        since, name = time.time(), self.name
        self.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.send(signal.SIGCONT)
            self.cluster.faults.append(Fault(name, "freeze", since, time.time()))

    async def stop(self, within: float = 25.0) -> None:
        """Send SIGTERM. Fails unless the process ends with exit code 0 within this many seconds."""
        since, name = time.time(), self.name
        self.send(signal.SIGTERM)
        code = await self.gone(within)
        self.cluster.faults.append(Fault(name, "stop", since, time.time()))
        assert code == 0, f"{name} stopped with {code}: {self.log}"

    async def restart(self) -> None:
        """Kill the process if it exists, and start the next one without waiting until that runs jobs."""
        if self.running:
            await self.kill()
        await self.start(wait=False)

    def send(self, number: signal.Signals) -> None:
        """Send a signal. Does nothing if the process has ended."""
        if self.process is not None and self.process.pid is not None and self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    async def gone(self, timeout: float = 10.0) -> int:
        """Wait until the process has ended, and return its exit code, which is negative for a signal."""
        process = self.process
        assert process is not None
        try:
            await eventually(lambda: process.exitcode is not None, timeout)
        except AssertionError:
            raise AssertionError(f"{self.name} still runs after {timeout} s: {self.log}") from None
        _pids.discard(process.pid or 0)
        return process.exitcode or 0


class Cluster:
    """Nodes on one database: `async with Cluster(url, folder, size=3, lease=2.0) as cluster`.

    Other options are those of `Oban`. `ledger` is the URL with which workers write the ledger and the cluster
    reads the database, without a proxy (default: `url`). `config` has other keys of `tests.faults.node`. All
    processes are killed at the end, and if the block fails their stderr is shown.
    """

    def __init__(
        self,
        url: URL,
        folder: Path,
        *,
        size: int = 3,
        limit: int = 10,
        lease: float = 2.0,
        ledger: URL | None = None,
        config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.url = url
        self.folder = folder
        self.lease = lease
        self.ledger = ledger or url
        self.config = dict(config or {})
        self.options = {"queues": {"default": limit}, "lease": lease, **options}
        self.environment = {LEDGER_URL: self.ledger.render_as_string(hide_password=False)}
        self.nodes = [Node(self, number + 1) for number in range(size)]
        #: The faults in the nodes. Tests add faults of the database and of the network.
        self.faults: list[Fault] = []
        self._supervisor: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        recording.install(self.ledger)
        try:
            await asyncio.gather(*(node.start() for node in self.nodes))
        except BaseException:
            await self.kill_all()
            raise
        return self

    async def __aexit__(self, failed: type[BaseException] | None, *_: object) -> None:
        await self._leave()
        if failed:
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                for node in self.nodes:
                    node.send(number)
                await asyncio.sleep(0.2)
        await self.kill_all()
        if failed:
            for path in sorted(self.folder.glob("n*.log")):
                lines = path.read_text(errors="replace").splitlines()
                print(f"---- {path.name}", *lines[-200:], sep="\n")

    async def kill_all(self) -> None:
        """Kill all processes without recording faults."""
        for node in self.nodes:
            if node.running:
                node.send(signal.SIGKILL)
                await node.gone()

    async def stop(self) -> None:
        """Stop all nodes as in production. Fails unless each ends with exit code 0."""
        await self._leave()
        await asyncio.gather(*(node.stop() for node in self.nodes if node.running))

    async def any_ready(self, rng: random.Random) -> Node:
        """Wait until at least one node runs jobs, and return a random one of those."""
        nodes = await eventually(lambda: [node for node in self.nodes if node.is_ready], START)
        chosen: Node = rng.choice(nodes)
        return chosen

    async def _leave(self) -> None:
        """Stop supervising."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
            self._supervisor = None

    def supervise(self) -> None:
        """From now on, start a new process for each node whose process has ended."""

        async def forever() -> None:
            while True:
                for node in self.nodes:
                    if not node.running:
                        await node.start(wait=False)
                await asyncio.sleep(0.02)

        self._supervisor = asyncio.create_task(forever())

    # -- the database ----------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """The number of jobs in each state."""
        with recording.connected(self.ledger) as connection:
            rows = connection.execute(text("SELECT state, count(*) FROM oban_jobs GROUP BY state"))
            return {row[0]: row[1] for row in rows}

    async def settled(self, timeout: float, jobs: int | None = None) -> float:
        """Wait until all jobs have ended, and there are this many, while their states change.

        Returns the seconds that it took.
        """
        since = time.monotonic()
        counts: dict[str, int] = {}

        async def ended() -> bool:
            nonlocal counts
            counts = await asyncio.to_thread(self.counts)
            return counts.keys() <= FINAL and jobs in (None, sum(counts.values()))

        await eventually(ended, timeout, progress=lambda: counts)
        return time.monotonic() - since

    def history(self) -> History:
        """Everything that has happened so far."""
        return recording.read(self.ledger, [*self.faults, *self._pauses()])

    def _pauses(self) -> Iterator[Fault]:
        """The pauses of nodes on a busy machine, without those of frozen nodes, which are known faults."""
        frozen = [fault for fault in self.faults if fault.kind == "freeze"]
        for path in self.folder.glob("n*.log"):
            for line in path.read_text(errors="replace").splitlines():
                first, *times = line.split() or [""]
                if first != PAUSED:
                    continue
                since, until = map(float, times)
                if not any(
                    fault.node == path.stem and fault.since < until and since < fault.until
                    for fault in frozen
                ):
                    # On SQLite, a node that is paused can hold the lock that all others wait for.
                    node = path.stem if self.url.get_backend_name() == "postgresql" else None
                    yield Fault(node, "freeze", since, until)

    def check(self, expect: Iterable[int] = (), **options: Any) -> History:
        """Fail if the history breaks a rule, and return it. The options are those of `history.check`."""
        history = self.history()
        found = check(history, lease=self.lease, expect=expect, **options)
        assert not found, report(found)
        return history


async def feed(client: Oban, jobs: Iterable[Job], per_second: float) -> list[int]:
    """Insert jobs at a steady rate in about 20 batches per second, and return their ids."""
    stream, ids = iter(jobs), list[int]()
    since = time.monotonic()
    while batch := list(itertools.islice(stream, max(1, round(per_second / 20)))):
        ids += [job.id for job in await client.enqueue_many(batch)]
        await asyncio.sleep(max(0.0, since + len(ids) / per_second - time.monotonic()))
    return ids


def report(found: list[Violation]) -> str:
    """The violations as lines, up to five for each rule."""
    shown = [f"{len(found)} violations"]
    for rule in sorted({violation.rule for violation in found}):
        of_rule = [violation for violation in found if violation.rule == rule]
        shown += [f"{rule} ({len(of_rule)}):"]
        shown += [f"  job {violation.job} {violation.text}" for violation in of_rule[:5]]
    return "\n".join(shown)

"""Tests of the tests: plants one bug at a time into a copy of the library and checks that they find it.

`make mutants`, or `python -m tests.mutants [NAME…]` for some of them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PARTS = ("oban", "migrations", "tests", "examples", "alembic.ini", "pyproject.toml", "Makefile")
#: Seconds that the tests have for finding one bug.
LIMIT = 300


class Mutant(NamedTuple):
    """A bug: `good` becomes `bad` in `file`. At least one of `tests` has to fail then."""

    name: str
    file: str
    good: str
    bad: str
    tests: tuple[str, ...]

    def plant(self, tree: Path) -> None:
        """Change the file. Raises `ValueError` unless the good code occurs in it exactly once."""
        path = tree / self.file
        text = path.read_text()
        if text.count(self.good) != 1:
            raise ValueError(f"{self.name}: {text.count(self.good)} places in {self.file} to plant it")
        path.write_text(text.replace(self.good, self.bad))


MUTANTS = (
    Mutant(
        "progress waits for a row that somebody has locked",
        "oban/repository/progress.py",
        "ids.with_for_update(skip_locked=True)",
        "ids.with_for_update()",
        ("tests/runner/test_progress.py",),
    ),
    Mutant(
        "progress is stored beside a transaction that does not see it",
        "oban/runner/execution/job_session.py",
        "            run.is_isolated = True\n",
        "            run.is_isolated = False\n",
        ("tests/runner/test_progress.py",),
    ),
    Mutant(
        "the lines of a child process arrive after its outcome",
        "oban/runner/processes/child.py",
        "                self._reporter.send()\n",
        "",
        ("tests/runner/test_job_log.py",),
    ),
    Mutant(
        "a session does not wait for another one that has claimed the key",
        "oban/insert_guard.py",
        "    guard.claim(executor, dialect, (job.key for job in jobs))\n",
        "",
        ("tests/suite/test_unique_sessions.py",),
    ),
    Mutant(
        "two jobs of a flush are not compared",
        "oban/insert_guard.py",
        "            earlier.setdefault(job.key, []).append(job)\n",
        "",
        ("tests/suite/test_unique_sessions.py",),
    ),
    Mutant(
        "a job is replaced although it has got another key",
        "oban/repository/replace.py",
        '            _jobs.c.unique_key.is_not_distinct_from(bindparam("key", type_=KeyText)),\n',
        "",
        ("tests/suite/test_unique_races.py",),
    ),
    Mutant(
        "a thawed node starts what it has claimed",
        "oban/runner/execution/producer.py",
        "        if clock.boottime() >= run.sure_until and not await self._confirm(run):\n",
        "        if clock.boottime() < 0 and not await self._confirm(run):\n",
        ("tests/runner/test_thawed.py",),
    ),
    Mutant(
        "a refused value fails its job",
        "oban/runner/execution/acknowledger.py",
        "    if has_values(ack):\n        yield bare\n",
        "    if has_values(ack) and not may_fail:\n        yield bare\n",
        ("tests/runner/test_isolating.py",),
    ),
    Mutant(
        "a call ends the transaction whose connection it shares",
        "oban/database/shared.py",
        "(each for each in self._open() if dialect.in_transaction(each))",
        "(each for each in self._open() if not dialect.in_transaction(each))",
        ("tests/suite/test_shared_connection.py",),
    ),
    Mutant(
        "a job that has only read fails because others have written",
        "oban/runner/execution/job_session.py",
        "        if has_only_read:\n",
        "        if has_only_read and conflict is None:\n",
        ("tests/drivers/test_sqlite_modes.py",),
    ),
    Mutant(
        "jobs close their connections",
        "oban/database/engines.py",
        '{"pool_size": connections, "max_overflow": 0}',
        '{"pool_size": 1, "max_overflow": connections - 1}',
        ("tests/runner/test_job_session_pool.py",),
    ),
    Mutant(
        "tasks that wait for a pool are forgotten when Oban uses it for the first time",
        "oban/database/loops.py",
        "compat.renew_queue(pool, loop)",
        "compat.renew_queue(pool)",
        ("tests/runner/test_job_session_pool.py", "tests/suite/test_loops.py"),
    ),
    Mutant(
        "a connection of a job that outlives its node stays open",
        "oban/runner/execution/session_pool.py",
        'event.listen(self._pool, "checkin", _close_returned)',
        "pass",
        ("tests/runner/test_job_session_pool.py",),
    ),
    Mutant(
        "a job in a thread fails because its connection was lost while idle",
        "oban/runner/execution/job_session_threads.py",
        "own_loop=True, for_sessions=True)",
        "own_loop=True)",
        ("tests/runner/test_thread_sessions.py",),
    ),
    Mutant(
        "no fence",
        "oban/repository/runs.py",
        """        _job.attempt == attempt,
        func.coalesce(owner_of(dialect), sql_literal("")) == owner,
        dialect.unindexed_state(_job.state) == sql_literal("executing"),
""",
        "        _job.id == _job.id,\n",
        ("tests/faults/test_freeze.py",),
    ),
    Mutant(
        "no SKIP LOCKED",
        "oban/repository/fetch.py",
        """        .order_by(_job.priority, _job.scheduled_at, _job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
""",
        """        .order_by(_job.priority, _job.scheduled_at, _job.id)
        .limit(limit)
""",
        ("tests/faults/test_double_claim.py",),
    ),
    Mutant(
        "heartbeats are judged by a clock that a test has moved",
        "oban/repository/cluster.py",
        "now: datetime = tx.execute(select(tx.dialect.real_clock.now())).scalar_one()",
        "now: datetime = tx.execute(select(tx.dialect.now())).scalar_one()",
        ("tests/runner/test_moved_clock.py",),
    ),
    Mutant(
        "a compiled statement is run again with the first time of a moved clock",
        "oban/database/fast/compiled.py",
        "if any(parameter.callable is not None for parameter in compiled.binds.values()):",
        "if any(parameter.callable is None for parameter in ()):",
        ("tests/fast_path/test_compiled_statements.py",),
    ),
    Mutant(
        "heartbeat off",
        "oban/repository/cluster.py",
        "insert.on_conflict_do_update(index_elements=[_producer.uuid], set_=refreshed)",
        "insert.on_conflict_do_nothing(index_elements=[_producer.uuid])",
        ("tests/faults/test_blocked_loop.py",),
    ),
    Mutant(
        "a poll starts no job",
        "oban/runner/services/stager.py",
        "            self._queues.wake(found.queues)\n",
        "",
        ("tests/runner/test_idle.py",),
    ),
    Mutant(
        "changed settings are not noticed",
        "oban/runner/services/controller.py",
        "        if settings != self._polled or any(",
        "        if any(",
        ("tests/runner/test_idle.py",),
    ),
    Mutant(
        "acknowledgements not retried",
        "oban/runner/execution/producer.py",
        "                self.acknowledger.put_back(acks)\n",
        "",
        ("tests/faults/test_database_restart.py", "tests/faults/test_ambiguous_commit.py"),
    ),
    Mutant(
        "rescue by age",
        "oban/repository/rescue.py",
        '                _one_of(dialect, owner, "stale"),\n',
        "                exists(producer_row),\n",
        ("tests/faults/test_blocked_loop.py",),
    ),
    Mutant(
        "a lost run stores what it wrote",
        "oban/runner/execution/job_session.py",
        """        if not self.database.join_sync(session, True, acknowledge.acknowledge, [ack]):
            return False
        session.commit()
""",
        """        self.database.join_sync(session, True, acknowledge.acknowledge, [ack])
        session.commit()
""",
        ("tests/runner/test_job_sessions.py",),
    ),
    Mutant(
        "the outcome in another transaction",
        "oban/runner/execution/job_session.py",
        """                if await self._store_and_commit(session, ack):
                    return True
""",
        """                await session.commit()
                await self.database.write(acknowledge.acknowledge, [ack])
                return True
""",
        ("tests/faults/test_own_transaction.py",),
    ),
    Mutant(
        "each free slot is filled on its own",
        "oban/runner/execution/producer.py",
        "        return self._has_backlog and 2 * self._free() < self.limit\n",
        "        return False\n",
        ("tests/runner/test_fetch_delay.py",),
    ),
    Mutant(
        "a free slot waits until half of them are free",
        "oban/runner/execution/fetch_delay.py",
        "        self._timer = None\n        self._wake()\n",
        "        self._timer = None\n",
        ("tests/runner/test_fetch_delay.py",),
    ),
    Mutant(
        "a base class decides instead of the most specific one",
        "oban/error_rules.py",
        "        for cls in _mro(type(error)):\n",
        "        for cls in reversed(_mro(type(error))):\n",
        ("tests/unit/test_outcomes.py",),
    ),
    Mutant(
        "an assigned state stays a string",
        "oban/models/job.py",
        "        return parse_state(value)\n",
        "        return value\n",
        ("tests/unit/test_states.py",),
    ),
    Mutant(
        "an old count in the meta of a snooze wins",
        "oban/runner/execution/executor.py",
        '{**meta, "snoozed": count}',
        '{"snoozed": count, **meta}',
        ("tests/runner/test_outcomes.py",),
    ),
    Mutant(
        "an insert overwrites max_attempts that a job sets",
        "oban/repository/insert_batch.py",
        "if max_attempts is not None and not job._sets_max_attempts:\n        record[",
        "if max_attempts is not None:\n        record[",
        ("tests/suite/test_new_jobs.py",),
    ),
    Mutant(
        "a key is claimed whatever the snapshot shows of it",
        "oban/repository/unique_statement.py",
        "free, KEYS.c.turn == _WithSchema(turn)",
        "free, KEYS.c.turn.is_not(None)",
        ("tests/suite/test_unique_races.py",),
    ),
    Mutant(
        "a batch that has lost a key inserts its other jobs",
        "oban/repository/unique_statement.py",
        "free_count == claimed_count)",
        "free_count >= claimed_count)",
        ("tests/suite/test_unique_races.py",),
    ),
    Mutant(
        "a middleware loses an outcome",
        "oban/middleware.py",
        "            if isinstance(self.result, OUTCOMES):\n",
        "            if False:\n",
        ("tests/unit/test_middleware.py",),
    ),
    Mutant(
        "a timeout abandons the thread behind middleware",
        "oban/runner/execution/thread_run.py",
        "        if self._in_middleware and self._run.task is not None:\n",
        "        if self._outer and self._run.task is not None:\n",
        ("tests/runner/test_middleware.py",),
    ),
    Mutant(
        "the lifespan ends before the jobs",
        "oban/runner/runner.py",
        """            self._let_jobs_finish,
            self._put_jobs_back,
            self._store_outcomes,
            self._exit_lifespan,
""",
        """            self._exit_lifespan,
            self._let_jobs_finish,
            self._put_jobs_back,
            self._store_outcomes,
""",
        ("tests/runner/test_lifespan.py",),
    ),
    Mutant(
        "an ending is logged twice",
        "oban/runner/execution/attempt_events.py",
        "    run.is_logged = True\n",
        "",
        ("tests/runner/test_attempt_log.py",),
    ),
    Mutant(
        "no attempt limit",
        "oban/repository/fetch.py",
        "            _job.attempt < _job.max_attempts,\n",
        "",
        ("tests/runner/test_fetching.py",),
    ),
    Mutant(
        "a page skips a job",
        "oban/repository/pages.py",
        "statement = statement.where(by_id > max(",
        "statement = statement.where(by_id > 1 + max(",
        ("tests/suite/test_pages.py",),
    ),
    Mutant(
        "a float has another key once jsonb has stored it",
        "oban/unique.py",
        "int(value) if abs(value) < 2**53 else int(Decimal(repr(value)))",
        "int(value)",
        ("tests/suite/test_unique_key_of_rows.py",),
    ),
    Mutant(
        "a job without a rule of its own ignores that of its worker",
        "oban/unique.py",
        "None if worker is None else worker._unique",
        "None",
        ("tests/unit/test_unique_options.py",),
    ),
    Mutant(
        "a job that is compared by one key keeps out a job that is compared by all",
        "oban/unique.py",
        '                compared["keys"] = sorted(self.keys)\n',
        "                pass\n",
        ("tests/unit/test_unique.py",),
    ),
    Mutant(
        "two jobs of one call with the same key are retried",
        "oban/repository/unique_changes.py",
        "allowed.in_the_way_of(job, now) if stored is None else stored",
        "stored",
        ("tests/suite/test_unique_retry.py",),
    ),
    Mutant(
        "an update does not claim the new key",
        "oban/repository/unique_changes.py",
        "{job.key for job in changed_jobs} - set(claimed)",
        "set()",
        ("tests/suite/test_unique_retry.py",),
    ),
    Mutant(
        "a key that a running transaction has claimed is deleted",
        "oban/repository/unique_keys.py",
        "_key.turn >= OLDEST_TRANSACTION",
        "_key.turn >= OLDEST_TRANSACTION + 1_000_000",
        ("tests/runner/test_unique_keys.py",),
    ),
    Mutant(
        "a discarded job is waited for",
        "oban/types.py",
        "(JobState.COMPLETED, JobState.CANCELLED, JobState.DISCARDED)",
        "(JobState.COMPLETED, JobState.CANCELLED)",
        ("tests/suite/test_waiting.py",),
    ),
    Mutant(
        "a queue with due jobs is empty",
        "oban/repository/waiting.py",
        "_job.scheduled_at <= dialect.now())",
        "_job.scheduled_at > dialect.now())",
        ("tests/suite/test_waiting.py",),
    ),
    Mutant(
        "every job is cancelled without a confirmation",
        "oban/repository/selection.py",
        "    elif not everything and _selects_all(selection.statement):\n",
        '    elif not everything and action == "delete" and _selects_all(selection.statement):\n',
        ("tests/suite/test_statements.py",),
    ),
    Mutant(
        "a time that the clock shows twice is due twice",
        "oban/cron.py",
        "            earliest = max(earliest, shown)\n",
        "",
        ("tests/unit/test_cron_ticks.py",),
    ),
    Mutant(
        "a clock that was set back makes a tick due again",
        "oban/catch_up.py",
        "cron.newest(max(last_tick, begin), now, count)",
        "cron.newest(begin, now, count)",
        ("tests/unit/test_catch_up.py",),
    ),
    Mutant(
        "a leader fires an entry that was paused meanwhile",
        "oban/repository/ticks.py",
        "if entry.name not in names or entry.paused or entry.is_gone(lease):",
        "if entry.name not in names or entry.is_gone(lease):",
        ("tests/suite/test_periodic_firing.py",),
    ),
    Mutant(
        "older code replaces the entries of newer code",
        "oban/repository/periodic.py",
        "or_(_entry.declared_at <= new.declared_at, is_abandoned)",
        "or_(_entry.declared_at != new.declared_at, is_abandoned)",
        ("tests/suite/test_periodic_declaring.py",),
    ),
    Mutant(
        "a resumed entry makes up for the time in which it was paused",
        "oban/repository/periodic_changes.py",
        "    floor = case((_entry.paused, _from_now(tx)), else_=_entry.last_tick)\n",
        "    floor = _entry.last_tick\n",
        ("tests/suite/test_periodic_changes.py",),
    ),
    Mutant(
        "a call takes over an entry that the code declares",
        "oban/repository/periodic_changes.py",
        "or_(_entry.source != CODE, is_gone)",
        "or_(_entry.source == CODE, is_gone)",
        ("tests/suite/test_periodic_changes.py",),
    ),
    Mutant(
        "a client of a test that is over is found",
        "oban/instances.py",
        " and not client._database.is_over",
        "",
        ("tests/testing/test_clients.py",),
    ),
    Mutant(
        "a duplicate runs in inline mode",
        "oban/testing/modes.py",
        "    return [job for job in jobs if not job.conflict]\n",
        "    return jobs\n",
        ("tests/testing/test_peers_inline.py",),
    ),
    Mutant(
        "a drain until a time runs jobs that are due after it",
        "oban/repository/drain.py",
        '    if scheduled != "all":\n',
        '    if scheduled == "due":\n',
        ("tests/testing/test_peers_drain.py",),
    ),
    Mutant(
        "a periodic entry of a test begins when it is declared",
        "oban/testing/periodic_jobs.py",
        "_BEGUN = 60.0\n",
        "_BEGUN = 0.0\n",
        ("tests/testing/test_periodic_jobs.py",),
    ),
    Mutant(
        "a savepoint of a test on SQLite is committed when it is released",
        "oban/testing/rollback.py",
        '        event.listen(connection, "begin", partial(_send_begin, dialect))\n',
        "        pass\n",
        ("tests/testing/test_rollback.py",),
    ),
    Mutant(
        "a commit that is refused leaves its transaction open",
        "oban/testing/rollback.py",
        "    connection.connection.rollback()\n",
        "",
        ("tests/testing/test_rollback.py",),
    ),
    Mutant(
        "another event loop uses the connection of a test",
        "oban/testing/rollback.py",
        """        event.listen(connection.sync_connection, "before_cursor_execute", _refuse_other_loop)\n""",
        "",
        ("tests/testing/test_rollback.py",),
    ),
    Mutant(
        "a fixture is on another event loop than its test",
        "oban/testing/async_fixtures.py",
        """_name(name, scope or request.config.getini("asyncio_default_test_loop_scope"))""",
        """_name(name, "function")""",
        ("tests/testing/test_plugin.py",),
    ),
    Mutant(
        "enqueue stores plain args of a worker that encrypts them",
        "oban/repository/insert.py",
        "            encryption.seal_values(job.__dict__)\n",
        "            pass\n",
        ("tests/telemetry/test_encryption.py",),
    ),
    Mutant(
        "a flush stores plain args of a worker that encrypts them",
        "oban/flush.py",
        "        encryption.seal_values(values)\n",
        "        pass\n",
        ("tests/telemetry/test_encryption.py",),
    ),
    Mutant(
        "a flush writes the plain args of a job whose worker has changed",
        "oban/flush.py",
        "        _seal_changed(state)\n",
        "        pass\n",
        ("tests/telemetry/test_encryption.py",),
    ),
    Mutant(
        "an update stores plain args of a worker that encrypts them",
        "oban/repository/update.py",
        "    encryption.seal_values(changed)\n",
        "",
        ("tests/telemetry/test_encryption.py",),
    ),
    Mutant(
        "a pickled job has plain args",
        "oban/models/job.py",
        "            encryption.seal_values(state)\n",
        "            pass\n",
        ("tests/telemetry/test_encryption.py",),
    ),
    Mutant(
        "the unique key of encrypted args stays that of an old key",
        "oban/repository/unique_changes.py",
        "key is not None and job.unique_key in rule.older_keys(before)",
        "False",
        ("tests/telemetry/test_encryption.py",),
    ),
    Mutant(
        "a node is not ready while a lost connection is replaced",
        "oban/runner/node_check.py",
        "    if heartbeats.failing_for() > DATABASE_GRACE:\n",
        "    if heartbeats.failing_for() > 0:\n",
        ("tests/telemetry/test_node_check.py",),
    ),
    Mutant(
        "a node whose event loop is blocked is live",
        "oban/runner/node_check.py",
        "    return NodeCheck(not is_blocked, not problems, tuple(problems))\n",
        "    return NodeCheck(True, not problems, tuple(problems))\n",
        ("tests/telemetry/test_node_check.py", "tests/telemetry/test_systemd.py"),
    ),
    Mutant(
        "a listener that has never heard a probe is taken to hear",
        "oban/notifier/listen.py",
        "        self._silent_since = -math.inf\n",
        "",
        ("tests/telemetry/test_node_check.py",),
    ),
    Mutant(
        "idle connections keep health checks out",
        "oban/cli/status_server.py",
        "            _cut(oldest)\n",
        "            pass\n",
        ("tests/telemetry/test_status_server.py",),
    ),
    Mutant(
        "the watchdog is pinged although the node is not live",
        "oban/cli/systemd.py",
        "self.interval is not None and check.is_live and now >= self._next_ping",
        "self.interval is not None and now >= self._next_ping",
        ("tests/telemetry/test_systemd.py",),
    ),
    Mutant(
        "every queue gets metrics of its own",
        "oban/label_values.py",
        "            if name not in self._values and len(self._values) >= self._maximum:\n",
        "            if False:\n",
        ("tests/telemetry/test_prometheus.py",),
    ),
    Mutant(
        "every pair of a queue and a worker gets metrics of its own",
        "oban/prometheus/labels.py",
        "            if pair not in self._pairs and len(self._pairs) >= self._maximum:\n",
        "            if False:\n",
        ("tests/telemetry/test_prometheus.py",),
    ),
    Mutant(
        "several scrapes read the database at the same time",
        "oban/prometheus/sampler.py",
        "            if self._reading is not None:\n",
        "            if False:\n",
        ("tests/telemetry/test_prometheus_outages.py",),
    ),
    Mutant(
        "each scrape reads the database",
        "oban/prometheus/sampler.py",
        "            if self._began_at is not None and now - self._began_at < pause:\n",
        "            if False:\n",
        ("tests/telemetry/test_prometheus_outages.py",),
    ),
    Mutant(
        "jobs of queues beyond the counted ones are left out of the metrics",
        "oban/repository/sample.py",
        "    if len(rows) < MAX_PAIRS:\n",
        "    if True:\n",
        ("tests/telemetry/test_prometheus.py",),
    ),
    Mutant(
        "the metrics of a database in memory are read on another loop",
        "oban/prometheus/sampler.py",
        "        loop = database.loop or self._loop\n",
        "        loop = None\n",
        ("tests/telemetry/test_prometheus_outages.py",),
    ),
)


def found(mutant: Mutant) -> bool:
    """Whether the tests fail when the library contains the bug."""
    with tempfile.TemporaryDirectory(prefix="oban-mutant-") as folder:
        tree = Path(folder)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / part)
        mutant.plant(tree)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests]
        environment = {**os.environ, "PYTHONPATH": folder}
        try:
            ended = subprocess.run(
                command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LIMIT
            )
        except subprocess.TimeoutExpired:
            print(f"  neither passed nor failed within {LIMIT} s")
            return False
        print("  " + "\n  ".join(line for line in ended.stdout.splitlines() if line.startswith("FAILED")))
        # pytest exits with 1 if tests failed; any other code but 0 means that they did not run.
        if ended.returncode not in (0, 1):
            print(ended.stdout[-3000:], ended.stderr[-3000:])
        return ended.returncode == 1


def main(names: list[str]) -> int:
    """Plant the bugs with these names, or all of them. Returns how many were not found."""
    missed = []
    for mutant in MUTANTS:
        if names and mutant.name not in names:
            continue
        began = time.monotonic()
        print(f"{mutant.name} …", flush=True)
        caught = found(mutant)
        print(f"  {'found' if caught else 'NOT FOUND'} in {time.monotonic() - began:.0f} s", flush=True)
        if not caught:
            missed.append(mutant.name)
    print(f"not found: {', '.join(missed)}" if missed else "every planted bug was found")
    return len(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

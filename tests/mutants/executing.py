"""Bugs in what runs jobs: the runner, its leases, and the outcomes of attempts."""

from tests.mutants.planting import Mutant

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
        "a job that has only read fails because others have written",
        "oban/runner/execution/job_session.py",
        "        if has_only_read:\n",
        "        if has_only_read and conflict is None:\n",
        ("tests/drivers/test_sqlite_modes.py",),
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
        "an old count in the meta of a snooze wins",
        "oban/runner/execution/executor.py",
        '{**meta, "snoozed": count}',
        '{"snoozed": count, **meta}',
        ("tests/runner/test_outcomes.py",),
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
        "a listener that has never heard a probe is taken to hear",
        "oban/notifier/listen.py",
        "        self._silent_since = -math.inf\n",
        "",
        ("tests/telemetry/test_node_check.py",),
    ),
)

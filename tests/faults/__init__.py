"""Tests with real processes and real faults, and a checker of the history of all jobs.

A test starts nodes in processes, causes faults in them or in their database while it inserts jobs, waits
until all jobs have ended, and calls `check` on the recorded history:

    async def test_…(url: URL, tmp_path: Path, rng: random.Random) -> None:
        async with Cluster(url, tmp_path, size=3, lease=2.0) as cluster, Oban(url) as client:
            jobs = await client.enqueue_many(Pause.new({"seconds": 0.01}) for _ in range(1000))
            await rng.choice(cluster.nodes).kill()
            await cluster.settled(20)
            history = cluster.check(expect=[job.id for job in jobs])

- `cluster.Cluster(url, folder, *, size=3, limit=10, lease=2.0, ledger=None, config=None, **options_of_oban)`
  installs the recording and starts `cluster.nodes`. A `Node` has `kill()`, `freeze(seconds)`, `stop()`,
  `restart()`, `start()`, `ready()`, `send(signal)`, `gone()`, `name`, `log`, `process`; set `node.options`
  and `node.config` to configure one node differently. `cluster.supervise()` restarts nodes that die,
  `cluster.any_ready(rng)` returns a node that runs jobs, `cluster.settled(seconds)` waits for the jobs.
  `cluster.faults` lists the faults; append those of the database and of the network, with the node None for
  all nodes. The history also has each time that a busy machine did not run a node, as a freeze.
  `cluster.history()` and `cluster.check(…)` end the test. Every process is killed at the end.
- `workers`: `Pause`, `ThreadPause`, `Block`, `Die`. Other workers write to the ledger with `async with
  noted(job):`. `config={"modules": ["tests.faults.workers", "tests.faults.test_mine"]}` makes nodes import
  them.
- `history.check(history, lease=…) -> list[Violation]` has the rules and does no I/O.
  `recording.install(url)` and `recording.read(url, faults)` are for tests without a cluster.
- Fixture `url`: a fresh database, on SQLite and on PostgreSQL; `postgresql_url` and `sqlite_url`: on one of
  them. Fixture `server_url`: a fresh database, over TCP, on a PostgreSQL that the test can crash, stop and
  start (fixture `server`).
- `proxy.Proxy(server.url)`: cuts connections, refuses them, holds data back, and cuts at commits
  (`cut_commits`). `Cluster(proxy.through(server_url), …, ledger=server_url)`.
- Fixture `rng`: a random generator. Its seed is printed, and taken from `OBAN_SEED` if that is set.
- `OBAN_FAULTS=full` (`tests.support.settings.FULL`) runs longer, with larger numbers.
"""

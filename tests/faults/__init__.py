"""Real processes, real faults, and a checker of what happened.

A test starts runners in processes of their own, does something to them or to their database while
it inserts jobs, waits until all jobs have ended, and lets `check` look through the whole history:

    async def test_…(url: URL, tmp_path: Path, rng: random.Random) -> None:
        async with Cluster(url, tmp_path, size=3, lease=2.0) as cluster, Oban(url) as client:
            jobs = await client.enqueue_many(Pause.new({"seconds": 0.01}) for _ in range(1000))
            await rng.choice(cluster.nodes).kill()
            await cluster.settled(20)
            history = cluster.check(expect=[job.id for job in jobs])

- `cluster.Cluster(url, folder, *, size=3, limit=10, lease=2.0, ledger=None, told=None, **options_of_oban)`
  installs the recording and starts `cluster.nodes`. A `Node` has `kill()`, `freeze(seconds)`, `stop()`,
  `restart()`, `start()`, `ready()`, `send(signal)`, `gone()`, `name`, `log`, `process`; set `node.options`
  and `node.told` for what differs in one node. `cluster.supervise()` restarts what dies,
  `cluster.any_ready(rng)` is a node that runs,
  `cluster.settled(seconds)` waits for the jobs, `cluster.faults` is the list of what was done (append
  faults of the database or the network yourself; node None: all nodes), `cluster.history()` and
  `cluster.check(…)` end the test. Processes are killed however the test ends.
- `workers`: `Pause`, `ThreadPause`, `Block`, `Die`; own ones write the ledger with `async with
  noted(job):`, and are named to the nodes by `told={"modules": ["tests.faults.workers",
  "tests.faults.test_mine"]}`.
- `history.check(history, lease=…) -> list[Violation]`: pure; the rules are said there.
  `recording.install(url)` and `recording.read(url, faults)` serve tests that need no cluster.
- fixture `url`: a fresh database, on SQLite and on PostgreSQL; `postgresql_url` and `sqlite_url`: on one of
  them. Fixture `server_url`: a fresh database on a PostgreSQL that the test may `server.crash_restart()`,
  `stop()` and `start()` (fixture `server`), reached over TCP.
- `proxy.Proxy(server.url)`: cut connections, refuse them, hold everything back, cut at commits
  (`cut_commits`). `Cluster(proxy.through(server_url), …, ledger=server_url)`.
- fixture `rng`: a random generator. Its seed is printed, and taken from `OBAN_SEED` if that is set.
  `OBAN_FAULTS=full` (`conftest.FULL`) stands for the long run with the numbers of the fault matrix.
"""

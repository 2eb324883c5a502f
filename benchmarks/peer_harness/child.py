"""One role of one run in its own process: python -m bench.child ROLE --adapter ..."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import os
import resource
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError, version

from . import core


def load(name: str, dsn: str) -> core.Adapter:
    return importlib.import_module(f"bench.adapters.{name}").Adapter(dsn)


def run(coroutine, loop: str):
    if loop == "uvloop":
        import uvloop

        return uvloop.run(coroutine)
    return asyncio.run(coroutine)


def connect(dsn: str):
    import psycopg

    return psycopg.connect(dsn, autocommit=True)


def percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)

    def at(q: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 3)

    return {
        "n": len(ordered),
        "p50": at(0.50),
        "p95": at(0.95),
        "p99": at(0.99),
        "min": round(ordered[0], 3),
        "max": round(ordered[-1], 3),
    }


def settle(db, analyze: bool = True) -> None:
    """Leave vacuumed, analyzed tables and no dirty buffers behind."""
    db.execute("VACUUM (ANALYZE)" if analyze else "VACUUM")
    db.execute("CHECKPOINT")


def info(adapter: core.Adapter, args) -> dict:
    versions = {}
    for package in adapter.packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "versions": versions,
        "python": sys.version.split()[0],
        "variants": adapter.variants,
        "latency_variant": adapter.latency_variant,
        "backlog_variant": adapter.backlog_variant,
        "remaining_sql": adapter.remaining_sql,
        "bulk": adapter.bulk,
        "can_schedule": adapter.can_schedule,
        "backlog": type(adapter).backlog is not core.Adapter.backlog,
        "notes": adapter.notes,
    }


def setup(adapter: core.Adapter, args) -> dict:
    async def go():
        with connect(adapter.dsn) as db:
            await adapter.setup(db)

    run(go(), args.loop)
    return {}


def reset(adapter: core.Adapter, args) -> dict:
    with connect(adapter.dsn) as db:
        adapter.reset(db)
        settle(db)
    return {}


def fill(adapter: core.Adapter, args) -> dict:
    async def go():
        with connect(adapter.dsn) as db:
            if args.keep:
                adapter.clear_queue(db)
            else:
                adapter.reset(db)
            await adapter.fill(db, args.n)
            settle(db, not args.stale)

    run(go(), args.loop)
    return {}


def backlog(adapter: core.Adapter, args) -> dict:
    with connect(adapter.dsn) as db:
        adapter.reset(db)
        adapter.backlog(db, args.n, args.n)
        settle(db)
    return {}


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def enqueue_one(adapter: core.Adapter, args) -> dict:
    async def go():
        await adapter.open_client()
        for index in range(100):
            await adapter.enqueue(index)
        used, start = cpu(), time.perf_counter()
        for index in range(args.n):
            await adapter.enqueue(index)
        elapsed, used = time.perf_counter() - start, cpu() - used
        await adapter.close_client()
        return {"jobs_per_s": args.n / elapsed, "client_cpu_s": used}

    return run(go(), args.loop)


def enqueue_bulk(adapter: core.Adapter, args) -> dict:
    async def go():
        await adapter.open_client()
        await adapter.enqueue_many(list(range(100)))
        used, start = cpu(), time.perf_counter()
        for first in range(0, args.n, 1000):
            await adapter.enqueue_many(list(range(first, first + 1000)))
        elapsed, used = time.perf_counter() - start, cpu() - used
        await adapter.close_client()
        return {"jobs_per_s": args.n / elapsed, "client_cpu_s": used}

    return run(go(), args.loop)


async def warm(adapter: core.Adapter, probe: core.Probe) -> None:
    """Return when a worker elsewhere is up and has run a few jobs."""
    for index in range(core.SLOTS - 5, core.SLOTS):
        await adapter.enqueue(index)
        deadline = time.monotonic() + 30
        while not probe.stamp(index):
            if time.monotonic() > deadline:
                raise TimeoutError("the worker did not run a warm-up job")
            await asyncio.sleep(0.01)
    await asyncio.sleep(1.0)


async def await_stamps(probe: core.Probe, count: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        missing = sum(1 for index in range(count) if not probe.stamp(index))
        if not missing:
            return 0
        await asyncio.sleep(0.1)
    return missing


def latency(adapter: core.Adapter, args) -> dict:
    probe = core.Probe(args.probe)

    async def go():
        await adapter.open_client()
        await warm(adapter, probe)
        before, after = [], []
        due = time.monotonic()
        for index in range(args.n):
            due += args.gap
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            before.append(time.monotonic_ns())
            await adapter.enqueue(index)
            after.append(time.monotonic_ns())
        missing = await await_stamps(probe, args.n, 30)
        await adapter.close_client()
        stamps = [probe.stamp(index) for index in range(args.n)]
        return {
            "missing": missing,
            "from_after_ms": percentiles([(s - a) / 1e6 for s, a in zip(stamps, after, strict=True) if s]),
            "from_before_ms": percentiles([(s - b) / 1e6 for s, b in zip(stamps, before, strict=True) if s]),
            "insert_ms": percentiles([(a - b) / 1e6 for a, b in zip(after, before, strict=True)]),
        }

    return run(go(), args.loop)


def scheduled(adapter: core.Adapter, args) -> dict:
    probe = core.Probe(args.probe)

    async def go():
        await adapter.open_client()
        await warm(adapter, probe)
        due_at = []
        due = time.monotonic()
        for index in range(args.n):
            due += args.gap
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due_at.append(time.monotonic_ns() + int(args.delay * 1e9))
            await adapter.enqueue(index, delay=args.delay)
        missing = await await_stamps(probe, args.n, 30)
        await adapter.close_client()
        late = [(probe.stamp(index) - due_at[index]) / 1e6 for index in range(args.n) if probe.stamp(index)]
        return {
            "missing": missing,
            "early": sum(1 for value in late if value < 0),
            "late_ms": percentiles(late),
        }

    return run(go(), args.loop)


def worker(adapter: core.Adapter, args) -> None:
    core.set_probe(core.Probe(args.probe))

    async def go():
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def watch():
            sys.stdin.readline()  # "stop", or the harness went away
            loop.call_soon_threadsafe(stop.set)
            time.sleep(5)
            os._exit(0)

        threading.Thread(target=watch, daemon=True).start()
        await adapter.run_worker(stop, **json.loads(args.options))

    run(go(), args.loop)


def sanity(adapter: core.Adapter | None, args) -> dict:
    """Round trip and commit times of this machine, with asyncpg and psycopg."""
    import asyncpg
    import psycopg

    async def go():
        result = {}
        one = await asyncpg.connect(args.dsn)
        two = await psycopg.AsyncConnection.connect(args.dsn, autocommit=True)
        await one.execute("CREATE TABLE IF NOT EXISTS bench_sanity (n bigint)")

        async def measure(name, call, count):
            times = []
            for _ in range(count):
                start = time.perf_counter()
                await call()
                times.append((time.perf_counter() - start) * 1e3)
            result[name] = percentiles(times)

        await measure("asyncpg_select1_ms", lambda: one.fetchval("SELECT 1"), 2000)
        await measure("psycopg_select1_ms", lambda: two.execute("SELECT 1"), 2000)
        sql = "INSERT INTO bench_sanity VALUES (1)"
        await measure("asyncpg_commit_ms", lambda: one.execute(sql), 500)
        await one.execute("DROP TABLE bench_sanity")
        await one.close()
        await two.close()
        return result

    return run(go(), args.loop)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("--adapter")
    parser.add_argument("--dsn", default="")
    parser.add_argument("--probe")
    parser.add_argument("--loop", default="uvloop")
    parser.add_argument("--n", type=int, default=0)
    parser.add_argument("--gap", type=float, default=0.02)
    parser.add_argument("--delay", type=float, default=2.0)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--stale", action="store_true")
    parser.add_argument("--options", default="{}")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    adapter = load(args.adapter, args.dsn) if args.adapter else None
    result = globals()[args.role](adapter, args)
    if result is not None:
        print(json.dumps(result), flush=True)
    sys.stdout.flush()
    os._exit(0)  # libraries' leftover threads must not hold the process


if __name__ == "__main__":
    main()

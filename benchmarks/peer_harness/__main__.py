"""The harness: python -m bench --dsn postgresql://... (see README.md)."""

from __future__ import annotations

import argparse
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

from . import adapters as adapters_package
from . import core, report
from .cpu import Server, process_cpu

SCENARIOS = (
    "sanity",
    "enqueue_one",
    "enqueue_bulk",
    "drain",
    "latency",
    "scheduled",
    "drain_backlog",
)


def with_database(dsn: str, name: str) -> str:
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(path=f"/{name}"))


class Harness:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.server = Server(with_database(args.dsn, "postgres"))
        self.probe_path = tempfile.mktemp(prefix="bench-probe-", dir=args.tmp)
        self.probe = core.Probe(self.probe_path, create=True)
        self.pythons = dict(item.split("=", 1) for item in args.python)
        self.log = Path(args.out + ".stderr.log")
        self.info: dict[str, dict] = {}
        self.runs: list[dict] = []
        self.backlogs: set[str] = set()
        self.started = time.strftime("%Y-%m-%d %H:%M:%S")

    # -- child processes ------------------------------------------------------
    def command(self, role: str, name: str | None, dsn: str, **options) -> list[str]:
        python = self.pythons.get(name or "", sys.executable)
        line = [python, "-m", "bench.child", role, "--dsn", dsn]
        line += ["--loop", self.args.loop, "--probe", self.probe_path]
        if name:
            line += ["--adapter", name]
        for key, value in options.items():
            if value is True:
                line.append(f"--{key}")
            elif value is not False:
                line += [f"--{key}", str(value)]
        return line

    def call(self, role: str, name: str | None, dsn: str, **options) -> dict:
        command = self.command(role, name, dsn, **options)
        with self.log.open("a") as log:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, timeout=900)
        if done.returncode or not done.stdout.strip():
            raise RuntimeError(f"{role} of {name} failed; see {self.log}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def start_worker(self, name: str, dsn: str, options: dict) -> subprocess.Popen:
        command = self.command("worker", name, dsn, options=json.dumps(options))
        with self.log.open("a") as log:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, text=True)

    def stop_worker(self, child: subprocess.Popen) -> None:
        try:
            child.stdin.write("stop\n")
            child.stdin.close()
        except OSError:
            pass
        try:
            child.wait(8)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    # -- databases: one per adapter, one more with the backlog ----------------
    def database(self, name: str, suffix: str = "") -> str:
        database = f"bench_{name}{suffix}"
        dsn = with_database(self.args.dsn, database)
        if database not in self.__dict__.setdefault("_made", set()):
            admin = with_database(self.args.dsn, "postgres")
            with psycopg.connect(admin, autocommit=True) as db:
                db.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
                db.execute(f'CREATE DATABASE "{database}"')
            self.call("setup", name, dsn)
            self._made.add(database)
        return dsn

    def variants(self, name: str, scenario: str) -> dict[str, dict]:
        known = self.info[name]["variants"]
        if scenario == "drain":
            wanted = self.args.variants.split(",") if self.args.variants else known
        elif scenario == "drain_backlog":
            wanted = [self.info[name]["backlog_variant"]]
        else:
            wanted = [self.info[name]["latency_variant"]]
        return {key: known[key] for key in wanted if key in known}

    # -- scenarios ------------------------------------------------------------
    def sanity(self, _name, _round):
        dsn = with_database(self.args.dsn, "postgres")
        yield "", self.call("sanity", None, dsn)

    def enqueue_one(self, name, _round):
        dsn = self.database(name)
        self.call("reset", name, dsn)
        before = self.server.cpu()
        result = self.call("enqueue_one", name, dsn, n=self.args.one)
        result["server_cpu_s"] = self.difference(before)
        yield "", result

    def enqueue_bulk(self, name, _round):
        dsn = self.database(name)
        self.call("reset", name, dsn)
        before = self.server.cpu()
        result = self.call("enqueue_bulk", name, dsn, n=self.args.jobs)
        result["server_cpu_s"] = self.difference(before)
        yield "", result

    def difference(self, before: float | None) -> float | None:
        return None if before is None else round(self.server.cpu() - before, 2)

    def drain(self, name, _round):
        for variant, options in self.variants(name, "drain").items():
            dsn = self.database(name)
            self.call("fill", name, dsn, n=self.args.jobs, stale=self.args.stale)
            yield variant, self.measure_drain(name, dsn, options)

    def drain_backlog(self, name, _round):
        if not self.info[name]["backlog"]:
            return
        for variant, options in self.variants(name, "drain_backlog").items():
            dsn = self.database(name, "_backlog")
            if dsn not in self.backlogs:
                self.call("backlog", name, dsn, n=self.args.backlog)
                self.backlogs.add(dsn)
            self.call("fill", name, dsn, n=self.args.jobs, keep=True)
            yield variant, self.measure_drain(name, dsn, options)

    def measure_drain(self, name: str, dsn: str, options: dict) -> dict:
        """Time from the first job body to all jobs terminal in the database."""
        jobs, cap = self.args.jobs, self.args.cap
        remaining = self.info[name]["remaining_sql"]
        self.probe.clear()
        with psycopg.connect(dsn, autocommit=True) as db:
            db.execute("SELECT 1")
            child = self.start_worker(name, dsn, options)
            try:
                begun = time.monotonic()
                while not self.probe.count():
                    if child.poll() is not None or time.monotonic() > begun + 60:
                        raise RuntimeError(f"the worker of {name} ran nothing")
                    time.sleep(0.001)
                worker_cpu, server_cpu = process_cpu(child.pid), self.server.cpu()
                start = time.monotonic()
                capped = False
                while self.probe.count() < jobs:
                    if child.poll() is not None:
                        raise RuntimeError(f"the worker of {name} ended early")
                    if time.monotonic() > start + cap:
                        capped = True
                        break
                    time.sleep(0.005)
                bodies = time.monotonic() - start
                if capped:
                    left = db.execute(remaining).fetchone()[0]
                else:
                    while left := db.execute(remaining).fetchone()[0]:
                        if time.monotonic() > start + bodies + 30:
                            raise RuntimeError(f"{left} jobs of {name} not terminal")
                        time.sleep(0.005)
                elapsed = time.monotonic() - start
                used = process_cpu(child.pid) - worker_cpu
                served = self.difference(server_cpu)
            finally:
                self.stop_worker(child)
        done = jobs - left
        return {
            "jobs_per_s": done / elapsed,
            "jobs": done,
            "seconds": elapsed,
            "tail_s": elapsed - bodies,
            "capped": capped,
            "runs": self.probe.count(),
            "worker_cpu_s": round(used, 2),
            "server_cpu_s": served,
        }

    def latency(self, name, _round):
        yield from self.idle_worker(name, "latency", self.args.latency, 0.02)

    def scheduled(self, name, _round):
        if self.info[name]["can_schedule"]:
            yield from self.idle_worker(name, "scheduled", self.args.scheduled, 0.01)

    def idle_worker(self, name, scenario, count, gap):
        for variant, options in self.variants(name, scenario).items():
            dsn = self.database(name)
            self.call("reset", name, dsn)
            self.probe.clear()
            child = self.start_worker(name, dsn, options)
            try:
                yield variant, self.call(scenario, name, dsn, n=count, gap=gap)
            finally:
                self.stop_worker(child)

    # -- the whole ------------------------------------------------------------
    def run(self) -> None:
        for name in self.args.adapters:
            self.info[name] = self.call("info", name, self.args.dsn)
            print(name, self.info[name]["versions"], flush=True)
        for round_ in range(self.args.rounds):
            for scenario in self.args.scenarios:
                # rotate, so that no adapter always runs first
                names = self.args.adapters
                shift = round_ % len(names)
                names = names[shift:] + names[:shift]
                if scenario == "sanity":
                    names = [""]
                for name in names:
                    if scenario.startswith("drain") and not self.variants(name, scenario):
                        continue
                    if name == "raw_copy" and scenario != "enqueue_bulk":
                        continue
                    self.one(scenario, name, round_)
        os.unlink(self.probe_path)

    def one(self, scenario: str, name: str, round_: int) -> None:
        try:
            for variant, result in getattr(self, scenario)(name, round_):
                self.keep(scenario, name, variant, round_, result)
        except Exception as error:
            self.keep(scenario, name, "", round_, {"error": repr(error)})

    def keep(self, scenario, name, variant, round_, result) -> None:
        row = {
            "scenario": scenario,
            "adapter": name,
            "variant": variant,
            "round": round_,
            "load1": os.getloadavg()[0],
            **result,
        }
        self.runs.append(row)
        print(json.dumps(row), flush=True)
        self.save()

    def save(self) -> None:
        options = {
            key: value for key, value in vars(self.args).items() if key not in ("dsn", "out", "tmp", "python")
        }
        document = {
            "started": self.started,
            "cpus": os.cpu_count(),
            "options": options,
            "server": self.server.settings,
            "adapters": self.info,
            "runs": self.runs,
        }
        Path(self.args.out + ".json").write_text(json.dumps(document, indent=1) + "\n")
        Path(self.args.out + ".md").write_text(report.markdown([document]))


def main() -> None:
    known = sorted(m.name for m in pkgutil.iter_modules(adapters_package.__path__))
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--dsn", default=os.environ.get("BENCH_DSN"))
    parser.add_argument("--adapters", default=",".join(known))
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--variants", default="", help="drain: only these (c10,c50)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=20_000, help="drain, bulk")
    parser.add_argument("--one", type=int, default=2_000, help="enqueue_one")
    parser.add_argument("--latency", type=int, default=300)
    parser.add_argument("--scheduled", type=int, default=200)
    parser.add_argument("--backlog", type=int, default=500_000)
    parser.add_argument("--cap", type=float, default=30, help="seconds for one drain")
    parser.add_argument("--stale", action="store_true", help="drain: do not ANALYZE the filled table")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--out", default="bench-results", help="path without suffix")
    parser.add_argument("--tmp", default=None, help="folder for the probe file")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="ADAPTER=PATH",
        help="interpreter for one adapter (another virtual environment)",
    )
    args = parser.parse_args()
    if not args.dsn:
        parser.error("give --dsn or BENCH_DSN (a superuser; databases are created)")
    args.adapters = args.adapters.split(",")
    args.scenarios = args.scenarios.split(",")
    Harness(args).run()


if __name__ == "__main__":
    main()

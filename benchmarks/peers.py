"""Compares this library with other job queues, using a harness that measures those.

All other options are passed to the harness: --adapters, --scenarios, --variants, --jobs, …
"""

import argparse
import json
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import databases, promises

ROOT = Path(__file__).parents[1]
#: PostgreSQL refuses to run as root; if root measures, the first of these users that exists runs the server.
USERS = ("postgres", "nobody")


def main() -> None:
    options, rest = _options()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oban-peers-")))
        copy_harness(options.harness, work)
        files = options.read
        if not files:
            if options.dsn is None:
                options.dsn = stack.enter_context(
                    installed(options.server_bin) if options.server_bin else from_wheel()
                )
            out = (options.out or work / "results").absolute()
            out.mkdir(parents=True, exist_ok=True)
            files = [measure(options, rest, work, out)]
        documents = [json.loads(file.read_text()) for file in files]
        command = [sys.executable, "-m", "bench.report", *(str(file.absolute()) for file in files)]
        report = subprocess.run(command, cwd=work, check=True, capture_output=True, text=True).stdout
    runs = [run for document in documents for run in document["runs"]]
    faults = [f"- {fault}" for fault in promises.faults(runs)]
    text = "\n".join([report, "## Promises", "", promises.table(runs), "", *faults])
    print(text)
    if options.out:
        (options.out / "peers.md").write_text(text + "\n")
    if any("error" in run for run in runs):
        raise SystemExit("some runs failed")


def _options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "--harness",
        type=Path,
        default=Path(__file__).with_name("peer_harness"),
        help="the folder of another harness, which is copied",
    )
    parser.add_argument(
        "--peers", metavar="PYTHON", type=_python, help="the Python interpreter that has the peers"
    )
    parser.add_argument(
        "--ours",
        metavar="PYTHON",
        type=_python,
        default=sys.executable,
        help="the Python interpreter for this checkout, with psycopg and uvloop (default: this one)",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="how often each scenario is measured (default: 5)"
    )
    server = parser.add_mutually_exclusive_group()
    server.add_argument("--dsn", help="a PostgreSQL server, on which databases called bench_… are dropped")
    server.add_argument(
        "--server-bin",
        type=Path,
        metavar="DIR",
        help="start a server with the initdb and pg_ctl of this folder",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write the figures, the log and the tables to this folder"
    )
    parser.add_argument(
        "--read",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="print the tables of earlier results without measuring",
    )
    options, rest = parser.parse_known_args()
    if not (options.harness / "__main__.py").is_file():
        parser.error(f"argument --harness: {options.harness} does not contain a harness")
    if options.read and rest:
        parser.error(f"--read measures nothing and takes no other options: {' '.join(rest)}")
    if not options.read and not options.peers:
        parser.error("the following arguments are required: --peers")
    return options, rest


def _python(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise argparse.ArgumentTypeError(f"{name} cannot be run")
    # Links are not resolved: through a link, the interpreter finds its virtual environment.
    return os.path.abspath(found)


def copy_harness(harness: Path, work: Path) -> None:
    """Copy the harness into `work` as the package `bench`, and our adapter with it."""
    ignored = shutil.ignore_patterns("__pycache__", "results")
    shutil.copytree(harness, work / "bench", ignore=ignored)
    shutil.copy(Path(__file__).with_name("peer_adapter.py"), work / "bench/adapters" / f"{promises.OURS}.py")


def measure(options: argparse.Namespace, rest: list[str], work: Path, out: Path) -> Path:
    """Run the harness and print its progress to stderr; returns the file with every figure."""
    # The peers must not import this checkout: one of them is called oban, too.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ours = work / "ours-python"
    # With `exec`, the measured process is the interpreter, not the shell.
    ours.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(options.ours)} "$@"\n')
    ours.chmod(0o755)
    command = [options.peers, "-m", "bench", "--dsn", options.dsn, "--rounds", str(options.rounds)]
    command += ["--python", f"{promises.OURS}={ours}", "--out", str(out / "peers"), *rest]
    child = subprocess.Popen(command, cwd=work, env=environment, stdout=subprocess.PIPE, text=True)
    with child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                print(_progress(line), file=sys.stderr, flush=True)
        except BaseException:
            child.terminate()
            raise
    log = out / "peers.stderr.log"
    if log.exists() and log.stat().st_size:
        print(f"--- output of the processes:\n{log.read_text()[-5000:]}", file=sys.stderr)
    if child.returncode:
        raise SystemExit(f"the harness exited with code {child.returncode}")
    return out / "peers.json"


def _progress(line: str) -> str:
    if not line.startswith("{"):
        return line.rstrip()
    run: dict[str, Any] = json.loads(line)
    what = f"round {run['round'] + 1}  {run['scenario']} {run['adapter']} {run['variant']}"
    if "error" in run:
        return f"{what}: {run['error']}"
    figures = [f"{value:,.1f}" for by in promises.figures([run]).values() for value in by[run["adapter"]]]
    return f"{what:50}{'  '.join(figures)}"


@contextmanager
def from_wheel() -> Iterator[str]:
    """Start the PostgreSQL of the wheel; yields its DSN."""
    with databases.running() as server:
        yield server.set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def installed(binaries: Path) -> Iterator[str]:
    """Start an installed PostgreSQL with default settings and remove it afterwards; yields its DSN."""
    run_as: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="oban-pg-") as home, socket.socket() as free:
        if os.geteuid() == 0:
            known = {entry.pw_name: entry for entry in pwd.getpwall()}
            user = next((known[name] for name in USERS if name in known), None)
            if user is None:
                raise SystemExit(f"PostgreSQL cannot run as root, and there is no user {' or '.join(USERS)}")
            os.chown(home, user.pw_uid, user.pw_gid)
            run_as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        data = f"{home}/data"

        def call(program: str, *arguments: str) -> None:
            command = [str(binaries.absolute() / program), "-D", data, *arguments]
            # The server inherits the output; reading from a pipe would never end.
            subprocess.run(command, cwd=home, check=True, stdout=subprocess.DEVNULL, **run_as)

        call("initdb", "-A", "trust", "-U", "postgres", "--locale=C.UTF-8")
        started = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home}"
        call("pg_ctl", "-l", f"{home}/log", "-o", started, "-w", "start")
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-m", "fast", "-w", "stop")


if __name__ == "__main__":
    main()

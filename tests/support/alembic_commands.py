"""Running Alembic's command line in the checkout."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from alembic.config import CommandLine, Config
from sqlalchemy import URL

from tests.support.processes import ROOT
from tests.support.schema import render


def alembic(
    *arguments: str, url: URL | None = None, environment: str | None = None, cwd: Path = ROOT
) -> "subprocess.CompletedProcess[str]":
    """Run `alembic` in a process. `url` is passed as `-x url=`, `environment` as OBAN_DATABASE_URL."""
    variables = {key: value for key, value in os.environ.items() if key != "OBAN_DATABASE_URL"}
    if environment is not None:
        variables["OBAN_DATABASE_URL"] = environment
    option = [] if url is None else ["-x", f"url={render(url)}"]
    return subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), *option, *arguments],
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


def succeeds(*arguments: str, **options: Any) -> str:
    """Run `alembic`, which must succeed, and return what it prints."""
    done = alembic(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def here(*arguments: str, url: URL) -> str:
    """Like `succeeds`, but within this process, which is faster."""
    command_line = CommandLine("alembic")
    argv = ["-c", str(ROOT / "alembic.ini"), "-x", f"url={render(url)}", *arguments]
    options = command_line.parser.parse_args(argv)
    printed = io.StringIO()
    # Before Alembic 1.16 this is one name, not a list.
    (named,) = options.config if isinstance(options.config, list) else [options.config]
    config = Config(named, stdout=printed, output_buffer=printed, cmd_opts=options)
    command_line.run_cmd(config, options)
    return printed.getvalue()

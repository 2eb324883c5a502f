"""A project of the files on a page of `docs/`, and the processes that run in it."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL

from tests.docs.stage import Snippet
from tests.support.processes import ROOT
from tests.support.schema import render
from tests.support.waiting import eventually

#: The configuration of pytest in a project.
PYTEST = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
_NAME = re.compile(r"# (\S+\.py)\n")


def file_name(snippet: Snippet) -> str | None:
    """The path in the first line of a snippet, such as `# app/db.py`."""
    found = _NAME.match(snippet.code)
    return found and found[1]


class Process:
    """A process that prints to a file."""

    def __init__(self, command: list[str], cwd: Path, environment: Mapping[str, str]) -> None:
        self._log = cwd / f"{command[0]}.log"
        with self._log.open("w") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=cwd, env=environment, stdout=output, stderr=output
            )

    def printed(self) -> str:
        return self._log.read_text()

    async def says(self, pattern: str) -> re.Match[str]:
        """Wait until the output matches; fails if the process ends first."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.printed())
            assert match or self._popen.poll() is None, self.printed()
            return match

        match: re.Match[str] = await eventually(found, timeout=20)
        return match

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()


class WrittenProject:
    """A folder with files and a database of its own."""

    def __init__(self, folder: Path, url: URL) -> None:
        self.folder = folder
        self.url = url
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("OBAN_")},
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "error",
            "DATABASE_URL": render(url),
        }

    def write(self, snippet: Snippet) -> None:
        """Write a snippet to the file that it names."""
        name = file_name(snippet)
        assert name is not None
        self.write_text(name, snippet.code)

    def write_text(self, name: str, content: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def add_migrations(self, models: str, target_metadata: str, configure: str) -> None:
        """Run `alembic init`, and edit `env.py` as a reader would."""
        with redirect_stdout(io.StringIO()):
            config = Config(str(self.folder / "alembic.ini"))
            command.init(config, str(self.folder / "migrations"), template="async")
        env = (self.folder / "migrations/env.py").read_text()
        url = '{"sqlalchemy.url": os.environ["DATABASE_URL"]}'
        call = "context.configure(connection=connection, target_metadata=target_metadata)"
        edits = {
            "target_metadata = None\n": f"{models}\ntarget_metadata = {target_metadata}\n",
            call: configure.replace("\n", "\n    "),
            "config.get_section(config.config_ini_section, {})": url,
            "import asyncio\n": "import asyncio\nimport os\n",
        }
        for line, replacement in edits.items():
            assert env.count(line) == 1, line
            env = env.replace(line, replacement)
        self.write_text("migrations/env.py", env)

    def finish(self, *command: str) -> str:
        """Run a module, or a file of the project, that must succeed; returns what it prints."""
        done = self.run(*command)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a module or a file; its errors are part of its output."""
        program = command if command[0].endswith(".py") else ("-m", *command)
        return subprocess.run(
            [sys.executable, *program],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextmanager
    def running(self, *commands: str) -> Iterator[list[Process]]:
        """Start the processes of these commands, and kill them at the end."""
        processes: list[Process] = []
        try:
            for command in commands:
                processes.append(Process(command.split(), self.folder, self.environment))
            yield processes
        finally:
            for process in processes:
                process.kill()

"""A reader who follows pages of `docs/`: writes files, types commands, and compares what is printed."""

import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT
from tests.support.terminal import Terminal, Terminals
from tests.support.waiting import Deadline

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\S+\.\w+)\n")
#: The folder and the machine of the reader on the pages.
FOLDER, HOST = "/home/ann/myshop", "laptop"
#: The width of the terminals.
COLUMNS = 120
#: Commands that run until Ctrl-C, each in a terminal of its own.
_SERVERS = ("oban start", "oban web")
#: Commands that change nothing, so that they can be repeated until they show what happens meanwhile.
_LOOKS = (
    *(
        "cat ",
        "curl ",
        "sort ",
        "oban check",
        "oban nodes",
        "oban periodic list",
        "oban queues list",
        "oban why ",
    ),
    *("oban jobs list", "oban jobs show", "python -m shop.overview", "python -m shop.failures"),
)
#: What makes an environment, which the tests have already.
PREPARATIONS = ("mkdir myshop", "cd myshop", "python3 -m venv ", ". .venv/", "pip install ", "createdb ")
#: What differs from run to run.
_VARIABLE = [
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d([.,]\d+)?Z?"), "TIME"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d\b"), "TIME"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "UUID"),
    (re.compile(r"\b[0-9a-f]{12}_"), "REVISION_"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "REVISION"),
    (re.compile(r"\(((\d+ \w+)|now|just now)( ago)?\)"), "(AGE)"),
    (re.compile(r"\bin \d+ (second|minute|hour|day)s?\b"), "in AGE"),
    (re.compile(r"\b\d+(\.\d+)?(e-\d+)? (s|ms)\b"), "N s"),
    (re.compile(r"[-+]?\b\d+(\.\d+)?(s|ms)( ago)?(?=\s|$)"), "Ns"),
    # Which of the nodes leads.
    (re.compile(r"\b(leader|alive)\b(?=\s+Ns)"), "LIVE"),
    (re.compile(r"\blisten\s+\d+\.\d+\.\d+\S*\s+\d+"), "listen VERSION PID"),
    # A failed job runs again from time to time.
    (re.compile(r"\b\d+/(\d+)\b"), r"N/\1"),
    (re.compile(r"\b(A|a)ttempt \d+ of 20"), "attempt N of 20"),
    (re.compile(r"\bprocess \d+"), "process N"),
    (re.compile(r"postgresql\+asyncpg://\S+"), "URL"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
    (re.compile(r"\boban \d+\.\d+\.\d+\S*"), "oban VERSION"),
    (re.compile(r"[\s─]+"), " "),
]
_HOST = re.compile(rf"\b{re.escape(socket.gethostname())}\b")
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[78=>])")


@dataclass(frozen=True)
class Block:
    """A fenced block, and the line of the page on which its code begins."""

    page: str
    line: int
    language: str
    code: str

    @property
    def file(self) -> str | None:
        """The path in the first line, as in `# shop/jobs.py`."""
        found = _FILE.match(self.code)
        return found[1] if found and self.language != "console" else None

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """The commands, each with the lines that it prints."""
        parts = re.split(r"^\$ ", self.code, flags=re.MULTILINE)[1:]
        return [(lines[0], lines[1:]) for lines in (part.rstrip("\n").split("\n") for part in parts)]

    def __str__(self) -> str:
        return f"docs/{self.page}, line {self.line}"


def all_blocks(page: str) -> list[Block]:
    """Return all fenced blocks of a page of `docs/`, in order."""
    text = (ROOT / "docs" / page).read_text()
    return [
        Block(page, text.count("\n", 0, found.start(2)) + 1, found[1], found[2])
        for found in _FENCE.finditer(text)
    ]


class Reader:
    """Follows pages in one folder. The terminals of its nodes stay open from page to page."""

    def __init__(self, folder: Path, terminals: Terminals, replacements: Mapping[str, str] = {}) -> None:
        """Type `replacements` instead of texts of the pages, such as a port or the URL of a database."""
        self.folder = folder
        self._terminals = terminals
        self._replacements = replacements
        # Without colours. The dashboard gets a free port.
        self.environment = {"NO_COLOR": "1", "OBAN_WEB_PORT": "0"}
        self._servers: dict[str, Terminal] = {}
        #: The node that was started last, which a block of text is about.
        self._latest = ""
        #: How many lines of each server were on the pages so far.
        self._seen: dict[str, int] = {}

    def read(self, page: str) -> None:
        """Do what a page says."""
        for block in all_blocks(page):
            if block.file:
                path = self.folder / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.code)
            elif block.language == "console":
                for command, printed in block.commands:
                    self._type(block, command, printed)
            elif block.language == "text":
                self._watch(block, block.code.splitlines())
            else:
                assert block.language == "mermaid", block

    def printed(self, server: str) -> str:
        """What a server has printed so far, such as `oban web`."""
        return _plain(self._servers[server].output)

    def close(self) -> None:
        """Stop all servers as Ctrl-C does."""
        for name in list(self._servers):
            self._stop(name)

    def _type(self, block: Block, command: str, printed: list[str]) -> None:
        where = f"{block}: {command}"
        if command.startswith(PREPARATIONS):
            return
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.environment[name] = self._replaced(value)
            # What runs does not see it, so the page says that it has to be started again.
            self.close()
        elif command.startswith("kill -9 "):
            self._kill()
        elif command.startswith(_SERVERS):
            self._watch(block, printed, self._start(command))
        elif command.startswith(_LOOKS):
            deadline = Deadline(10)
            while (found := self._run(command)) and not self._is_like(found, printed):
                assert not deadline.passed(), f"{where}\n{found}"
        else:
            found = self._run(command)
            assert self._is_like(found, printed), f"{where}\n{found}"

    def _run(self, command: str) -> str:
        words = shlex.split(self._replaced(command))
        environment = self.environment
        module = None
        if words[:2] == ["python", "-m"]:
            module, words = words[2], words[2:]
        elif words[0] == "alembic":
            module = "alembic"
        elif words[0] != "oban":
            done = subprocess.run(
                self._replaced(command),
                shell=True,
                cwd=self.folder,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            return done.stdout
        with self._terminals.open(
            *words[1:], columns=COLUMNS, folder=str(self.folder), environment=environment, module=module
        ) as terminal:
            terminal.finish()
            return _plain(terminal.output)

    def _start(self, command: str) -> str:
        words = shlex.split(self._replaced(command))
        name = " ".join(words[:2])
        if "--node" in words:
            name += f" {words[words.index('--node') + 1]}"
        if name in self._servers:
            self._stop(name)
        self._servers[name] = self._terminals.open(
            *words[1:], columns=COLUMNS, folder=str(self.folder), environment=self.environment
        )
        self._seen[name] = 0
        if name.startswith("oban start"):
            self._latest = name
        return name

    def _stop(self, name: str, number: int = signal.SIGINT) -> None:
        with self._servers.pop(name) as terminal:
            terminal.kill(number)
            code = terminal.finish()
            assert code in (0, 130), _plain(terminal.output)

    def _kill(self) -> None:
        """Kill the latest node, whose process number on the page is that of another machine."""
        with self._servers.pop(self._latest) as terminal:
            terminal.kill(signal.SIGKILL)
            terminal.finish()

    def _watch(self, block: Block, expected: list[str], name: str | None = None) -> None:
        """Wait until a server has printed these lines, in any order: by default, the latest node.

        `^C` stops it.
        """
        name = name or self._latest
        terminal = self._servers[name]
        before = self._seen[name]
        used: set[int] = set()
        is_stopped = False
        for line in expected:
            if line == "…":
                continue
            if line == "^C":
                is_stopped = True
                terminal.kill(signal.SIGINT)
                continue
            wanted = self._normal(line)

            def found(_: str, wanted: str = wanted) -> bool:
                lines = _plain(terminal.output).splitlines()
                for number in range(before, len(lines)):
                    if number not in used and self._normal(lines[number]) == wanted:
                        used.add(number)
                        return True
                return False

            try:
                terminal.wait_for(found)
            except AssertionError as error:
                raise AssertionError(f"{block}: {line!r} is not in\n{_plain(terminal.output)}") from error
        self._seen[name] = max(used, default=before - 1) + 1
        if is_stopped:
            self._stop(name, signal.SIGCONT)
            self._latest = next(each for each in reversed(self._servers) if each.startswith("oban start"))

    def _is_like(self, found: str, printed: list[str]) -> bool:
        if "…" not in printed:
            # Long lines are wrapped where the numbers in them say.
            return self._normal(" ".join(found.splitlines())) == self._normal(" ".join(printed))
        lines = [self._normal(line) for line in found.splitlines()]
        wanted = [self._normal(line) for line in printed]
        position = 0
        for line in wanted:
            if line and line != "…":
                if line not in lines[position:]:
                    return False
                position = lines.index(line, position) + 1
        return True

    def _replaced(self, text: str) -> str:
        for old, new in self._replacements.items():
            text = text.replace(old, new)
        return text

    def _normal(self, line: str) -> str:
        line = line.replace(str(self.folder), FOLDER)
        line = _HOST.sub(HOST, line)
        for old, new in self._replacements.items():
            line = line.replace(new, old)
        for pattern, replacement in _VARIABLE:
            line = pattern.sub(replacement, line)
        return line.strip()


def _plain(output: bytes) -> str:
    return _ESCAPES.sub("", output.decode(errors="replace")).replace("\r\n", "\n")


@contextmanager
def reading(folder: Path, terminals: Terminals, replacements: Mapping[str, str] = {}) -> Iterator[Reader]:
    """A reader in a folder, whose servers are stopped at the end."""
    reader = Reader(folder, terminals, replacements)
    try:
        yield reader
    finally:
        reader.close()

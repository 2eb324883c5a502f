"""The fenced blocks of all documents, and those of them that a test reads.

The test modules are parsed, not run. A call such as `fenced("docs/guides/x.md", "sql")` reads the blocks of
one language on a page; `commands(…)`, `define(…)` and `Page(…)` imply the language. A module that reads the
text of a page names the fence, "```sql", or has an expression for its commands.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.processes import ROOT

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=indent)(?P=fence)$", re.M | re.S
)

#: Languages of blocks that need no test of their own: output is compared by the test of what printed it, the
#: browser draws every diagram, and notes are prose.
PLAIN = ("", "text", "mermaid", "{tip}", "{warning}", "{note}")
_NAMES = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/*.md")
_MADE = ("docs/changelog.md",)
_FOLDERS = {"ROOT": "", "DOCS": "docs/", "EXAMPLES": "examples/"}
#: What reads blocks, and the language if the name says it.
_READERS = {
    "fenced": None,
    "commands": "console",
    "define": "python",
    "snippets": "python",
    "Page": "python",
    "files": "python",
    "all_blocks": "*",
}


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its fence."""

    page: str
    line: int
    language: str
    code: str

    @property
    def first_line(self) -> str:
        """The first line that is not empty."""
        return next((line.strip() for line in self.code.splitlines() if line.strip()), "")

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.language}): {self.first_line}"


def documents() -> list[str]:
    """Return the paths of all documents from `ROOT`."""
    found = {str(path.relative_to(ROOT)) for name in _NAMES for path in ROOT.glob(name)}
    return sorted(found - set(_MADE))


@cache
def blocks() -> tuple[Block, ...]:
    """Return the blocks of all documents that a test has to execute or to check."""
    found = []
    for page in documents():
        text = (ROOT / page).read_text()
        for match in _FENCE.finditer(text):
            language = match["language"].strip().partition(" ")[0]
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, language, match["code"]))
    return tuple(block for block in found if block.language not in PLAIN)


class _Module:
    """The pages and languages that the source of a test module names."""

    def __init__(self, path: Path) -> None:
        self.source = path.read_text()
        self.tree = ast.parse(self.source)
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        self.strings = {
            node.value
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        self.constants = dict(self._constants())
        self.pages = {page for string in self.strings for page in _named(string)}
        self.pages.update(page for node in ast.walk(self.tree) for page in _named(self._path(node)))
        fences = re.findall(r"```(\w+)", "\n".join(self.strings))
        self.languages = {block.language for block in blocks()} & {*self.strings, *fences}

    def read(self) -> Iterator[Block]:
        calls = [
            node for node in ast.walk(self.tree) if isinstance(node, ast.Call) and _name(node) in _READERS
        ]
        for call in calls:
            yield from self._read_by(call)
        # Some read the text of the page, and look for fences or for commands themselves.
        commands = [re.compile(string, re.M) for string in self.strings if string.startswith(r"^\$ ")]
        for block in blocks():
            lines = [line for line in block.code.splitlines() if line.startswith("$ ")]
            found = (
                all(any(command.search(line) for command in commands) for line in lines)
                if block.language == "console"
                else any(f"```{block.language}" in string for string in self.strings)
            )
            if block.page in self.pages and found:
                yield block

    def _read_by(self, call: ast.Call) -> Iterator[Block]:
        pages = self._resolved(call.args[0]) if call.args else None
        language = _READERS[_name(call)] or (self._resolved(call.args[1]) if len(call.args) > 1 else None)
        condition = self._condition(call)
        for block in blocks():
            in_page = block.page in (_named(pages) if pages else self.pages)
            in_language = language in ("*", block.language) if language else block.language in self.languages
            if in_page and in_language and (condition is None or _holds(condition, block)):
                yield block

    def _condition(self, call: ast.Call) -> tuple[str, ast.expr] | None:
        """The condition of a comprehension over the blocks, and the name that it has for one."""
        parent = self.parents[call]
        if not isinstance(parent, ast.comprehension) or not parent.ifs or _name(call) != "fenced":
            return None
        return ast.unparse(parent.target), parent.ifs[0]

    def _resolved(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Constant):
            return str(node.value)
        return self.constants.get(node.id) if isinstance(node, ast.Name) else None

    def _constants(self) -> Iterator[tuple[str, str]]:
        for node in self.tree.body:
            if isinstance(node, ast.Assign):
                names, values = node.targets[0], node.value
                pairs = (
                    zip(names.elts, values.elts, strict=True)
                    if isinstance(names, ast.Tuple)
                    and isinstance(values, ast.Tuple)
                    and len(names.elts) == len(values.elts)
                    else [(names, values)]
                )
                for name, value in pairs:
                    if isinstance(name, ast.Name) and isinstance(value, ast.Constant):
                        yield name.id, str(value.value)

    def _path(self, node: ast.AST) -> str:
        """The path from `ROOT` that `ROOT / "docs" / "x.md"` is; empty if it is no such expression."""
        parts: list[str] = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            if not isinstance(node.right, ast.Constant):
                return ""
            parts.insert(0, str(node.right.value))
            node = node.left
        folder = _FOLDERS.get(node.id) if isinstance(node, ast.Name) else None
        return "" if folder is None or not parts else folder + "/".join(parts)


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _named(string: str) -> set[str]:
    return {string, f"docs/{string}"} & set(_documents())


@cache
def _documents() -> tuple[str, ...]:
    return tuple(documents())


def _holds(condition: tuple[str, ast.expr], block: Block) -> bool:
    """Whether a block fulfils the condition of a comprehension; one that needs other names counts as true."""
    name, expression = condition
    try:
        return bool(eval(ast.unparse(expression), {name: block.code}))
    except NameError:
        return True


def read_by_tests() -> set[Block]:
    """Return the blocks that a test module reads."""
    modules = [*ROOT.glob("tests/docs/test_*.py"), *ROOT.glob("tests/examples/test_*.py")]
    return {block for path in modules for block in _Module(path).read()}

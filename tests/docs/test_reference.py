"""The pages of `docs/reference/` have every public name, option, state, command, error and table."""

import ast
import asyncio
import functools
import importlib
import inspect
import re
import textwrap
from dataclasses import fields
from pathlib import Path
from typing import Any

import griffe
import pytest
from sqlalchemy import create_engine, select
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import oban
from oban import Job, JobState, Periodic, SyncOban, errors, filters, job, migration
from oban.cli import check, jobs, main
from oban.config import Options, Retention
from oban.ddl import ENUM, TRIGGER
from tests.docs.snippets import fenced
from tests.support import docstrings, reference
from tests.support.commands import invoke
from tests.support.databases import Factory, SQLiteFactory
from tests.support.processes import ROOT

PAGES = {path.stem: path.read_text() for path in reference.PAGES.glob("*.md")}
#: The objects whose docstrings are on a page, by the page.
SHOWN = {page: re.findall(r"^::: (\S+)$", text, re.MULTILINE) for page, text in PAGES.items()}

WITHOUT_EXAMPLE = (
    *("start", "stop", "asgi_lifespan", "get_instance", "engine", "is_leader", "telemetry"),
    *("check_queue", "check_all_queues"),
)


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """The cells after the first one of each row of the tables below a heading, by each name in the first."""
    section = PAGES[page].partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found: dict[str, list[str]] = {}
    for line in re.findall(r"^\| `.*$", section, re.MULTILINE):
        first, *cells = (cell.strip() for cell in line.strip("| ").split(" | "))
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", first), cells)
    return found


@functools.cache
def package() -> griffe.Module:
    """The package as the site reads it: without importing it, and with the extension."""
    extensions = griffe.load_extensions(docstrings.Docstrings())
    loader = griffe.GriffeLoader(
        search_paths=[ROOT], docstring_parser=griffe.Parser.google, extensions=extensions
    )
    return loader.load("oban")  # type: ignore[return-value]


def test_the_public_names_are_those_that_the_package_exports() -> None:
    assert rows("index", "Public names").keys() == set(oban.__all__)


def test_every_public_name_is_on_one_page() -> None:
    shown = [path for paths in SHOWN.values() for path in paths]
    assert len(shown) == len(set(shown))
    # One directive shows all errors.
    shown += [f"oban.errors.{name}" for name, item in vars(errors).items() if isinstance(item, type)]
    for path, name in docstrings.public_names(package()).items():
        item = getattr(importlib.import_module(path.removesuffix(f".{name}")), name)
        # The path of the decorator `worker` is that of a module.
        where = f"{getattr(item, '__module__', None)}.{getattr(item, '__qualname__', None)}"
        assert {path, where} & {*shown}, path


@pytest.mark.parametrize(("page", "cls"), [("client", oban.Oban), ("sync_client", SyncOban)])
def test_every_method_of_a_client_is_on_its_page(page: str, cls: type) -> None:
    names = {path.rpartition(".")[2] for path in SHOWN[page] if path.startswith(f"oban.{cls.__name__}.")}
    public = {name for name in dir(cls) if not name.startswith("_")}
    # The handlers of a client are an attribute.
    assert names == public | {"telemetry"}


def test_the_examples_make_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(fenced("docs/reference/client.md", "python")[0], names)
    assert isinstance(names["oban"], oban.Oban)
    assert names["oban"].options.queues["default"].limit == 10
    exec(fenced("docs/reference/sync_client.md", "python")[0], names)
    assert isinstance(names["oban"], SyncOban)


@job(name="Report")
def report(customer: int) -> None: ...


async def test_the_examples_of_the_methods_run(tmp_path: Path) -> None:
    """Each with a new job; what `async for` and `await` need is there."""
    names: dict[str, Any] = {
        **{name: getattr(oban, name) for name in oban.__all__},
        "filters": filters,
        "select": select,
        "Report": report.worker,
        "rows": range(2_500),
    }
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'examples.db'}")
    await asyncio.to_thread(migration.upgrade, f"sqlite:///{tmp_path / 'examples.db'}")
    client = names["oban"] = oban.Oban(engine, name="Examples")
    await client.add_periodic(Periodic("nightly", "0 3 * * *", report.new(7)))
    ran = 0
    for path in SHOWN["client"]:
        docstring = package()[path.partition(".")[2]].docstring
        _, found, example = docstring.value.partition("\n\nExample:\n") if docstring else ("", "", "")
        if found:
            assert re.fullmatch(r" +`[^`]+`", example), path
            names["job"] = await client.enqueue(report.new(7))
            if path.rpartition(".")[2].startswith("wait"):
                await client.cancel_many_jobs(select(Job), everything=True)
            code = compile(example.strip(" `"), path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            async with AsyncSession(engine) as session:
                names["session"] = session
                if inspect.isawaitable(waiting := eval(code, names)):
                    await waiting
            ran += 1
    await engine.dispose()
    methods = [path for path in SHOWN["client"] if re.fullmatch(r"oban\.Oban\.\w+", path)]
    # Those without one start and stop the client, or return what it has.
    assert ran == len(methods) - len(WITHOUT_EXAMPLE)


def test_the_other_examples_are_python_and_filters_are_conditions() -> None:
    names = {"select": select, "Job": Job, "filters": filters, "Report": report.worker}
    for path in {path for page in SHOWN if "client" not in page for path in SHOWN[page]}:
        item: Any = package()[path.partition(".")[2]]
        # `filters.Value` and most public names are defined in other modules.
        item = item.final_target if item.is_alias else item
        for member in (item, *item.members.values()) if item.is_class else (item,):
            docstring = None if member.is_alias else member.docstring
            _, found, example = docstring.value.partition("\nExample:\n") if docstring else ("", "", "")
            if found:
                source = textwrap.dedent(example).strip().removeprefix("```python\n").strip("`\n")
                compile(source, member.path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                if ".filters." in path:
                    compiled = eval(source, names).compile(dialect=sqlite.dialect())
                    assert "oban_jobs" in str(compiled), member.path


def test_docstrings_name_the_parameters_of_the_signature() -> None:
    """As Griffe would warn about, but for options that a class statement or `**options` takes."""
    for path in {path for paths in SHOWN.values() for path in paths} - {"oban.errors", "oban.filters"}:
        item = package()[path.partition(".")[2]]
        for member in (item, *item.all_members.values()) if item.is_class else (item,):
            if member.docstring is None or member.name.startswith("_") or not hasattr(member, "parameters"):
                continue
            known = {parameter.name.lstrip("*") for parameter in member.parameters}
            is_open = any(
                parameter.kind is griffe.ParameterKind.var_keyword for parameter in member.parameters
            )
            for section in member.docstring.parsed:
                if section.kind is griffe.DocstringSectionKind.parameters and not is_open and known:
                    assert {parameter.name for parameter in section.value} <= known, member.path


def test_every_documented_function_has_a_docstring() -> None:
    for path in {path for paths in SHOWN.values() for path in paths}:
        item = package()[path.partition(".")[2]]
        assert item.docstring is not None, path


def test_every_option_has_its_default() -> None:
    listed, options, other = rows("options", "Options of `Oban`"), Options(), Options(lease=100)
    names = {item.name for item in fields(Options) if item.init}
    assert listed.keys() == names | {item.name for item in fields(Retention)}
    for name in names:
        value, default = getattr(options, name), listed[name][1]
        if name != "lease" and value != getattr(other, name):
            assert (value, default) == (options.lease / 4, "`lease` / 4"), name
        elif isinstance(value, float):
            assert default == f"{value:g}", name
        elif isinstance(value, str) and name != "node":
            assert default.strip('`"') == value, name


def test_every_option_of_a_worker_has_a_row() -> None:
    listed = rows("options", "Options of workers")
    assert set(oban.fields.WorkerOptions.__annotations__) <= listed.keys()
    assert set(oban.UniqueOptions.__annotations__) <= listed.keys()


def test_every_state_and_command_has_a_row() -> None:
    assert rows("states", "States").keys() == {state.value for state in JobState}
    commands = {re.sub(r"^oban -*", "", name) for name in rows("commands", "Commands")}
    known_commands = {
        f"{name} {inner}" if inner else name
        for name, command in main.commands.items()
        for inner in getattr(command, "commands", {"": None})
    }
    assert commands == known_commands


def exits() -> set[str]:
    """What the commands pass to the functions that end a process, apart from click's own 0, 1 and 2."""
    calls = (
        node
        for path in (ROOT / "oban" / "cli").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    )
    ending = ("sys.exit", "click.exceptions.Exit", "os._exit")
    return {ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func) in ending}


def test_the_exit_codes_are_those_that_commands_end_with(sqlite_factory: SQLiteFactory) -> None:
    section = PAGES["commands"].partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    general, of_check = section.split("`oban check` has the codes")
    codes = re.findall(r"^\| (\d.*?) \|", general, re.MULTILINE)
    assert codes == ["0", "1", "2", "3", "128 and the number of the signal"]
    severities = re.findall(r"^\| (\d) \| (\w+)", of_check, re.MULTILINE)
    assert {name: int(code) for code, name in severities} == check.EXIT_CODES
    # A command that ends in another way needs a row, and a line below.
    assert exits() == {
        "1",
        "TIMED_OUT",
        "128 + received",
        "app.return_code",
        "EXIT_CODES['unknown']",
        "EXIT_CODES[health.severity]",
    }
    assert f"| {jobs.TIMED_OUT} | `oban jobs wait` has reached its timeout. |" in general
    url = sqlite_factory.create()
    with SyncOban(url.set(drivername="sqlite")) as client:
        waiting = client.enqueue(Job(worker="app.Report"))
    ended = {
        ("jobs", "list"): 0,
        ("jobs", "show", "404"): 1,
        ("jobs", "cancel", "404", "--yes"): 1,
        ("why", "404"): 1,
        ("jobs", "list", "--unknown"): 2,
        ("jobs", "wait", str(waiting.id), "--timeout", "0.01"): 3,
        # A job waits, and no node runs: a warning at first.
        ("check",): 1,
        ("check", "--unknown"): 3,
    }
    address = url.render_as_string(hide_password=False)
    results = {words: invoke(*words, OBAN_DATABASE_URL=address) for words in ended}
    assert {words: result.exit_code for words, result in results.items()} == ended
    sqlite_factory.drop(url)


def test_the_tables_of_the_code_are_up_to_date() -> None:
    for path in reference.PAGES.glob("*.md"):
        assert path.read_text() == reference.replaced(path), "run `python -m tests.support.reference`"
    marks = {
        name
        for text in PAGES.values()
        for name in re.findall(r"^<!-- (.*) of the code: ", text, re.MULTILINE)
    }
    assert marks == reference.TABLES.keys()


def test_a_database_has_the_columns_and_indexes_of_the_page(factory: Factory) -> None:
    url = factory.create()
    is_sqlite = url.get_backend_name() == "sqlite"
    engine = create_engine(url.set(drivername="sqlite" if is_sqlite else "postgresql+psycopg"))
    try:
        inspector = sa_inspect(engine)
        for name in {*inspector.get_table_names()} - {migration.VERSION_TABLE}:
            text = PAGES["schema"].partition(f"\n### `{name}`\n")[2].partition("\n### ")[0]
            first = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
            columns = [column["name"] for column in inspector.get_columns(name)]
            assert first[: len(columns)] == columns, name
            indexes = {index["name"] for index in inspector.get_indexes(name)}
            checks = {check["name"] for check in inspector.get_check_constraints(name)}
            if name == "oban_jobs":
                # SQLite has the check instead of the enum, and no name for the key that it counts up.
                checks |= {"known_state", "oban_jobs_pkey"}
            key = {inspector.get_pk_constraint(name)["name"]}
            assert {*first[len(columns) :]} == indexes | checks | key - {None}, name
    finally:
        engine.dispose()
        factory.drop(url)


def test_what_only_postgresql_has_is_named() -> None:
    text = PAGES["schema"]
    assert {f"`{ENUM}`", f"`{TRIGGER}`"} <= {*re.findall(r"`\w+`", text)}
    assert re.findall(r"`(\w+)`", text.partition("in this\norder: ")[2].partition(". On SQLite")[0]) == [
        *JobState
    ]

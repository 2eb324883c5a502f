"""S2: whatever a row names, only registered workers run, and no module is imported."""

import ast
import asyncio
import base64
import json
import os
import pickle
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

from sqlalchemy import URL, insert

from oban import Job, JobState, Oban
from tests.support.waiting import eventually, within

ROOT = Path(__file__).parents[2]
PLANTED = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\ndef run(job): pass\n"
#: Modules of Python that the node does not need, a planted module, and names in the node itself.
WORKERS = [
    "os.system",
    "os:system",
    "this",
    "this.Nope",
    "antigravity",
    "builtins.eval",
    "builtins.exec",
    "eval('1')",
    "__import__('this')",
    "importlib.import_module",
    "subprocess.Popen",
    "turtle.Turtle",
    "planted",
    "planted.run",
    "planted:run",
    "../planted",
    "planted.py",
    ".planted",
    "tests.security.node",
    "tests.security.node.helper",
    "tests.security.node.Registered",
    "tests.security.node.Registered.process",
    "tests.security.Registered.process",
    "tests.security.Registered ",
    "__main__.helper",
    "__main__.Registered",
    "oban.worker.Worker",
    "oban.registry.names",
    "oban.client.Oban.stop",
    "Worker",
    "object",
    "{0.__class__}",
    "%(password)s",
    "${jndi:ldap://localhost/a}",
]


class Exploit:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


PICKLE = pickle.dumps(Exploit())
ARGS: list[dict[str, Any]] = [
    {"a": PICKLE.decode("latin-1").replace("\x00", "")},
    {"a": base64.b64encode(PICKLE).decode()},
    {"__reduce__": ["os.system", ["touch unpickled"]]},
    {"py/object": "planted.run", "py/reduce": [{"py/type": "planted.run"}]},
    {"a": "!!python/object/apply:os.mkdir [unpickled]"},
    {"__class__": "planted.run", "__module__": "planted", "__init__": "planted"},
    {"a": "{{ ''.__class__.__mro__ }}", "b": "__import__('planted')"},
]


async def test_rows_that_name_code_import_and_call_nothing(url: URL, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(PLANTED)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.security.node", url.render_as_string(hide_password=False)),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        stdin=PIPE,
        stdout=PIPE,
    )
    try:
        assert process.stdout is not None
        assert await within(process.stdout.readline(), 30) == b"ready\n"
        known = [
            {"worker": worker, "args": args, "meta": args, "tags": sorted(args), "max_attempts": 1}
            for worker in ("tests.security.Registered", "tests.security.greet")
            for args in ARGS
        ]
        nothing: dict[str, Any] = {"args": {}, "meta": {}, "tags": [], "max_attempts": 1}
        rows = [*({"worker": worker, **nothing} for worker in WORKERS), *known]
        async with Oban(url) as client:
            first = max(job.id for job in await client.list_jobs())
            async with client.engine.begin() as connection:
                # Without the checks of the library.
                await connection.execute(insert(Job.__table__), rows)

            async def ended() -> list[Job]:
                jobs = [job for job in await client.list_jobs() if job.id > first]
                states = {job.state for job in jobs}
                return [] if states & {JobState.AVAILABLE, JobState.EXECUTING} else jobs

            jobs = await eventually(ended)
        printed, _ = await within(process.communicate(b""), 30)
        # Nothing has printed "called" either.
        assert json.loads(printed) == []
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert os.listdir(tmp_path) == ["planted.py"]
    found = {job.worker: job for job in jobs}
    for worker in WORKERS:
        job = found[worker]
        assert (job.state, job.attempt, len(job.errors)) == (JobState.DISCARDED, 1, 1)
        assert f"no worker named {worker!r} is registered in this process" in job.errors[0]["error"]
    for job in jobs:
        if job.worker == "tests.security.Registered":
            assert job.state is JobState.COMPLETED
        elif job.worker == "tests.security.greet":
            assert job.state is JobState.DISCARDED
            assert "tests.security.greet takes no" in job.errors[0]["error"]


#: Names of functions that turn data into code.
MODULES = {
    *("pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "yaml"),
    *("runpy", "code", "codeop", "imp", "pkgutil", "multiprocessing", "pydoc"),
}
CALLS = {
    *("eval", "exec", "compile", "__import__", "import_module", "exec_module", "module_from_spec"),
    *(
        "system",
        "popen",
        "ProcessPoolExecutor",
        "locate",
        "resolve_name",
        "EntryPoint",
        "create_subprocess_shell",
    ),
}
#: Places that import modules by a variable name, and where the name comes from.
ALLOWED = {
    "cli/start.py: import_module": "the operator, on the command line",
    "cli/target.py: import_module": "the operator, on the command line",
    "cli/target.py: pkgutil": "lists the names of modules, for a suggestion",
    "__init__.py: import_module": "the modules of this package",
    "testing/__init__.py: import_module": "the modules of this package",
    "cli/__init__.py: import_module": "the modules of this package",
    "cli/node.py: import_module": "the operator, on the command line; uvloop",
    "migration/drift.py: compile": "SQLAlchemy's, which writes the SQL of an index",
    "encoding.py: marshal.dumps": "refuses what is not a plain value; nothing is loaded",
    "runner/processes/child.py: import_module": "the registry of the parent process",
    "runner/processes/child.py: multiprocessing.spawn": "the main module of the node; nothing is pickled",
    "runner/processes/worker_process.py: multiprocessing.spawn": "the main module of this process",
    "runner/processes/worker_process.py: multiprocessing.process": "the main module of this process",
}


def suspicious(source: str) -> set[str]:
    """Names in a module that could turn data into code."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found |= {name.name for name in names if name.name.split(".")[0] in MODULES}
            case ast.ImportFrom(module=str(module), names=names):
                if module.split(".")[0] in MODULES:
                    found |= {f"{module}.{name.name}" for name in names}
                found |= {name.name for name in names if name.name in CALLS}
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re"))):
                pass
            case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)) if name in CALLS:
                found.add(name)
            case ast.keyword(arg="shell"):
                found.add("shell")
    return found


def test_nothing_in_the_library_turns_data_into_code() -> None:
    package = ROOT / "oban"
    found = {
        f"{path.relative_to(package)}: {name}"
        for path in package.rglob("*.py")
        for name in suspicious(path.read_text())
    }
    assert found - ALLOWED.keys() == set()
    assert found
    assert suspicious("import pickle\nfrom os import system\nx.eval(1)\nexec('')\nrun(1, shell=True)") == {
        *("pickle", "system", "eval", "exec", "shell")
    }

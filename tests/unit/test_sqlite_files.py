"""The name of an SQLite database says whether it is a file, and which one."""

import os
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url

from oban import dialects

DIALECT = dialects.by_name("sqlite")


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///:memory:?cache=shared",
        "sqlite+aiosqlite:///file::memory:?cache=shared&uri=true",
        "sqlite:///file::memory:?uri=true",
        "sqlite:///file:%3Amemory%3A?uri=true",
        "sqlite:///file:m?mode=memory&cache=shared&uri=true",
        "sqlite:///file:memdb1?mode=memory&uri=true",
        "sqlite:///file:memdb1?mode=memory",
        "sqlite:///file:/name?vfs=memdb&uri=true",
        "sqlite:///file:name?vfs=memdb&uri=true",
        "sqlite:///file:?uri=true",
        "sqlite:///file://localhost?mode=memory&uri=true",
        URL.create("sqlite", database="file:m?mode=memory&cache=shared"),
        URL.create("sqlite", database="file::memory:?cache=shared"),
        URL.create("sqlite", database="file:m?mode=%6Demory"),
    ],
    ids=str,
)
def test_every_form_of_a_database_in_memory_is_known(url: str | URL) -> None:
    parsed = make_url(url)
    assert DIALECT.is_memory(parsed)
    assert DIALECT.missing_file(parsed) is None
    assert not DIALECT.same_file(parsed, parsed)
    assert DIALECT.refusal(parsed) is None


FILES = [
    "{}",
    "file:{}?uri=true",
    "file://{}?uri=true",
    "file://localhost{}?uri=true",
    "file:{}?mode=rwc&cache=shared&uri=true",
    "file:{}?mode=rw",
    "file:{}#fragment?mode=memory",
]


@pytest.mark.parametrize("name", FILES)
def test_every_name_of_a_file_is_known(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a b%.db"
    quoted = str(path).replace("%", "%25") if "file:" in name else str(path)
    url = make_url("sqlite:///" + name.format(quoted))
    assert not DIALECT.is_memory(url)
    assert DIALECT.missing_file(url) == f"the file {path} does not exist"
    path.touch()
    assert DIALECT.missing_file(url) is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.db").symlink_to(path)
    for other in ("./a b%.db", "link.db", "file:a%20b%25.db"):
        assert DIALECT.same_file(url, URL.create("sqlite+aiosqlite", database=other))
    assert not DIALECT.same_file(url, URL.create("sqlite", database="b.db"))
    assert DIALECT.refusal(url) is None
    os.unlink(path)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("mode=ro", "read-only; leave out mode=ro"),
        ("mode=ro&cache=shared", "read-only"),
        ("immutable=1", "read-only"),
        ("immutable=yes", "read-only"),
        ("nolock=1", "turns off locks"),
        ("mode=rw&immutable=0&nolock=false", None),
    ],
)
def test_a_file_on_which_no_node_can_run_is_refused(parameters: str, words: str | None) -> None:
    url = make_url(f"sqlite:///file:a.db?{parameters}&uri=true")
    assert not DIALECT.is_memory(url)
    refusal = DIALECT.refusal(url)
    assert refusal is None if words is None else words in str(refusal)

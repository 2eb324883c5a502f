"""The tutorial in `docs/learn/`: its files are written and its commands run in order, as by a reader."""

import re
import socket
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.docs.reader import PREPARATIONS, Block, Reader, all_blocks, reading
from tests.support.databases import PostgreSQLFactory
from tests.support.processes import ROOT
from tests.support.schema import render
from tests.support.terminal import Terminals, start_terminals

#: The pages in order.
PAGES = [
    "learn/first_job.md",
    "learn/transaction.md",
    "learn/errors.md",
    "learn/managing.md",
    "learn/schedules.md",
    "learn/production.md",
]
BLOCKS = {page: all_blocks(page) for page in PAGES}


@pytest.fixture(scope="module")
def terminals() -> Iterator[Terminals]:
    with start_terminals() as running:
        yield running


def test_the_first_job_runs_and_what_is_printed_is_on_the_page(tmp_path: Path, terminals: Terminals) -> None:
    with reading(tmp_path, terminals) as reader:
        reader.read(PAGES[0])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_reader_can_follow_all_pages(
    tmp_path: Path, terminals: Terminals, postgresql_factory: PostgreSQLFactory
) -> None:
    url = postgresql_factory.create(empty=True)
    replacements = {
        "postgresql+asyncpg://localhost/shop": render(url),
        "8080": str(free_port()),
        "9394": str(free_port()),
    }
    try:
        with reading(tmp_path, terminals, replacements) as reader:
            for page in PAGES:
                if page == PAGES[-1]:
                    # The page waits for the lease of a node that it kills, a minute.
                    reader.environment["OBAN_LEASE"] = "4"
                reader.read(page)
                if page.endswith("managing.md"):
                    check_the_dashboard(reader)
    finally:
        postgresql_factory.drop(url)


def check_the_dashboard(reader: Reader) -> None:
    """What the page about it says is there."""
    found = re.search(r"http://\S+/", reader.printed("oban web"))
    assert found
    with httpx.Client(base_url=found[0]) as browser:
        listed = browser.get("/jobs", params={"query": "tag:order-5"})
        assert listed.status_code == 200
        assert "shop.jobs.send_mail" in listed.text
        job = browser.get("/jobs/16").text
        for button in ("Cancel", "Retry", "Delete"):
            assert button in job


@pytest.mark.parametrize("page", PAGES)
def test_each_block_is_a_file_commands_or_what_a_node_prints(page: str) -> None:
    for block in BLOCKS[page]:
        assert block.file or block.language in ("console", "text"), str(block)
        if block.language == "console":
            assert block.code.startswith("$ "), str(block)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def files(page: str) -> dict[str, Block]:
    return {block.file: block for block in BLOCKS[page] if block.file}


@pytest.mark.parametrize("page", PAGES)
def test_what_you_have_now_lists_each_file_of_the_pages_so_far(page: str) -> None:
    """A file of this page with its section, and others with the page that has their last version."""
    text = (ROOT / "docs" / page).read_text()
    section = text.partition("## What you have now\n")[2]
    latest = {name: each for each in PAGES[: PAGES.index(page) + 1] for name in files(each)}
    # Migrations replace it.
    if page == PAGES[-1]:
        del latest["shop/create_tables.py"]
    for name, source in latest.items():
        (row,) = (line for line in section.splitlines() if f"`{name}`" in line)
        if source == page:
            heading = re.findall(r"^##+ (.*)$", text[: text.index(f"# {name}\n")], re.MULTILINE)[-1]
            anchor = re.sub(r"\W+", "-", heading.lower()).strip("-")
            assert f"[`{name}`](#{anchor})" in row, (name, anchor)
        else:
            assert f"({Path(source).name}#what-you-have-now)" in row, name


@pytest.mark.parametrize(("page", "following"), list(pairwise(PAGES)))
def test_each_page_links_to_the_next(page: str, following: str) -> None:
    title = (ROOT / "docs" / following).read_text().splitlines()[0].removeprefix("# ")
    assert f"Next: [{title}]({Path(following).name})" in (ROOT / "docs" / page).read_text()


def test_the_extras_that_are_installed_exist() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    commands = [line for page in PAGES for block in BLOCKS[page] for line, _ in block.commands]
    installed = [command for command in commands if command.startswith("pip install ")]
    assert len(installed) == 3
    for command in installed:
        assert re.fullmatch(r"pip install (\.\./oban|'\.\./oban\[[a-z,]+\]')", command)
        for extra in re.findall(r"\[(.*)\]", command):
            assert set(extra.split(",")) <= set(known)


def test_only_commands_that_prepare_an_environment_are_left_out() -> None:
    commands = [line for page in PAGES for block in BLOCKS[page] for line, _ in block.commands]
    left_out = {command.split()[0] for command in commands if command.startswith(PREPARATIONS)}
    assert left_out == {"mkdir", "cd", "python3", ".", "pip", "createdb"}

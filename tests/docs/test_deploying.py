"""The files in `docs/guides/deploying.md` are valid, and their commands start and stop a node."""

import configparser
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from oban import migration
from oban.cli.node import CONNECT_INTERVAL
from tests.docs.commands import OBAN, URL
from tests.docs.snippets import fenced
from tests.support.processes import ROOT

PAGE = "docs/guides/deploying.md"
#: The seconds that a node may need after its grace period, according to the page.
MARGIN = 10
CONSOLE = fenced(PAGE, "console")


def only(language: str) -> str:
    [block] = fenced(PAGE, language)
    return block


def unit() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(only("ini"))
    return parsed


def start() -> list[str]:
    """The arguments of `oban` in the unit that start a node."""
    return shlex.split(unit()["Service"]["ExecStart"])[1:]


def environment(folder: Path) -> dict[str, str]:
    (folder / "app").mkdir()
    (folder / "app" / "jobs.py").write_text(only("python"))
    return {**os.environ, "OBAN_DATABASE_URL": URL}


def test_the_commands_create_the_tables_and_run_a_node_until_sigterm(tmp_path: Path) -> None:
    variables = environment(tmp_path)
    load, install = CONSOLE[0].splitlines()[:2]
    (tmp_path / "shop.env").write_text(only("sh"))
    oban = f"{shlex.quote(sys.executable)} -m oban"
    script = f"{load}\necho $OBAN_DATABASE_URL\n{install}".replace("$ ", "")
    script = script.replace("/etc/shop.env", "./shop.env").replace("/srv/shop/.venv/bin/oban", oban)
    # The URL of the page is that of no server.
    script = script.replace("\necho", f"\necho $OBAN_DATABASE_URL; OBAN_DATABASE_URL={URL}; : ", 1)
    done = subprocess.run(["sh", "-ec", script], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == only("sh").strip().partition("=")[2].strip("'")
    with subprocess.Popen(
        [*OBAN, *start()], cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True
    ) as node:
        assert node.stderr is not None
        printed = ""
        for line in node.stderr:
            printed += line
            if "runs default:10" in line:
                node.send_signal(signal.SIGTERM)
                break
        printed += node.stderr.read()
    assert node.returncode == 0, printed
    assert "up to 30 s" in printed


def test_a_node_without_tables_exits_with_1(tmp_path: Path) -> None:
    ended = subprocess.run(
        [*OBAN, *start()],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, "oban install" in ended.stderr) == (1, True), ended.stderr


def test_the_unit_notifies_and_needs_no_limit_of_its_own() -> None:
    service = unit()["Service"]
    assert (service["Type"], service["KillMode"], service["Restart"]) == ("notify", "mixed", "on-failure")
    # The node asks for its grace period and more: tests/cli/test_stop_requests.py.
    assert "TimeoutStopSec" not in service
    name = re.findall(r"`/etc/systemd/system/(\S+)\.service`", (ROOT / PAGE).read_text())
    assert [line.split()[-1] for line in CONSOLE[0].splitlines()[2:]] == name * 2
    assert service["EnvironmentFile"] in CONSOLE[0]
    text = " ".join((ROOT / PAGE).read_text().split())
    assert f"tries again every {CONNECT_INTERVAL:g} seconds" in text
    assert f"the grace period plus {MARGIN} seconds" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    written = only("ini").replace("/srv/shop/.venv/bin/oban", f"{sys.executable} -m oban")
    written = written.replace("/srv/shop", str(tmp_path)).replace("User=shop", "User=root")
    (tmp_path / "shop-jobs.service").write_text(written)
    found = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "shop-jobs.service")],
        capture_output=True,
        text=True,
        check=True,
    )
    # It exits with 0 also if it ignores a line.
    assert (found.stdout, found.stderr) == ("", "")


def test_the_command_of_the_page_starts_a_node_for_each_core(tmp_path: Path) -> None:
    variables = environment(tmp_path)
    migration.upgrade(f"sqlite:///{tmp_path}/app.db")
    [command] = CONSOLE[1].splitlines()
    started: set[str] = set()
    with subprocess.Popen(
        [*OBAN, *shlex.split(command)[2:]],
        cwd=tmp_path,
        env=variables,
        stderr=subprocess.PIPE,
        text=True,
    ) as supervisor:
        assert supervisor.stderr is not None
        printed = []
        for line in supervisor.stderr:
            printed.append(line)
            if " runs default:10" in line:
                started.add(line.split(" runs ")[0].split()[-1])
                if len(started) == 4:
                    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.returncode == 0, printed
    assert {name[-2:] for name in started} == {"-1", "-2", "-3", "-4"}


def test_these_tests_use_every_fenced_block_of_the_page() -> None:
    languages = {"python": 1, "ini": 1, "sh": 1, "console": 2}
    assert {language: len(fenced(PAGE, language)) for language in languages} == languages
    assert (ROOT / PAGE).read_text().count("```") == 2 * sum(languages.values())

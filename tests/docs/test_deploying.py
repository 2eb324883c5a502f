"""The files in `docs/guides/deploying.md` are valid, and their commands start and stop a node."""

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.docs.commands import OBAN, URL
from tests.docs.snippets import fenced
from tests.support.processes import ROOT

PAGE = "docs/guides/deploying.md"
#: The seconds that a node may need after its grace period, according to the page.
MARGIN = 10


def only(language: str) -> str:
    [block] = fenced(PAGE, language)
    return block


def unit() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(only("ini"))
    return parsed


def dockerfile() -> dict[str, list[str]]:
    """The arguments of each instruction by its name."""
    instructions: dict[str, list[str]] = {}
    for line in only("dockerfile").splitlines():
        name, _, argument = line.partition(" ")
        instructions.setdefault(name, []).append(argument)
    return instructions


def compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(only("yaml"))["services"]
    return services


def procfile() -> dict[str, list[str]]:
    lines = (line.partition(": ") for line in only("procfile").splitlines())
    return {name: shlex.split(command) for name, _, command in lines}


def starts() -> dict[str, tuple[list[str], float]]:
    """The command that starts a node by the file that has it, and the seconds before a kill."""
    service = unit()["Service"]
    [command] = dockerfile()["CMD"]
    return {
        "systemd": (
            ["oban", *shlex.split(service["ExecStart"])[1:]],
            float(service["TimeoutStopSec"]),
        ),
        "compose": (json.loads(command), float(compose()["jobs"]["stop_grace_period"].removesuffix("s"))),
        "procfile": (procfile()["jobs"], 30.0),
    }


def environment(folder: Path) -> dict[str, str]:
    (folder / "app").mkdir()
    (folder / "app" / "jobs.py").write_text(only("python"))
    return {**os.environ, "OBAN_DATABASE_URL": URL}


def test_every_file_starts_the_same_node_and_gives_it_time_to_stop() -> None:
    targets = set()
    for file, (command, limit) in starts().items():
        targets.add(tuple(command[:3]))
        grace = command[command.index("--shutdown-grace-period") + 1]
        assert float(grace) + MARGIN <= limit, file
    assert targets == {("oban", "start", "app.jobs:oban")}
    assert f"the grace period plus {MARGIN} seconds" in (ROOT / PAGE).read_text()


def test_every_file_creates_the_tables_first() -> None:
    install = shlex.split(unit()["Service"]["ExecStartPre"])
    assert (Path(install[0]).name, install[1:]) == ("oban", ["install"])
    services = compose()
    assert services["install"]["command"] == procfile()["release"] == ["oban", "install"]
    assert services["jobs"]["depends_on"] == {"install": {"condition": "service_completed_successfully"}}
    # The others have the command of the Dockerfile.
    assert "command" not in services["jobs"]


def test_the_commands_create_the_tables_and_run_a_node_until_sigterm(tmp_path: Path) -> None:
    variables = environment(tmp_path)
    install, [_, *start] = procfile()["release"], starts()["systemd"][0]
    subprocess.run([*OBAN, *install[1:]], cwd=tmp_path, env=variables, check=True, capture_output=True)
    with subprocess.Popen(
        [*OBAN, *start], cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True
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
    _, *start = starts()["compose"][0]
    ended = subprocess.run(
        [*OBAN, *start], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert (ended.returncode, "oban install" in ended.stderr) == (1, True), ended.stderr


def test_the_dockerfile_installs_what_its_command_needs_as_another_user() -> None:
    instructions = dockerfile()
    known = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "CMD"}
    assert instructions.keys() == known
    [user] = instructions["USER"]
    assert f"useradd --create-home {user}" in instructions["RUN"]
    # A version that the package supports.
    [image] = instructions["FROM"]
    version = re.fullmatch(r"python:(3\.\d+)-slim", image)
    assert version is not None
    assert f"Programming Language :: Python :: {version[1]}" in (ROOT / "pyproject.toml").read_text()


def test_the_services_use_one_database() -> None:
    services = compose()
    url = services["install"]["environment"]["OBAN_DATABASE_URL"]
    assert services["jobs"]["environment"]["OBAN_DATABASE_URL"] == url
    assert "@database/" in url
    assert services["database"]["image"].startswith("postgres:")
    assert services["install"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert "healthcheck" in services["database"]


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


def test_these_tests_use_every_fenced_block_of_the_page() -> None:
    languages = ("python", "ini", "dockerfile", "yaml", "procfile")
    assert sum(len(fenced(PAGE, language)) for language in languages) == len(languages)
    assert (ROOT / PAGE).read_text().count("```") == 2 * len(languages)

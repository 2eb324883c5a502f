"""The distribution is called `oban-sqlalchemy`: `oban` on the package index is another project."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from oban import __version__
from tests.support.processes import ROOT

LICENSE = (ROOT / "LICENSE").read_bytes()


def test_the_wheel_carries_the_name_and_the_license(tmp_path: Path) -> None:
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    assert Path(built).name.startswith(f"oban_sqlalchemy-{__version__}-")
    with zipfile.ZipFile(built) as wheel:
        info = f"oban_sqlalchemy-{__version__}.dist-info"
        assert wheel.read(f"{info}/licenses/LICENSE") == LICENSE
        assert b"\nName: oban-sqlalchemy\n" in wheel.read(f"{info}/METADATA")
        data = {"oban/__init__.py", "oban/prometheus/grafana.json", "oban/prometheus/alerts.yaml"}
        assert data <= set(wheel.namelist())
        for package in ("htmx", "idiomorph", "uPlot"):
            vendored = f"oban/web/static/vendor/{package}.LICENSE"
            assert wheel.read(f"{info}/licenses/{vendored}") == (ROOT / vendored).read_bytes()
        # The dashboard is more than its modules.
        folders = [ROOT / "oban" / "web" / name for name in ("static", "templates", "api")]
        files = [
            file for folder in folders for file in folder.rglob("*.*") if "__pycache__" not in file.parts
        ]
        assert {str(file.relative_to(ROOT)) for file in files} <= set(wheel.namelist())


def test_a_program_can_import_the_installed_package_before_it_runs_pytest(tmp_path: Path) -> None:
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    zipfile.ZipFile(built).extractall(tmp_path / "installed")
    (tmp_path / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "test_nothing.py"]
    code = f"import sys, oban, pytest; print(oban.__file__); sys.exit(pytest.main({arguments}))"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.startswith(str(tmp_path / "installed"))
    assert "1 passed" in run.stdout
    assert "warning" not in run.stdout


def test_the_sdist_has_what_the_package_needs_and_its_docs_only(tmp_path: Path) -> None:
    (built,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(built) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames()}
    assert {name.split("/")[0] for name in names if "/" in name} == {"oban", "migrations", "docs"}
    assert {"docs/guides/dashboard.md", "oban/web/static/vendor/htmx.LICENSE", "pyproject.toml"} <= names


def test_the_sdist_carries_the_license(tmp_path: Path) -> None:
    (built,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(built) as sdist:
        member = sdist.extractfile(f"oban_sqlalchemy-{__version__}/LICENSE")
        assert member is not None
        assert member.read() == LICENSE


def test_no_text_tells_a_reader_to_install_the_other_project() -> None:
    wrong = re.compile(r"pip install [^\n`]*(?<![\w/])oban(?![\w/.-])|(?<![\w/])oban\[[a-z]")
    folders = ("benchmarks", "docs", "examples", "oban", "tests")
    files = list(ROOT.glob("*.*"))
    files += [file for folder in folders for file in (ROOT / folder).rglob("*.*")]
    for file in files:
        if file.suffix in (".py", ".md", ".toml", ".ini") and file != Path(__file__):
            assert not (found := wrong.search(file.read_text())), f"{file}: {found[0]}"

"""A folder with an application in it, for every test of the command line."""

from pathlib import Path

import pytest

from tests.cli.support import WORKERS


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "workers.py").write_text(WORKERS)
    monkeypatch.chdir(tmp_path)
    for name in ("OBAN_DATABASE_URL", "OBAN_LISTEN_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path

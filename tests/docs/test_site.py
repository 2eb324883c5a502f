"""The documentation's site: its navigation, llms.txt and the list of its versions, without a build of it."""

import json
import tomllib
from pathlib import Path

import pytest

from tests.support.processes import ROOT
from tools import site

PROJECT = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]


def test_the_navigation_has_every_page_once() -> None:
    written = {str(path.relative_to(site.DOCS)) for path in site.DOCS.rglob("*.md")} | {site.CHANGES}
    assert sorted(site.pages(PROJECT["nav"])) == sorted(written)


def test_every_page_is_written() -> None:
    short = [str(path) for path in site.DOCS.rglob("*.md") if len(path.read_text()) < 400]
    promised = [str(path) for path in site.DOCS.rglob("*.md") if "not written yet" in path.read_text()]
    assert (short, promised) == ([], [])


def test_llms_txt_lists_every_page_in_reading_order_with_a_description() -> None:
    configured = tomllib.loads(site.configured("https://docs.example.com/", None))["project"]
    assert configured["site_url"] == "https://docs.example.com/"
    assert configured["site_dir"] == "build/site"
    assert "extra" not in configured
    sections = configured["plugins"]["llmstxt"]["sections"]
    entries = [next(iter(entry.items())) for section in sections.values() for entry in section]
    assert [page for page, _ in entries] == list(site.pages(PROJECT["nav"]))
    assert [page for page, description in entries if not description] == []


def test_a_description_is_that_of_the_front_matter_or_the_first_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "DOCS", tmp_path)
    page = "# Title\n\n```python\ncode\n```\n\n| a | b |\n\nA [link](x.md) in\na sentence. Another one.\n"
    (tmp_path / "a.md").write_text(page)
    assert site.description("a.md") == "A link in a sentence."
    (tmp_path / "b.md").write_text(f'---\ndescription: "In short."\n---\n{page}')
    assert site.description("b.md") == "In short."


def test_versions_are_listed_newest_first_and_the_alias_moves(tmp_path: Path) -> None:
    for version in ("0.9", "0.10", "0.10"):
        (tmp_path / version).mkdir(exist_ok=True)
        (tmp_path / version / "index.html").write_text(f"version {version}")
        site.add_version(tmp_path, version, "latest")
    assert json.loads((tmp_path / "versions.json").read_text()) == [
        {"version": "0.10", "title": "0.10", "aliases": ["latest"]},
        {"version": "0.9", "title": "0.9", "aliases": []},
    ]
    assert (tmp_path / "latest" / "index.html").read_text() == "version 0.10"
    assert 'url=latest/"' in (tmp_path / "index.html").read_text()


def test_a_version_has_a_folder_and_the_selector() -> None:
    configured = tomllib.loads(site.configured("https://docs.example.com/", "0.1"))["project"]
    assert configured["site_dir"] == "build/versions/0.1"
    assert configured["extra"]["version"] == {"provider": "mike"}

"""Prepares what `make docs` builds: `python -m tools.site configure`, and then `… versions` for a version.

Only the standard library is used, so that any Python runs it.
"""

import argparse
import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
VERSIONS = "build/versions"
#: The configuration of a build, which is not committed.
BUILT = ROOT / ".zensical.toml"
#: Made from CHANGELOG.md.
CHANGES = "changelog.md"

_FRONT_MATTER = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)
_NO_PROSE = re.compile(r"[#|!<>=]|[-*] |:::|\[[^]]*\]:")
_REDIRECT = """<!doctype html>
<meta charset="utf-8">
<title>Redirecting</title>
<meta http-equiv="refresh" content="0; url={target}">
<a href="{target}">Continue</a>
"""


def pages(entries: list[Any]) -> Iterator[str]:
    """Return the pages of a navigation in reading order."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from pages(value if isinstance(value, list) else [value])


def description(page: str) -> str:
    """Return the `description` of the front matter of a page, its first sentence, or its headings."""
    path = ROOT / "CHANGELOG.md" if page == CHANGES else DOCS / page
    text = path.read_text(encoding="utf-8")
    if front := _FRONT_MATTER.match(text):
        if found := re.search(r"^description: (.+)$", front[1], re.MULTILINE):
            return found[1].strip("\"'")
        text = text[front.end() :]
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))
    headings = ", ".join(re.findall("^## (.+)$", text, re.MULTILINE))
    prose = next((found for found in paragraphs if found and not _NO_PROSE.match(found)), headings)
    prose = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", prose)
    return re.split(r"(?<=[.?!])\s|:$", prose, maxsplit=1)[0]


def configured(url: str, version: str | None) -> str:
    """Return zensical.toml for a build: with its address, and with the pages of llms.txt."""
    text = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    site = tomllib.loads(text)["project"]
    text = re.sub("^site_url = .*$", f"site_url = {json.dumps(url)}", text, flags=re.MULTILINE)
    if version is not None:
        folder = json.dumps(f"{VERSIONS}/{version}")
        text = re.sub("^site_dir = .*$", f"site_dir = {folder}", text, flags=re.MULTILINE)
        # It reads `versions.json`.
        text += '\n[project.extra.version]\nprovider = "mike"\n'
    lines = [text, "[project.plugins.llmstxt.sections]"]
    for entry in site["nav"]:
        ((title, value),) = entry.items()
        listed = [
            f"{{ {json.dumps(page)} = {json.dumps(description(page), ensure_ascii=False)} }}"
            for page in pages(value if isinstance(value, list) else [value])
        ]
        lines.append(f"{json.dumps(title)} = [\n  " + ",\n  ".join(listed) + ",\n]")
    return "\n".join(lines) + "\n"


def order(version: str) -> list[tuple[int, str]]:
    """Return a key that sorts 0.10 behind 0.9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"[.-]", version)]


def add_version(site: Path, version: str, alias: str) -> None:
    """List a version in `versions.json`, in the form of mike, and let `alias` and the root lead to it."""
    listing = site / "versions.json"
    known: list[dict[str, Any]] = json.loads(listing.read_text()) if listing.exists() else []
    known = [entry for entry in known if entry["version"] != version]
    for entry in known:
        entry["aliases"] = [name for name in entry["aliases"] if name != alias]
    known.append({"version": version, "title": version, "aliases": [alias]})
    known.sort(key=lambda entry: order(entry["version"]), reverse=True)
    listing.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")

    # A copy, as not every host of static files follows symbolic links.
    shutil.rmtree(site / alias, ignore_errors=True)
    shutil.copytree(site / version, site / alias)
    (site / "index.html").write_text(_REDIRECT.format(target=f"{alias}/"), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["configure", "versions"])
    parser.add_argument("--url", default="http://localhost:8000/", help="the address of the site")
    parser.add_argument("--version", help="the version that is built")
    parser.add_argument("--alias", default="latest", help="another name of this version")
    arguments = parser.parse_args()
    version: str | None = arguments.version
    if version is not None and not re.fullmatch(r"[\w.-]*\w", version):
        parser.error(f"{version!r} cannot be the name of a folder")
    if arguments.step == "configure":
        BUILT.write_text(configured(arguments.url, version), encoding="utf-8")
    elif version is None:
        parser.error("name the --version")
    else:
        add_version(ROOT / VERSIONS, version, arguments.alias)


if __name__ == "__main__":
    main()

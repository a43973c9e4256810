"""A hook of MkDocs: what pages of the docs link to outside of docs/ gets a page in the site.

Links are written as they work in the repository: relative, to a file. MkDocs knows docs/ alone, so a file
that is linked to from there, however many links away, is put below repository/ in the site: Markdown as a
page, images as they are, folders as lists of their files, anything else as a listing of its text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from posixpath import dirname, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = "docs/"
OUTSIDE = "repository/"
IMAGES = (".png", ".svg")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".sbatch": "bash", ".toml": "toml"}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^ *(```|~~~)")
NO_SEARCH = "---\nsearch:\n  exclude: true\n---\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each path outside of docs/ that can be reached by links."""
    to_read = [f"{DOCS}{file.src_uri}" for file in files.documentation_pages()]
    to_read += [uri.removeprefix(OUTSIDE) for uri in _uris(config.nav) if uri.startswith(OUTSIDE)]
    seen = set(to_read)
    for page in to_read:  # which grows
        if not page.startswith(DOCS):
            files.append(_file(page, config))
        if page.endswith(".md"):
            reached: list[str] = []
            _replace_links((ROOT / page).read_text(encoding="utf-8"), page, reached)
            new = [path for path in reached if path not in seen and not path.startswith(DOCS)]
            seen.update(new)
            to_read += new
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page from the repository's paths to the site's."""
    uri = page.file.src_uri
    source = uri.removeprefix(OUTSIDE) if uri.startswith(OUTSIDE) else f"{DOCS}{uri}"
    if not source.endswith(".md") or not (ROOT / source).is_file():
        return markdown  # a listing
    return _replace_links(markdown, source, [])


def _replace_links(markdown: str, source: str, reached: list[str]) -> str:
    """`markdown` of the file `source` with the site's links; `reached` gets the paths that they lead to."""

    def replace(match: re.Match[str]) -> str:
        path = _path(source, match["target"])
        reached.append(path)
        return relpath(_uri(path), dirname(_uri(source)) or ".") + (match["anchor"] or "")

    return _outside_of_fences(markdown, lambda line: LINK.sub(replace, line))


def _outside_of_fences(markdown: str, change: Callable[[str], str]) -> str:
    lines, inside = [], False
    for line in markdown.splitlines():
        if FENCE.match(line):
            inside = not inside
        lines.append(line if inside or line.startswith("    ") else change(line))
    return "\n".join(lines)


def _path(source: str, target: str) -> str:
    """Where in the repository the link `target` in the file `source` leads; for a folder its README."""
    path = normpath(f"{dirname(source)}/{target}" if dirname(source) else target)
    readme = f"{path}/README.md"
    return readme if (ROOT / readme).is_file() else path


def _uri(path: str) -> str:
    """The source of the page of the repository's `path`, as MkDocs names it."""
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    if (ROOT / path).is_dir():
        return f"{OUTSIDE}{path}/index.md"
    return f"{OUTSIDE}{path}" if path.endswith((".md", *IMAGES)) else f"{OUTSIDE}{path}.md"


def _file(path: str, config: MkDocsConfig) -> File:
    source = ROOT / path
    if path.endswith(IMAGES):
        return File.generated(config, _uri(path), abs_src_path=str(source))
    if source.is_dir():
        return File.generated(config, _uri(path), content=_listing_of_folder(source, path))
    text = source.read_text(encoding="utf-8")
    if not path.endswith(".md"):
        fence = "~" * 12
        language = LANGUAGES.get(source.suffix, "text")
        text = f"{NO_SEARCH}# {path}\n\n{fence} {{ .{language} linenums=1 }}\n{text}\n{fence}\n"
    return File.generated(config, _uri(path), content=text)


def _listing_of_folder(folder: Path, path: str) -> str:
    """The files of a folder without a README, each with the first line of what it says of itself."""
    lines = [f"{NO_SEARCH}# {path}\n"]
    for file in sorted(folder.glob("*.*")):
        said = (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "") if file.suffix == ".py" else ""
        if file.is_file() and file.name != "__init__.py":
            lines.append(f"- `{file.name}`" + (f": {said.splitlines()[0]}" if said else ""))
    return "\n".join(lines)


def _uris(nav: object) -> list[str]:
    """All files that `nav` names."""
    if isinstance(nav, str):
        return [nav]
    items = nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ()
    return [uri for item in items for uri in _uris(item)]

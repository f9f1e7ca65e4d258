"""What MkDocs does besides rendering the pages in this folder.

The docs are written to be read in the repository: they link to the README, the configuration and
the source. Pages keep their places there as seen from each other, so these links work on the site.
"""

import itertools
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
HOME, CONTENTS = "README.md", "docs/README.md"
IMAGES = (".jpg", ".png", ".svg")
# Languages for highlighting, by the end of the name.
LANGUAGES = {"py": "python", "smk": "python", "Snakefile": "python", "Dockerfile": "docker"}
LANGUAGES |= {"yaml": "yaml", "yml": "yaml", "cff": "yaml", "toml": "toml"}

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
GRAPH = re.compile(r"^```mermaid\n.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
PANDAS = re.compile(r'<style.*?</style>| border="1" class="dataframe"', re.DOTALL)
BADGE = re.compile(r"\[!\[(.+?)\]\(.+?\)\]")


class RepositoryFile(File):
    """A file on the site, named by its path in the repository."""

    def __init__(self, path: str, config: MkDocsConfig) -> None:
        super().__init__(path, str(ROOT), config.site_dir, config.use_directory_urls)
        place = path if path == CONTENTS else path.removeprefix("docs/")
        folder, name = posixpath.split(place)
        if path.endswith(".md"):
            name = f"{name.removesuffix('.md')}/index.html".removeprefix("README/")
        elif self.is_documentation_page():
            name = f"{name}/index.html"
        self.dest_uri = posixpath.join(folder, name)

    def is_documentation_page(self) -> bool:
        """Tell whether it is shown as a page; all but images are."""
        return not self.src_uri.endswith(IMAGES)


def on_config(config: MkDocsConfig) -> None:
    """Write the version into the name of the site, and build the navigation."""
    changes = (ROOT / "CHANGELOG.md").read_text()
    config.site_name += " " + re.search(r"^## (.+)$", changes, re.MULTILINE)[1]
    config.nav = [{"Home": [HOME, {"All pages": CONTENTS}]}, *_sections()]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return README.md, the pages in docs, and whatever they link to."""
    found = {}
    waiting = [HOME, *(f"docs/{file.src_uri}" for file in files if file.src_uri.endswith(".md"))]
    while waiting:
        path = waiting.pop()
        if path not in found and (ROOT / path).is_file():
            found[path] = RepositoryFile(path, config)
            waiting += _links(path)
    theme = [file for file in files if file.src_dir != config.docs_dir]
    return Files([*theme, *found.values()])


def on_page_read_source(page: Page, config: MkDocsConfig) -> str | None:
    """Return the Markdown of files that are not Markdown."""
    path = Path(page.file.src_uri)
    if path.suffix == ".md":
        return None
    text = (ROOT / path).read_text()
    if path.suffix == ".ipynb":
        return "\n\n".join(_notebook(json.loads(text)["cells"]))
    head = f"---\ntitle: {path}\nsearch: {{exclude: true}}\nhide: [toc]\n---\n\n# {path.name}\n\n"
    language = LANGUAGES.get(path.name.rpartition(".")[2], "text")
    return f"{head}{_fenced(text, language)}"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace what would be loaded from other sites, and name the repository, where it is known."""
    markdown = BADGE.sub(r"[\1]", GRAPH.sub(_table_of_graph, markdown))
    if not config.repo_url:
        return markdown
    return markdown.replace("OWNER/denoiseg-flow", urlsplit(config.repo_url).path.strip("/"))


def _sections() -> list[dict[str, list[dict[str, str]]]]:
    """Return the headings of the table of contents with the pages listed below each."""
    sections = []
    for part in (ROOT / CONTENTS).read_text().split("\n## ")[1:]:
        pages = re.findall(r"^- \[(.+?)\]\((\S+?)\)", part, re.MULTILINE)
        heading = part.partition("\n")[0].partition(":")[0]
        sections.append({heading: [{title: _resolve(CONTENTS, link)} for title, link in pages]})
    return sections


def _links(path: str) -> list[str]:
    """Return the files that a page links to, as paths in the repository."""
    if not path.endswith(".md"):
        return []
    links = LINK.findall(FENCE.sub("", (ROOT / path).read_text()))
    return [_resolve(path, link) for link in links if not urlsplit(link).scheme]


def _resolve(path: str, link: str) -> str:
    """Return the path in the repository that a link of a page leads to."""
    file = link.partition("#")[0]
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), file)) if file else path


def _table_of_graph(graph: re.Match[str]) -> str:
    """Return the arrows of a graph as a table: only a script from another site could draw it."""
    labels = dict(re.findall(r"(\w+)\[\"?(.+?)\"?\]", graph[1]))
    targets: dict[str, list[str]] = {}
    for line in graph[1].splitlines():
        names = re.split(r" --.*?> ", re.sub(r"\[.+?\]", "", line.strip()))
        for start, end in itertools.pairwise(labels.get(name, name) for name in names):
            targets.setdefault(start, []).append(end)
    rows = [f"| {start} | {', '.join(ends)} |" for start, ends in targets.items()]
    return "\n".join(["| from | to |", "|---|---|", *rows, ""])


def _notebook(cells: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the cells of a notebook, and their outputs, as Markdown."""
    for cell in cells:
        text = "".join(cell["source"])
        yield text if cell["cell_type"] == "markdown" else _fenced(text, "python")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/jpeg" in data:
                yield f"![](data:image/jpeg;base64,{''.join(data['image/jpeg']).strip()})"
            elif "text/html" in data:
                yield PANDAS.sub("", "".join(data["text/html"]))
            else:
                yield _fenced("".join(output.get("text", data.get("text/plain", ""))), "text")


def _fenced(text: str, language: str) -> str:
    return f"~~~~~~{language}\n{text.rstrip()}\n~~~~~~"

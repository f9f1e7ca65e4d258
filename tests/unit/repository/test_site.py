"""The site of the docs, built as it is published."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from denoiseg_flow import __version__

HOST = "https://docs.example/"
REPOSITORY = "https://github.example/somebody/a-fork"


class Page(HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded = {""}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values["rel"] in ("stylesheet", "icon"):
            self.loaded.append(values["href"])
        elif "src" in values:
            self.loaded.append(values["src"])


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    """The folder of the site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"SITE_URL": HOST, "REPOSITORY_URL": REPOSITORY}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """The pages by their addresses."""
    return {
        urljoin(HOST, str(path.relative_to(site)).removesuffix("index.html")): Page(
            path.read_text()
        )
        for path in site.rglob("*.html")
    }


def test_every_page_of_the_docs_is_there(root, pages):
    for path in [*root.glob("docs/*/*.md"), *root.glob("docs/*/*.ipynb")]:
        name = path.relative_to(root / "docs").with_suffix("")
        assert {f"{HOST}{name}/", f"{HOST}{name}.ipynb/"} & set(pages)
    assert {HOST, f"{HOST}config/", f"{HOST}benchmarks/"} < set(pages)


def test_every_link_within_the_site_leads_somewhere(site, pages):
    for address, page in pages.items():
        for link in map(urljoin, [address] * len(page.links), page.links):
            target, _, anchor = link.partition("#")
            if target in pages:
                assert unquote(anchor) in pages[target].anchors, f"{address}: {link}"
            elif target.startswith(HOST):
                assert (site / target.removeprefix(HOST)).is_file(), f"{address}: {link}"


def test_nothing_is_loaded_from_other_sites(site, pages):
    for address, page in pages.items():
        for link in map(urljoin, [address] * len(page.loaded), page.loaded):
            assert urlsplit(link).scheme == "data" or link.startswith(HOST), f"{address}: {link}"
            if link.startswith(HOST):
                assert (site / urlsplit(link).path.lstrip("/")).is_file(), f"{address}: {link}"
    for path in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", path.read_text())


def test_the_docs_can_be_searched_and_the_source_is_not(site):
    entries = json.loads((site / "search/search_index.json").read_text())["docs"]
    places = {entry["location"].partition("#")[0] for entry in entries}
    assert {"", "config/", "explanation/performance/", "reference/command_line/"} < places
    assert not [place for place in places if place.startswith(("src/", "workflow/"))]


def test_every_page_shows_the_version(site):
    title = f"DenoiSeg-Flow {__version__}"
    assert all(title in path.read_text() for path in site.rglob("*.html"))


def test_what_leaves_the_repository_open_names_the_one_that_publishes(site):
    for path in site.rglob("*.html"):
        assert "OWNER/denoiseg-flow" not in path.read_text(), path
    notebook = (site / "tutorials/own_images.ipynb/index.html").read_text()
    file = "somebody/a-fork/blob/main/docs/tutorials/own_images.ipynb"
    assert f'href="https://colab.research.google.com/github/{file}"' in notebook


def test_graphs_are_tables(site):
    page = (site / "reference/rules/index.html").read_text()
    assert re.search(r"<td>prepare</td>\s*<td>split, add_noise</td>", page)
    assert re.search(r"<td>your folders</td>\s*<td>prepare</td>", page)

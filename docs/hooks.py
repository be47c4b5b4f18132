"""What the site takes from outside of this folder: the README as its first page, and all that pages link to.

Links lead to the same files whether pages are read in the repository or on the site, where the repository's folders
stand beside the pages: `../examples/ray_score.py` becomes `examples/ray_score.py`.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the README, and the files outside that pages link to, directly or by one another."""
    to_read = [(page.src_uri, page.content_string, "docs") for page in files.documentation_pages()]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=_moved(readme, "")))
    to_read.append(("README.md", readme, ""))
    while to_read:
        _, text, folder = to_read.pop()
        for link in LINK.findall(text):
            target = posixpath.normpath(posixpath.join(folder, link))
            path = ROOT / target
            if (
                target.startswith("docs/")
                or target == "README.md"
                or not path.is_file()
                or files.get_file_from_path(target)
            ):
                continue
            if path.suffix != ".md":
                files.append(File.generated(config, target, abs_src_path=str(path)))
                continue
            content = path.read_text(encoding="utf-8")
            files.append(File.generated(config, target, content=_moved(content, posixpath.dirname(target))))
            to_read.append((target, content, posixpath.dirname(target)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Puts the links of this folder's own pages right."""
    uri = page.file.src_uri
    return markdown if page.file.generated_by else _moved(markdown, posixpath.join("docs", posixpath.dirname(uri)))


def _moved(text: str, folder: str) -> str:
    """A file of a folder of the repository, with links as they are on the site, where docs/ is the root."""

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, found[1]))
        on_site = "index.md" if target == "README.md" else target.removeprefix("docs/")
        return posixpath.relpath(on_site, folder.removeprefix("docs").lstrip("/") or ".")

    return LINK.sub(link, text)

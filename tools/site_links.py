"""A hook of mkdocs: links from pages to files of the repository that are no pages, such as `../../CHANGELOG.md`.

On a code host they lead to the file; the site does not have it, so there they become its path. A link to a file that is
not there stays as it is, and mkdocs calls it dead.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"\[(?P<text>[^\]\n]+)\]\((?P<target>(?:\.\./)+[^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:  # noqa: ANN401 - mkdocs has no types
    """The page with such links replaced."""
    pages = Path(config["docs_dir"]).resolve()
    folder = (pages / page.file.src_uri).parent

    def replaced(found: re.Match[str]) -> str:
        target = (folder / found["target"]).resolve()
        if target.is_relative_to(pages) or not target.is_relative_to(pages.parent) or not target.exists():
            return found[0]
        path = f"`{target.relative_to(pages.parent)}`"
        return path if found["text"].strip("`") in path else f"{found['text']} ({path})"

    return LINK.sub(replaced, markdown)

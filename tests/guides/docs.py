"""Build the API reference and the guides as web pages: python -m tests.guides.docs FOLDER"""

import re
import shutil
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pdoc

import bnengine
from tests.support import ROOT

GUIDES = ROOT / "examples" / "guides"
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(#[^)]*)?\)")
STYLE = "<style>img { max-width: 100%; }</style>"
START = """<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=./guides.html">"""


def build(folder: Path) -> None:
    """Write index.html, guides.html and a page for each guide and each public module."""
    for name in ("bench", "explain", "inspect", "report", "verify"):  # pdoc reads vars(bnengine), which lacks them
        setattr(bnengine, name, getattr(bnengine, name))
    pages = {"guides": page("guides", ROOT / "README.md", "[API reference](./bnengine.html)\n\n")}
    pages |= {f"guides.{path.stem}": page(f"guides.{path.stem}", path) for path in sorted(GUIDES.glob("*.md"))}
    names = pdoc.extract.walk_specs(["bnengine"])
    pages |= {name: pdoc.doc.Module(import_module(name)) for name in names}
    pdoc.render.configure(docformat="google", footer_text=f"bnengine {bnengine.__version__}")
    for name, module in pages.items():
        file = folder / f"{name.replace('.', '/')}.html"
        file.parent.mkdir(parents=True, exist_ok=True)
        text = pdoc.render.html_module(module, pages).replace("</head>", f"{STYLE}</head>", 1)
        file.write_text(text, encoding="utf-8")
    for picture in GUIDES.glob("*.png"):
        shutil.copy(picture, folder / "guides")
    (folder / "index.html").write_text(START, encoding="utf-8")
    (folder / "search.js").write_text(pdoc.render.search_index(pages), encoding="utf-8")


def page(name: str, path: Path, above: str = "") -> pdoc.doc.Module:
    """A Markdown file as the docstring of a module, since pdoc renders modules."""
    text = LINK.sub(lambda link: linked(link, path), path.read_text(encoding="utf-8"))
    return pdoc.doc.Module(ModuleType(name, above + text))


def linked(link: re.Match[str], path: Path) -> str:
    """Point a link at the guide's page or picture in the folder, or else at the file in the checkout."""
    target, anchor = (path.parent / link[1]).resolve(), link[2] or ""
    if target.parent != GUIDES:
        return f"]({target.as_uri()}{anchor})"
    up = "" if path.parent == GUIDES else "guides/"
    return f"]({up}{target.name.replace('.md', '.html')}{anchor})"


if __name__ == "__main__":
    build(Path(sys.argv[1]))

"""The code of the README and of every guide runs, and prints what they show."""

import contextlib
import doctest
import io
import re
import shlex
from pathlib import Path

import pytest

from bnengine.cli import main
from tests.support import ROOT

GUIDES = ROOT / "examples" / "guides"
CHANGES_THE_CODE = "change_the_maths.md"  # test_change_the_maths runs it on a copy of the package
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXIT_CODE = re.compile(r"# exit code (\d+)$")
PAGES = [ROOT / "README.md", *sorted(GUIDES.glob("*.md"))]
LINKING = [*PAGES, *ROOT.glob("C*.md"), ROOT / "kernels" / "README.md"]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run_python(text: str, names: dict[str, object], page: str) -> str:
    """Execute a block after those before it on the same page; return what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(text, page, "exec"), names)
    return printed.getvalue()


def run_command(line: str) -> str:
    """Run a line of a shell block, `bnengine ...`, which succeeds unless it ends in "# exit code N"."""
    program, *words = shlex.split(line, comments=True)
    assert program == "bnengine", f"{line}: blocks of other programs are ```console"
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as ended:
        main(words)
    named = EXIT_CODE.search(line)
    assert (ended.value.code or 0) == (int(named[1]) if named else 0), f"{line}\n{printed.getvalue()}"
    return printed.getvalue()


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != CHANGES_THE_CODE], ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_and_prints_what_it_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks: ```python and ```sh run, ```text is what the block before it prints, ```console does not run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BNENGINE_BACKEND", "numpy")
    monkeypatch.setenv("COLUMNS", "100")
    names: dict[str, object] = {"__name__": page.stem}
    printed = ""
    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            printed = run_python(text, names, page.name)
        elif language == "sh":
            printed = "".join(run_command(line) for line in text.splitlines())
        elif language == "text":
            matches = doctest.OutputChecker().check_output(text, printed, FLAGS)
            assert matches, f"{page.name} shows\n{text}\nand its code prints\n{printed}"
        else:
            assert language == "console", f"{page.name}: ```{language} is neither python, sh, text nor console"


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not [t for t in targets if "://" not in t and not (page.parent / t).exists()]


def test_the_readme_links_every_guide() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [path.name for path in GUIDES.glob("*.md") if f"(examples/guides/{path.name})" not in text]


def test_the_readme_is_short_and_trains_a_network_in_fifteen_lines() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 900
    (snippet,) = (block for language, block in FENCE.findall(text) if language == "python")
    assert len(snippet.strip().splitlines()) <= 15

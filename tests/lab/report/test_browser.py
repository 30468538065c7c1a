"""Reports opened in a real browser; and that it would have seen what can be wrong with a page."""

from pathlib import Path

import pytest

from bnengine.lab.explain import Setting, claim_of, examine
from bnengine.lab.report import Mark, Page, claims_report, write
from tests.lab.report.browser import browser, check, opened

LONG = "W" * 300


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page of names that are long and full of markup, with a picture and a wide table."""
    from bnengine.lab.explain.drawing import named_curve, new_figure, panels, png

    figure = new_figure()
    (panel,) = panels(figure, ["<b>a title</b>"])
    named_curve(panel, [0, 1], [0, 1], "a curve", "#0072B2")
    page = Page(LONG, f"<script>broken(</script> {LONG}")
    page.section(LONG, "one", Mark("does not hold", "no"))
    page.paragraph(LONG, LONG)
    page.picture(png(figure), '" onerror="broken()"')
    page.table("wide", [LONG] * 5, [[LONG] * 5], numbers=(1,))
    page.table("cards", ["a", "b", "c"], [[LONG, "1", LONG]], numbers=(1,), cards=True)
    path = tmp_path / "index.html"
    path.write_text(page.html(), encoding="utf-8")
    return path


def test_a_page_bears_any_name_at_every_width(page: Path, tmp_path: Path) -> None:
    check(page, tmp_path, pictures=1)


def test_the_report_of_a_claim_has_nothing_wrong(tmp_path: Path) -> None:
    browser()
    setting = Setting(backend="numpy", seeds=2)
    write("test", tmp_path / "report", claims_report([examine(claim_of("shift"), setting)], setting))
    check(tmp_path / "report" / "index.html", tmp_path, pictures=1)


def test_the_browser_sees_what_is_missing(page: Path, tmp_path: Path) -> None:
    text = page.read_text().replace("data:image/png;base64,", "gone.png?", 1)
    wrong = """<main><a href="#nowhere">there</a><img src='data:,' alt=''>"""
    page.write_text(text.replace("<main>", wrong, 1))
    found = opened(page, 390, dark=False, folder=tmp_path).found[390]
    assert found["missing"] == ["", '" onerror="broken()"']
    assert found["lost"] == ["#nowhere"]
    assert found["untold"] == 1


def test_the_browser_sees_an_error_too_much_width_and_too_little_contrast(page: Path, tmp_path: Path) -> None:
    wrong = "<main><script>nothing.there</script><p style='width: 500px; color: #999999'>pale</p>"
    page.write_text(page.read_text().replace("<main>", wrong, 1))
    looks, errors = opened(page, 390, dark=False, folder=tmp_path)
    found = looks[390]
    assert any("nothing is not defined" in line for line in errors)
    assert found["content"] > found["width"] == 390
    assert found["contrast"] < 4.5

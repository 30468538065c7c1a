"""A page opened in a real browser without a window, and what it then looks like."""

import json
import shutil
import subprocess
from html import unescape
from pathlib import Path
from re import DOTALL, findall
from typing import Any, NamedTuple

from tests.support import missing

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# Runs in a copy of the page, when all of it is there. Contrast as WCAG 2 defines it: 4.5 is what text needs.
SCRIPT = """
<script id="looks">
addEventListener("load", () => {
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const color = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const found = color(getComputedStyle(node).backgroundColor);
      if (found.length === 3) return found;
    }
    return [255, 255, 255];
  };
  const contrast = (node) => {
    const both = [light(color(getComputedStyle(node).color).slice(0, 3)), light(ground(node))].sort((a, b) => b - a);
    return (both[0] + 0.05) / (both[1] + 0.05);
  };
  const images = [...document.images];
  const found = {
    width: innerWidth, content: document.documentElement.scrollWidth, images: images.length,
    missing: images.filter((i) => !(i.complete && i.naturalWidth && i.clientWidth > 100)).map((i) => i.alt),
    untold: images.filter((i) => !i.alt).length,
    lost: [...document.querySelectorAll('a[href^="#"]')].map((a) => a.hash).filter((h) => !document.querySelector(h)),
    contrast: Math.min(...[...document.querySelectorAll("h1, h2, p, a, td, th, .mark, footer")].map(contrast)),
    ground: light(ground(document.body)), cards: [...document.querySelectorAll("figure")].map((f) => light(ground(f))),
  };
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""
# A window is at least 500 pixels wide; a frame in it is as wide as a phone, to its media queries too. One start of the
# browser, which takes a second, is enough for all widths.
WINDOW = """<!DOCTYPE html>
<html style="color-scheme: light dark"><link rel="icon" href="data:,"><pre id="found"></pre>
<script>addEventListener("message", (sent) => { document.getElementById("found").append(sent.data, "\\n"); });</script>
FRAMES</html>
"""


class Looks(NamedTuple):
    """What the browser found: the script's figures by the page's width, and the errors it wrote of the page."""

    found: dict[int, dict[str, Any]]
    errors: list[str]


def browser() -> str:
    """Chromium, or the test is skipped, or fails where BNENGINE_REQUIRE names chromium."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    return missing("chromium", f"no browser was found ({', '.join(NAMES)}); on Debian: apt-get install chromium")


def opened(page: Path, *widths: int, dark: bool, folder: Path) -> Looks:
    """Open a copy of the page, in frames of these widths, and return what the script finds."""
    copy = folder / f"copy-{dark}.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</head>", SCRIPT + "</head>"), encoding="utf-8")
    frames = [f'<iframe src="{copy.name}" width="{width}" height="900" style="border: 0"></iframe>' for width in widths]
    window = folder / f"window-{dark}.html"
    window.write_text(WINDOW.replace("FRAMES", "\n".join(frames)), encoding="utf-8")
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--no-first-run", f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", *scheme,
        "--window-size=1400,1000", "--virtual-time-budget=10000", "--dump-dom", window.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (found,) = findall(r'<pre id="found">(.*?)</pre>', done.stdout, DOTALL)
    looks = {figures["width"]: figures for figures in map(json.loads, unescape(found).splitlines())}
    assert sorted(looks) == sorted(widths), done.stdout
    return Looks(looks, [line for line in done.stderr.splitlines() if "CONSOLE" in line])


def check(page: Path, folder: Path, pictures: int) -> None:
    """The page has nothing wrong at 390 and 1,280 pixels, light and dark."""
    for dark in (False, True):
        looks, errors = opened(page, 390, 1280, dark=dark, folder=folder)
        assert not errors
        for width, found in looks.items():
            assert found["content"] == width, "the page is wider than the window"
            assert found["images"] == pictures
            assert found["missing"] == []
            assert found["untold"] == 0
            assert found["lost"] == []
            assert found["contrast"] >= 4.5
            assert found["ground"] < 0.02 if dark else found["ground"] > 0.98
            assert found["cards"] == [1.0] * pictures

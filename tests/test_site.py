"""The site in a browser: no table, no code block and no page scrolls sideways."""

import html
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
WIDTH = 1280  # of the window, in pixels
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]

MEASURE = r"""<!doctype html>
<body>
<pre id="wide">not measured</pre>
<script>
// the boxes of a document that are narrower than what is in them, and by how many pixels
function wide(page) {
  const article = page.querySelector("article");
  const boxes = [...article.querySelectorAll("*")];
  for (let box = article; box; box = box.parentElement) boxes.push(box);
  const scrolls = (box) => box === page.documentElement
    || page.defaultView.getComputedStyle(box).overflowX !== "visible";
  return boxes
    .filter((box) => scrolls(box) && box.clientWidth && box.scrollWidth > box.clientWidth)
    .map((box) => `${box.tagName} ${box.className}, ${box.scrollWidth - box.clientWidth} pixels: `
                  + box.textContent.trim().replace(/\s+/g, " ").slice(0, 60));
}
// every page of the site in a frame of its own, all of them loaded before they are measured
for (const address of PAGES) {
  const frame = document.createElement("iframe");
  frame.src = address;
  frame.width = WIDTH;
  frame.height = 900;
  document.body.append(frame);
}
window.onload = () => setTimeout(() => {
  const frames = [...document.querySelectorAll("iframe")];
  const found = frames.map((frame) => [frame.getAttribute("src"), wide(frame.contentDocument)]);
  document.getElementById("wide").textContent = JSON.stringify(found);
}, 1000);
</script>
"""
"""A page that measures others. Chromium prints it when its script is through."""


def too_wide(site: Path, profile: Path) -> dict[str, list[str]]:
    """The boxes of each page of a built site that scroll sideways in a window of 1280 pixels."""
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    script = MEASURE.replace("PAGES", json.dumps(pages)).replace("WIDTH", str(WIDTH))
    (site / "measure.html").write_text(script)
    handler = partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/measure.html"
        # virtual time stands still while a page is fetched, so a slow machine measures the same
        options = [f"--user-data-dir={profile}", "--virtual-time-budget=60000", "--dump-dom"]
        command = [BROWSER, *FLAGS, *options, address]
        printed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        server.shutdown()
    measured = re.search(r'<pre id="wide">(.*?)</pre>', printed.stdout, re.DOTALL)
    assert measured, printed.stdout + printed.stderr
    return dict(json.loads(html.unescape(measured[1])))


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files that prints nothing."""

    def log_message(self, *_) -> None:
        """Nothing."""


needs_browser = pytest.mark.skipif(not BROWSER, reason="no Chromium on the path")


@pytest.mark.slow
@needs_browser
def test_no_page_scrolls_sideways(tmp_path: Path) -> None:
    """A reader would have to scroll a table or a command to see its end. Needs the extra docs."""
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(site)]
    subprocess.run(command, check=True, cwd=ROOT)
    boxes = too_wide(site, tmp_path / "profile")
    assert len(boxes) > 20
    scrolling = [f"{page}: {box}" for page, found in boxes.items() for box in found]
    assert not scrolling, "\n".join(scrolling)


@pytest.mark.slow
@needs_browser
def test_a_wide_table_is_seen(tmp_path: Path) -> None:
    """The test above would pass because it measures nothing."""
    site = tmp_path / "site"
    site.mkdir()
    row = "<td>wide</td>" * 100
    table = f'<div class="scroll" style="overflow: auto"><table><tr>{row}</tr></table></div>'
    for name, body in {"narrow": "<p>short</p>", "wide": table}.items():
        (site / f"{name}.html").write_text(f"<!doctype html><article>{body}</article>")
    boxes = too_wide(site, tmp_path / "profile")
    assert boxes["narrow.html"] == []
    assert [box.split(",")[0] for box in boxes["wide.html"]] == ["DIV scroll"]

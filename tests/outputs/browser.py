"""What a page is made of, and what a browser makes of it."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
VOID = {"meta", "img", "input", "br", "link", "base", "hr"}
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--virtual-time-budget=3000", "--window-size=1200,1600"),
    *("--hide-scrollbars", "--dump-dom"),
)


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.console: list[str] = []
        self.source, self.text = text, ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"
        self.text += " "

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        """Attributes of the elements of a name, with these values (`data_region`: data-region)."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        found = (own for name, own in self.elements if name == tag)
        return [own for own in found if all(own.get(key) == wanted[key] for key in wanted)]

    @property
    def words(self) -> str:
        """The text with single spaces."""
        return " ".join(self.text.split())

    def tells(self, *texts: str) -> None:
        assert [text for text in texts if text not in self.words] == []

    def keeps_back(self, *texts: str) -> None:
        assert [text for text in texts if text in self.words] == []

    def inside(self, tag: str) -> list[str]:
        """What stands between the tags of a name, as it is written."""
        return re.findall(f"<{tag}[^>]*>(.*?)</{tag}>", self.source, re.DOTALL)

    @property
    def policy(self) -> dict[str, str]:
        """Directive of the Content-Security-Policy -> its sources."""
        (meta,) = self.all("meta", http_equiv="Content-Security-Policy")
        directives = (directive.strip().partition(" ") for directive in meta["content"].split(";"))
        return {name: sources for name, _, sources in directives}

    def check_stands_alone(self, pictures: tuple[str, ...] = ("data:image/png;base64,",)) -> None:
        """Fail if the page loads, or names as a place on the net, anything; or runs what its policy
        does not name."""
        for tag, own in self.elements:
            assert tag not in ("link", "iframe", "object", "embed", "base"), tag
            assert "style" not in own and not any(name.startswith("on") for name in own), own
            link = own.get("href") if tag in ("image", "use") else None
            address = own.get("src") or link
            assert address is None or address.startswith(("#", *pictures)), address
        assert not re.search(r"""https?:|["'(=]//|url\((?!#)|@import""", self.source)
        nothing = [self.policy[kind] for kind in ("default-src", "base-uri", "form-action")]
        assert nothing == ["'none'"] * 3
        for tag in ("style", "script"):
            digests = (hashlib.sha256(text.encode()).digest() for text in self.inside(tag))
            hashes = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
            assert self.policy[f"{tag}-src"] == (" ".join(hashes) or "'none'")


def checked(html: str, *pictures: tuple[str, ...]) -> Page:
    """A page of a scan or of a run, of which all holds that holds of every such page."""
    page = Page(html)
    page.check_stands_alone(*pictures)
    assert not page.open and "Research use only" in page.words
    ids = [own["id"] for _, own in page.elements if own.get("id")]
    assert len(ids) == len(set(ids))
    return page


def open_page(html: str, folder: Path, fragment: str = "", screenshot: Path | None = None) -> Page:
    """Write a page and open it in headless Chromium, as a user would by a double click: the page
    after its scripts ran, with what was complained of as its `console`."""
    path, profile = folder / "page.html", folder / "chromium-profile"
    path.write_text(html, "utf-8")
    options = [*OPTIONS, *([f"--screenshot={screenshot}"] if screenshot else [])]
    command = [CHROMIUM, *options, f"--user-data-dir={profile}", f"{path.as_uri()}{fragment}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=180)
    shutil.rmtree(profile, ignore_errors=True)
    page = Page(done.stdout)
    page.console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return page


def with_script(html: str, script: str) -> str:
    """The page with a script that plays its user, which the policy would forbid."""
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    return free.replace("</body>", f"<script>{script}</script></body>")


def play(html: str, script: str, folder: Path):
    """Open a page with a script, without a complaint; gives what it noted, in JSON, as data of the
    body."""
    page = open_page(with_script(html, script), folder)
    assert page.console == []
    return json.loads(page.all("body")[0]["data-noted"])

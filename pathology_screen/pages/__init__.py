"""Pages that stand alone: HTML with its style and script inside, which fetches nothing."""

import base64
import hashlib
import math
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

FOLDER = Path(__file__).parent
HASH = re.compile(r"(|.*:)([0-9a-f]{32,})")


def number(value: float | None, digits: int = 3) -> str:
    """The number with so many significant digits; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:#.{digits}g}".removesuffix(".").replace("-", "−")


def short_hash(text: str) -> str:
    """The text with 12 digits of the hash that it ends in; empty if it does not."""
    found = HASH.fullmatch(text)
    return f"{found[1]}{found[2][:12]}…" if found else ""


def data_uri(png: bytes) -> str:
    """A picture as an address that a page may hold."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def render(page: str, /, *, images: str = "data:", **values: Any) -> str:
    """Fill the template `NAME.html`, which extends `page.html`, with `page.css`, and its own
    `NAME.css` and `NAME.js`.

    Every value is escaped. A Content-Security-Policy forbids the page to load anything but `images`
    and to run any other script or style than these files, by their hashes. Raises
    jinja2.UndefinedError if a value that the template names is missing.
    """
    style, allowed_style = _inline("page.css", f"{page}.css")
    script, allowed_script = _inline(f"{page}.js")
    policy = "default-src 'none'; base-uri 'none'; form-action 'none'; "
    policy += f"img-src {images}; style-src {allowed_style}; script-src {allowed_script}"
    template = _TEMPLATES.get_template(f"{page}.html")
    return template.render(policy=policy, style=style, script=script, **values)


def _inline(*names: str) -> tuple[Markup, str]:
    """The text of those of the files that are there, and how a policy allows it."""
    files = (FOLDER / name for name in names)
    text = "".join(file.read_text("utf-8") for file in files if file.is_file())
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(text), f"'sha256-{digest}'" if text else "'none'"


_TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"number": number, "short_hash": short_hash}

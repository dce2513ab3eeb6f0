"""The page over a run."""

import math
import re

import pytest
from matplotlib.image import imsave
from outputs.browser import Page, needs_chromium, open_page, with_script

from pathology_screen.outputs.index_page import index_html, save_index

EVIL = "<script>document.title = 'it ran'</script>&\"'"
NOTHING = dict.fromkeys(
    ("score", "percentile", "p_value", "regions", "largest_area_mm2", "code", "reason", "warnings")
)
NOTHING |= {"report": None, "panel": None}


def row(name, outcome="normal", **values):
    return {"name": name, "outcome": outcome, **NOTHING, **values}


@pytest.fixture
def rows():
    scored = {
        "percentile": 100.0,
        "p_value": 1 / 21,
        "regions": 3,
        "largest_area_mm2": 204.4,
        "warnings": "a;b",
    }
    reason = "[missing_slice] the slices are not evenly spaced: 10.4 mm"
    return [
        row(
            "one",
            "suspicious",
            score=0.16,
            report="sub-one/r.html",
            panel="sub-one/p.png",
            **scored,
        ),
        row("two", "suspicious", score=0.05, **scored),
        row(
            "three",
            score=0.02,
            **scored | {"percentile": 12.5, "regions": 0, "largest_area_mm2": math.nan},
        ),
        row("four", "not_assessable", code="missing_slice", reason=reason, score=math.nan),
    ]


def read(rows) -> Page:
    page = Page(index_html(rows))
    page.check_stands_alone(("sub-",))
    assert not page.open and "Research use only" in page.words
    return page


def cells(page, name) -> list[str]:
    """The texts of a scan's row."""
    line = next(line for line in page.inside("tr") if re.search(rf">\s*{name}\b", line))
    return [
        " ".join(re.sub("<[^>]*>", " ", cell).split())
        for cell in re.findall(r"<t[dh].*?</t[dh]>", line, re.DOTALL)
    ]


def test_rows_keep_their_order_and_numbers(rows):
    page = read(rows)
    found = [
        attributes["data-outcome"] for attributes in page.all("tr") if "data-outcome" in attributes
    ]
    assert found == [row["outcome"] for row in rows]
    assert cells(page, "one")[1:] == [
        "one Warnings: a, b",
        "▲ Suspicious",
        "0.160",
        "100",
        "0.048",
        "3",
        "204",
    ]
    assert cells(page, "three")[1:] == [
        "three Warnings: a, b",
        "● Normal",
        "0.0200",
        "12.5",
        "0.048",
        "0",
        "–",
    ]
    told = "missing_slice the slices are not evenly spaced: 10.4 mm"
    assert cells(page, "four")[1:] == ["four", "✕ Not assessable", told]


def test_counts_add_up(rows):
    buttons = [
        " ".join(re.sub("<[^>]*>", " ", text).split()) for text in read(rows).inside("button")
    ]
    assert buttons == ["4 scans", "2 ▲ suspicious", "1 ● normal", "1 ✕ not assessable"]


def test_the_histogram_counts_the_scored(rows):
    page = read(rows)
    assert "3 scored scans by outcome" in page.words
    assert (
        len(page.all("rect", class_="suspicious")) == 2
        and len(page.all("rect", class_="normal")) == 1
    )
    assert "Scores of the run" not in read(rows[3:]).words


def test_links_are_relative_and_pictures_lazy(rows):
    page = read(rows)
    assert [link["href"] for link in page.all("a")] == ["sub-one/r.html"]
    (picture,) = page.all("img")
    assert (
        picture["src"] == "sub-one/p.png"
        and picture["loading"] == "lazy"
        and "one" in picture["alt"]
    )
    odd = Page(index_html([row("x", report="javascript:alert(1)", panel='a b".png')]))
    assert [link["href"] for link in odd.all("a")] == [
        "javascript%3Aalert%281%29"
    ]  # a file of that name
    assert odd.all("img")[0]["src"] == "a%20b%22.png"


def test_every_text_is_escaped():
    page = read([row(EVIL, "not_assessable", code=EVIL, reason=EVIL, warnings=EVIL)])
    assert len(page.all("script")) == 1 and page.text.count(EVIL) == 4


def test_a_run_without_scans():
    page = read([])
    assert "0 of 0 shown" in page.words and not page.all("tr", data_outcome="normal")


def test_the_same_rows_give_the_same_bytes(rows, tmp_path):
    for name in ("a.html", "b.html"):
        save_index(rows, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.html", "b.html"}


@needs_chromium
class TestBrowser:
    def test_an_outcome_in_the_address_is_filtered_by(self, rows, tmp_path):
        save_index(rows, tmp_path / "index.html")
        (tmp_path / "sub-one").mkdir()
        imsave(tmp_path / "sub-one" / "p.png", [[0.0, 1.0], [1.0, 0.0]], format="png")
        opened = open_page(tmp_path / "index.html", "#suspicious")
        assert opened.console == []  # the picture beside the page among them
        shown = [
            line["data-outcome"]
            for line in opened.page.all("tr")
            if "data-outcome" in line and "hidden" not in line
        ]
        assert shown == ["suspicious", "suspicious"] and "2 of 4 shown" in opened.page.words
        pressed = [b["data-outcome"] for b in opened.page.all("button", aria_pressed="true")]
        assert pressed == ["suspicious"]

    def test_buttons_filter_and_pictures_load(self, rows, tmp_path):
        (tmp_path / "sub-one").mkdir()
        imsave(tmp_path / "sub-one" / "p.png", [[0.0, 1.0], [1.0, 0.0]], format="png")
        script = """
          const shown = () => document.getElementById("shown").textContent;
          const press = (outcome) => {
            document.querySelector(`button[data-outcome="${outcome}"]`).click(); return shown(); };
          const noted = ["normal", "not_assessable", ""].map(press);
          addEventListener("load", () => { document.body.dataset.noted =
            [...noted, document.querySelector("img").naturalWidth].join("; "); });
        """
        path = tmp_path / "index.html"
        path.write_text(with_script(index_html(rows), script), "utf-8")
        opened = open_page(path)
        assert opened.console == []
        assert (
            opened.page.all("body")[0]["data-noted"]
            == "1 of 4 shown; 1 of 4 shown; 4 of 4 shown; 2"
        )

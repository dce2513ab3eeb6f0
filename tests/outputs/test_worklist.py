"""The tables over all scans and regions of a run, and the page over them."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from outputs import browser
from outputs.browser import Page, checked, needs_chromium, open_page
from outputs.test_report import EVIL
from PIL import Image

from pathology_screen.errors import REFUSALS
from pathology_screen.outputs.worklist import (
    COLUMNS,
    MOST_ROWS,
    REGION_COLUMNS,
    group_html,
    save_overview,
    summary,
    worklist_rows,
)

FIT = {"dice": 0.95, "correlation": 0.75, "turn": 0.0, "shown": 1.0}
SOURCE = {"manufacturer": "Acme", "manufacturer_model": "One", "field_strength": 1.5}
PLAYER = """
  const names = () => [...document.querySelectorAll("tbody tr[data-name]")]
    .filter((row) => !row.hidden).map((row) => row.dataset.name);
  const note = (noted) => { document.body.dataset.noted = JSON.stringify(noted); };
"""


def record(name, score=None, code=None, areas=(), warnings=(), source=SOURCE):
    """Of a scan with a score, suspicious if it has regions, or of one that was refused."""
    known = {"outcome": "suspicious" if areas else "normal", "code": None, "reason": ""}
    known |= {"score": score, "percentile": 12.5, "p_value": 1 / 21, "image_threshold": 0.2}
    known |= {"pixel_threshold": 0.05, "healthy_range": [0.06, 0.18]}
    known |= {"slice": {"score": score, "fit": FIT}}
    files = [f"sub-{name}_panel.png", f"sub-{name}_report.html"]
    if code:
        known, files = dict.fromkeys(known), []
        reason = f"[{code}] {REFUSALS[code]}"
        known |= {"outcome": "not_assessable", "code": code, "reason": reason}
    place = {"side": "left", "tissue": "grey", "centroid_mni_mm": [-30.0, 4.0, 23.0]}
    regions = [
        {"label": i, "area_mm2": area, "peak": 0.4, "mean": 0.3, **place}
        for i, area in enumerate(areas, start=1)
    ]
    findings = [{"code": warning, "refused": False} for warning in warnings]
    facts = {"regions": regions, "findings": findings, "files": files}
    return known | facts | {"name": name, "source": source}


def test_tables_and_summary(tmp_path):
    """The highest score first, then what was not assessable."""
    records = [
        record("b", code="empty"),
        record("c", 0.1),
        record("d", 0.3, areas=(5.0, 20.0), warnings=("one", "two")),
        record("a", code="not_found"),
        record("e", 0.1, source={}),
    ]
    rows = worklist_rows(records)
    assert [row["name"] for row in rows] == ["d", "c", "e", "a", "b"]
    assert rows[0].keys() == set(COLUMNS)
    assert [rows[0][column] for column in COLUMNS] == [
        *("d", "suspicious", 0.3, 12.5, 1 / 21, 0.2, 0.06, 0.18, 2, 20.0, "Acme One 1.5 T"),
        *(0.95, 0.75, None, None, "one;two", "sub-d/sub-d_report.html", "sub-d/sub-d_panel.png"),
    ]
    told = "5 scans: 1 suspicious, 2 normal, 2 not assessable (not_found 1, empty 1)"
    assert summary(rows) == told
    save_overview(records, tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "scores.csv")
    assert tuple(table) == COLUMNS and table.name.tolist() == ["d", "c", "e", "a", "b"]
    assert table.regions.fillna(-1).tolist() == [2, 0, 0, -1, -1]
    regions = pd.read_csv(tmp_path / "run" / "regions.csv")
    assert tuple(regions) == REGION_COLUMNS and regions.name.tolist() == ["d", "d"]
    places = ["d", 2, "left", "grey", 20.0, 0.4, 0.3, -30.0, 4.0, 23.0, 0.05]
    assert regions.iloc[1].tolist() == places
    save_overview([], tmp_path / "empty")
    for name in ("run", "empty"):
        assert {path.name for path in (tmp_path / name).iterdir()} == {
            *("scores.csv", "regions.csv", "index.html", "dataset_description.json")
        }
    for name, columns in (("scores", COLUMNS), ("regions", REGION_COLUMNS)):
        assert (tmp_path / f"empty/{name}.csv").read_text().strip() == ",".join(columns)
    description = json.loads((tmp_path / "run" / "dataset_description.json").read_text())
    assert description["BIDSVersion"]
    assert description["GeneratedBy"][0]["Name"] == "pathology_screen"


@pytest.fixture
def rows():
    records = [
        record("one", 0.16, areas=(204.4, 9.0, 9.0), warnings=("a", "b")),
        record("two", 0.05, areas=(204.4,), source={}) | {"files": []},
        record("three", 0.02) | {"files": []},
        record("four", code="missing_slice"),
    ]
    return worklist_rows(records)


def read_group(rows) -> Page:
    return checked(group_html(rows), ("sub-",))


def plain(html) -> str:
    return " ".join(re.sub("<[^>]*>", " ", html).split())


class TestPage:
    def test_rows_keep_their_order_and_numbers_and_are_counted(self, rows):
        page = read_group(rows)
        lines = [own["data-outcome"] for own in page.all("tr") if "data-outcome" in own]
        assert lines == [row["outcome"] for row in rows]
        found = {}
        for line in page.inside("tr"):
            cells = [plain(cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", line, re.DOTALL)]
            found[cells[1].split()[0]] = cells[1:-1]
        warned = "Acme One 1.5 T Warnings: a, b"
        numbers = ["0.160", "12.5", "0.048", "3", "204", "0.75"]
        assert found["one"] == [f"one {warned}", "▲ Suspicious", *numbers]
        numbers = ["0.0200", "12.5", "0.048", "0", "–", "0.75"]
        assert found["three"] == ["three Acme One 1.5 T", "● Normal", *numbers]
        meaning = "the slices are not evenly spaced: at least one is missing"
        told = ["four Acme One 1.5 T", "✕ Not assessable", f"missing_slice {meaning}"]
        assert found["four"] == told
        buttons = [plain(text) for text in page.inside("button")][:5]
        counted = ["4 scans", "2 ▲ suspicious", "1 ● normal", "1 ✕ not assessable"]
        assert buttons == [*counted, "1 ⚠ with warnings"]
        page.tells(f"1 missing_slice {meaning}", "1 a 1 b")
        nobody = read_group([])
        nobody.tells("0 of 0 shown")
        nobody.keeps_back("Scores by scanner", "Fit of", "Refusals")

    def test_charts_show_the_scans_of_each_scanner_and_the_limits(self, rows):
        page = read_group(rows)
        assert [plain(title) for title in page.inside("h3")] == [
            *("Acme One 1.5 T (n = 2)", "scanner not stated (n = 1)"),
            *("Correlation with the template", "Dice with the template"),
        ]
        scores, other, correlation, _ = page.inside("svg")
        assert scores.count('"suspicious"') == scores.count('"normal"') == 1
        assert other.count('"suspicious"') == 1 and '"normal"' not in other
        ticks = [re.findall(r'text-anchor="middle">(.*?)<', chart) for chart in (scores, other)]
        assert ticks[0] == ticks[1]  # one axis, to compare scanners by
        assert plain(scores).endswith("image threshold 0.200")
        assert plain(correlation).endswith("accepted from 0.350")
        assert "2 suspicious" in plain(correlation)
        page = read_group([rows[2] | {"name": f"s{i}", "scanner": f"S{i}"} for i in range(9)])
        assert "other scanners (n = 3)" in map(plain, page.inside("h3"))

    def test_links_are_relative_pictures_lazy_and_texts_escaped(self, rows):
        page = read_group(rows)
        assert [link["href"] for link in page.all("a")] == ["sub-one/sub-one_report.html"]
        (picture,) = page.all("img")
        assert (picture["src"], picture["loading"]) == ("sub-one/sub-one_panel.png", "lazy")
        assert "one" in picture["alt"]
        odd = rows[2] | {"report": "javascript:alert(1)", "panel": 'a b".png'}
        odd = Page(group_html([odd]))
        links = [link["href"] for link in odd.all("a")]
        assert links == ["javascript%3Aalert%281%29"]  # a file of that name
        assert odd.all("img")[0]["src"] == "a%20b%22.png"
        texts = dict.fromkeys(("code", "reason", "warnings", "scanner"), EVIL)
        page = read_group([rows[3] | {"name": EVIL, **texts}])
        assert len(page.all("script")) == 1 and page.text.count(EVIL) == 6


@needs_chromium
class TestInABrowser:
    @pytest.fixture
    def play(self, tmp_path):
        """Function that opens a page, lets a script play its user, and gives what it noted."""
        (tmp_path / "sub-one").mkdir()
        picture = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8))
        picture.save(tmp_path / "sub-one/sub-one_panel.png")
        return lambda rows, script: browser.play(
            group_html(rows, "the run"), PLAYER + script, tmp_path
        )

    def test_an_outcome_in_the_address_is_filtered_by(self, rows, tmp_path):
        page = open_page(group_html(rows[1:]), tmp_path, "#suspicious")
        assert page.console == []  # with the policy, under which its own script runs
        lines = [own for own in page.all("tr") if "data-outcome" in own]
        assert [own["data-name"] for own in lines if "hidden" not in own] == ["two"]
        page.tells("1 of 3 shown", "0 of 3 reviewed; kept in this browser")
        pressed = [own["data-show"] for own in page.all("button", aria_pressed="true")]
        assert pressed == ["suspicious"]

    def test_buttons_filter_headers_sort_and_pictures_load(self, rows, play):
        """What has no value is last."""
        script = """
          const press = (kind, value) => {
            document.querySelector(`button[data-${kind}="${value}"]`).click(); return names(); };
          const shown = ["normal", "not_assessable", "warned", ""].map((own) => press("show", own));
          const sorted = [3, 3, 1, 2].map((column) => press("sort", column));
          addEventListener("load", () => note([...shown, ...sorted,
            document.querySelector("img").naturalWidth]));
        """
        everyone = ["one", "two", "three", "four"]
        assert play(rows, script) == [
            *(["three"], ["four"], ["one"], everyone),
            everyone,  # by falling score, then by rising, name, and outcome
            ["three", "two", "one", "four"],
            ["four", "one", "three", "two"],
            ["three", "four", "one", "two"],
            2,
        ]

    def test_long_lists_are_shown_by_parts(self, rows, play):
        many = [rows[2] | {"name": f"s{i}", "score": 0.1 + i} for i in range(MOST_ROWS + 50)]
        script = """
          const noted = [names().length];
          document.querySelector('button[data-sort="3"]').click(); noted.push(names()[0]);
          document.getElementById("more").click(); noted.push(names().length);
          note([...noted, document.getElementById("more").hidden]);
        """
        assert play(many, script) == [200, "s249", 250, True]

    def test_marks_outlive_the_page_and_go_through_a_file(self, rows, play):
        """Marked, opened again, exported, forgotten, and taken up from the file."""
        script = """
          const [first, second] = document.querySelectorAll("td.mark");
          const set = (field, value) => {
            field.value = value; field.dispatchEvent(new Event("change", { bubbles: true })); };
          const state = () => document.getElementById("kept").textContent;
          if (!sessionStorage.opened) {
            set(first.children[0], "disagree"); set(first.children[1], '=1, "quoted"');
            set(second.children[0], "artefact");
            sessionStorage.opened = 1;
            location.reload();
          } else {
            const noted = [[...first.children].map((field) => field.value), state()];
            let file;
            URL.createObjectURL = (blob) => { file = blob; return "#"; };
            HTMLAnchorElement.prototype.click = () => {};
            document.getElementById("export").click();
            set(first.children[0], ""); set(first.children[1], ""); noted.push(state());
            file.text().then(async (text) => {
              noted.push(text);
              const files = new DataTransfer();
              const more = "gone,normal,agree,\\nodd,normal,perhaps,";
              files.items.add(new File([text + more], "r.csv"));
              const input = document.getElementById("import");
              input.files = files.files;
              input.dispatchEvent(new Event("change"));
              await new Promise((done) => setTimeout(done, 200));
              note([...noted, [...first.children].map((field) => field.value), state()]);
            });
          }
        """
        kept, told, cleared, text, taken, end = play(rows, script)
        assert kept == taken == ["disagree", '=1, "quoted"']
        assert (told, cleared) == tuple(
            f"{count} of 4 reviewed; kept in this browser" for count in (2, 1)
        )
        lines = ['one,suspicious,disagree,"\'=1, ""quoted"""', "two,suspicious,artefact,", ""]
        assert text == "\r\n".join(["name,outcome,mark,note", *lines])
        counted = "3 taken from the file, 2 of scans on this page, 1 not understood"
        assert end == f"2 of 4 reviewed; kept in this browser; {counted}"

    @pytest.mark.parametrize("width", [390, 1280])
    def test_nothing_stands_out_of_the_page(self, rows, width, tmp_path):
        rows[0] |= {"name": "x" * 60, "scanner": "y" * 60}
        measured = "parent.postMessage(document.documentElement.scrollWidth, '*')"
        inner = browser.with_script(group_html(rows), measured)
        (tmp_path / "index.html").write_text(inner, "utf-8")
        frame = f'<iframe src="index.html" width="{width}" height="900"></iframe></body>'
        script = """
          addEventListener("message", ({ data }) => { document.body.dataset.noted = data; });"""
        assert browser.play(frame, script, tmp_path) <= width

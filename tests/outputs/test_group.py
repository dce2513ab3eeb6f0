"""The page over a run."""

import json
import math
import re

import numpy as np
import pytest
from outputs.browser import Page, needs_chromium, open_page, with_script
from outputs.test_report import EVIL, check_told, check_untold, checked
from PIL import Image

from pathology_screen.outputs.group import MOST_ROWS, group_html
from pathology_screen.outputs.worklist import COLUMNS

PLAYER = """
  const names = () => [...document.querySelectorAll("tbody tr[data-name]")]
    .filter((row) => !row.hidden).map((row) => row.dataset.name);
  const note = (noted) => { document.body.dataset.noted = JSON.stringify(noted); };
"""


def row(name, outcome="normal", **values):
    return dict.fromkeys(COLUMNS) | {"name": name, "outcome": outcome, **values}


@pytest.fixture
def rows():
    scored = {"percentile": 100.0, "p_value": 1 / 21, "regions": 3, "largest_area_mm2": 204.4}
    scored |= {"threshold": 0.04, "dice": 0.95, "correlation": 0.75, "scanner": "Acme 3 T"}
    files = {"report": "sub-one/r.html", "panel": "sub-one/p.png"}
    calm = scored | {"percentile": 12.5, "regions": 0, "largest_area_mm2": math.nan}
    reason = "[missing_slice] the slices are not evenly spaced: 10.4 mm"
    refused = {"code": "missing_slice", "reason": reason, "score": math.nan}
    return [
        row("one", "suspicious", score=0.16, warnings="a;b", **files, **scored),
        row("two", "suspicious", score=0.05, **scored | {"scanner": None}),
        row("three", score=0.02, **calm),
        row("four", "not_assessable", **refused),
    ]


def read_group(rows) -> Page:
    return checked(group_html(rows), ("sub-",))


def plain(html) -> str:
    return " ".join(re.sub("<[^>]*>", " ", html).split())


class TestPage:
    def test_rows_keep_their_order_and_numbers(self, rows):
        page = read_group(rows)
        lines = [own["data-outcome"] for own in page.all("tr") if "data-outcome" in own]
        assert lines == [row["outcome"] for row in rows]
        found = {}
        for line in page.inside("tr"):
            cells = [plain(cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", line, re.DOTALL)]
            found[cells[1].split()[0]] = cells[1:-1]
        warned = "Acme 3 T Warnings: a, b"
        numbers = ["0.160", "100", "0.048", "3", "204", "0.75"]
        assert found["one"] == [f"one {warned}", "▲ Suspicious", *numbers]
        numbers = ["0.0200", "12.5", "0.048", "0", "–", "0.75"]
        assert found["three"] == ["three Acme 3 T", "● Normal", *numbers]
        told = "missing_slice the slices are not evenly spaced: 10.4 mm"
        assert found["four"] == ["four", "✕ Not assessable", told]

    def test_counts_add_up(self, rows):
        page = read_group(rows)
        buttons = [plain(text) for text in page.inside("button")][:5]
        counted = ["4 scans", "2 ▲ suspicious", "1 ● normal", "1 ✕ not assessable"]
        assert buttons == [*counted, "1 ⚠ with warnings"]
        meaning = "the slices are not evenly spaced: at least one is missing"
        check_told(page, f"1 missing_slice {meaning}", "1 a 1 b")
        nobody = read_group([])
        check_told(nobody, "0 of 0 shown")
        check_untold(nobody, "Scores by scanner", "Fit of", "Refusals")

    def test_charts_show_the_scans_of_each_scanner_and_the_limits(self, rows):
        page = read_group(rows)
        assert [plain(title) for title in page.inside("h3")] == [
            *("Acme 3 T (n = 2)", "scanner not stated (n = 1)"),
            *("Correlation with the template", "Dice with the template"),
        ]
        scores, other, correlation, _ = page.inside("svg")
        assert scores.count('"suspicious"') == scores.count('"normal"') == 1
        assert other.count('"suspicious"') == 1 and '"normal"' not in other
        ticks = [re.findall(r'text-anchor="middle">(.*?)<', chart) for chart in (scores, other)]
        assert ticks[0] == ticks[1]  # one axis, to compare scanners by
        assert plain(scores).endswith("image threshold 0.0400")
        assert plain(correlation).endswith("accepted from 0.350")
        assert "2 suspicious" in plain(correlation)

    def test_rare_scanners_are_shown_together(self, rows):
        page = read_group([rows[2] | {"name": f"s{i}", "scanner": f"S{i}"} for i in range(9)])
        assert "other scanners (n = 3)" in map(plain, page.inside("h3"))

    def test_links_are_relative_and_pictures_lazy(self, rows):
        page = read_group(rows)
        assert [link["href"] for link in page.all("a")] == ["sub-one/r.html"]
        (picture,) = page.all("img")
        assert (picture["src"], picture["loading"]) == ("sub-one/p.png", "lazy")
        assert "one" in picture["alt"]
        odd = Page(group_html([row("x", report="javascript:alert(1)", panel='a b".png')]))
        links = [link["href"] for link in odd.all("a")]
        assert links == ["javascript%3Aalert%281%29"]  # a file of that name
        assert odd.all("img")[0]["src"] == "a%20b%22.png"

    def test_every_text_is_escaped(self):
        texts = dict.fromkeys(("code", "reason", "warnings", "scanner"), EVIL)
        page = read_group([row(EVIL, "not_assessable", **texts)])
        assert len(page.all("script")) == 1 and page.text.count(EVIL) == 6


@needs_chromium
class TestInABrowser:
    @pytest.fixture
    def play(self, tmp_path):
        """Function that opens a page, lets a script play its user, and gives what it noted."""
        (tmp_path / "sub-one").mkdir()
        Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).save(tmp_path / "sub-one/p.png")

        def play(rows, script, fragment=""):
            path = tmp_path / "index.html"
            path.write_text(with_script(group_html(rows, "the run"), PLAYER + script), "utf-8")
            opened = open_page(path, fragment)
            assert opened.console == []
            return json.loads(opened.page.all("body")[0]["data-noted"])

        return play

    def test_an_outcome_in_the_address_is_filtered_by(self, rows, tmp_path):
        (tmp_path / "index.html").write_text(group_html(rows[1:]), "utf-8")
        opened = open_page(tmp_path / "index.html", "#suspicious")
        assert opened.console == []  # with the policy, under which its own script runs
        lines = [own for own in opened.page.all("tr") if "data-outcome" in own]
        assert [own["data-name"] for own in lines if "hidden" not in own] == ["two"]
        check_told(opened.page, "1 of 3 shown", "0 of 3 reviewed; kept in this browser")
        pressed = [own["data-show"] for own in opened.page.all("button", aria_pressed="true")]
        assert pressed == ["suspicious"]

    def test_buttons_filter_and_pictures_load(self, rows, play):
        script = """
          const press = (kind) => {
            document.querySelector(`button[data-show="${kind}"]`).click(); return names(); };
          const noted = ["normal", "not_assessable", "warned", ""].map(press);
          addEventListener("load", () => note([...noted,
            document.querySelector("img").naturalWidth]));
        """
        everyone = ["one", "two", "three", "four"]
        assert play(rows, script) == [["three"], ["four"], ["one"], everyone, 2]

    def test_headers_sort_and_what_has_no_value_is_last(self, rows, play):
        script = """
          const press = (column) => {
            document.querySelector(`button[data-sort="${column}"]`).click(); return names(); };
          note([3, 3, 1, 2].map(press));
        """
        falling, rising, by_name, by_outcome = play(rows, script)
        assert falling == ["one", "two", "three", "four"]
        assert rising == ["three", "two", "one", "four"]
        assert by_name == ["four", "one", "three", "two"]
        assert by_outcome == ["three", "four", "one", "two"]

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
        (tmp_path / "index.html").write_text(with_script(group_html(rows), measured), "utf-8")
        frame = f"""<body><script>
          addEventListener("message", ({{ data }}) => {{ document.body.dataset.noted = data; }});
          </script><iframe src="index.html" width="{width}" height="900"></iframe></body>"""
        (tmp_path / "frame.html").write_text(frame, "utf-8")
        (body,) = open_page(tmp_path / "frame.html").page.all("body")
        assert int(body["data-noted"]) <= width

"""The report of one screened scan."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from outputs.browser import Page, checked, needs_chromium, open_page, play
from PIL import Image

from pathology_screen.errors import InputError
from pathology_screen.outputs.report import report_html
from pathology_screen.result import Finding, ScreenedSlice, ScreeningResult

EVIL = "<script>document.title = 'it ran'</script>&\"'"
LARGEST = 1_500_000
"""bytes"""


@pytest.fixture
def refused() -> ScreeningResult:
    error = InputError("missing_slice", "10.4 mm; accepted: 5.2 mm", "Send the whole series.")
    found = (Finding("missing_slice", "10.4 mm", "5.2 mm", hint=error.hint),)
    source = {"format": "dicom"}
    return ScreeningResult("not_assessable", error.code, str(error), found, source=source)


def read(result, name="sub-01") -> Page:
    return checked(report_html(result, name))


def layer(page, name) -> Image.Image:
    (found,) = page.all("image", id=name)
    return Image.open(io.BytesIO(base64.b64decode(found["href"].partition(",")[2])))


class TestVerdict:
    @pytest.mark.parametrize("outcome", ["normal", "suspicious"])
    def test_outcome_its_numbers_and_warnings(self, result, outcome):
        numbers = {"score": 0.16, "percentile": 95.0, "p_value": 2 / 21}
        warning = Finding("no_tissue", "3 T", "1.5 T", refused=False, hint="Look at it.")
        numbers |= {"image_threshold": 0.034567, "findings": (warning,)}
        page = read(replace(result, outcome=outcome, **numbers))
        assert page.inside("title")[0] == f"{outcome.capitalize()}: sub-01 – screening report"
        says = {"normal": "does not mean that the scan is healthy"}
        says["suspicious"] = "This is no diagnosis"
        page.tells(
            f"{outcome.capitalize()} Score 0.160 plane z = +23 mm of MNI152 Image threshold 0.0346 "
            "for 5 % false positives Percentile 95 % of 20 healthy people score no higher Healthy",
            "p-value 0.095 smallest possible: 0.048",
            "no_tissue no tissue was found in the image or slice Look at it. 3 T 1.5 T warning",
            says.pop(outcome),
        )
        page.keeps_back(*says.values())

    def test_what_was_refused_has_a_reason_and_no_score(self, refused):
        page = read(refused)
        page.tells(
            "Not assessable missing_slice the slices are not evenly spaced",
            "10.4 mm; accepted: 5.2 mm. What to do: Send the whole series.",
            "neither that the scan is normal nor that it is suspicious",
        )
        page.keeps_back("Percentile", "[missing_slice]")
        assert not page.all("svg")
        error = InputError("unreadable", "the file ends early", "Copy it again")  # by the reader
        page = read(ScreeningResult("not_assessable", error.code, str(error)))
        page.tells(
            "unreadable the file is damaged or cut short: the file ends early. Copy it again"
        )
        page.keeps_back("acceptance gate")

    def test_what_the_calibration_does_not_cover_is_shown_without_a_score(
        self, brain, make_brain_screener
    ):
        page = read(make_brain_screener()(brain, plane_mm=30))
        page.tells("Not assessable not_calibrated", "z = +30 mm")
        page.keeps_back("Percentile", "among healthy people")
        assert page.all("svg", id="stack") and not page.all("g", class_="mark limit")


class TestPictures:
    def test_layers_are_those_of_the_slice_and_plane_and_fit_are_told(self, result):
        page, one = read(result), result.slice
        shown = np.asarray(layer(page, "input")) / 255
        assert np.allclose(shown, one.image, atol=0.002)
        assert np.allclose(shown * 0.9, np.asarray(layer(page, "reconstruction")) / 255, atol=0.004)
        opaque = np.asarray(layer(page, "map").convert("RGBA"))[..., 3] == 255
        assert np.mean(opaque == (one.anomaly_map >= result.pixel_threshold)) > 0.98
        assert len(page.all("image")) == 3
        assert len(page.all("use", href="#template", class_="template")) == 2
        page.tells(
            "Plane z = +23 mm of MNI152 Dice overlap 0.95 of the brains; at least 0.85 Local "
            "correlation 0.75 at least 0.35 Turn 0° at most 55° In the field of view 100 %"
        )
        told = "Colours of the anomaly map, from 0 to 0.372; pixel threshold 0.0930"
        assert told in [svg.get("aria-label") for svg in page.all("svg")]

    def test_a_single_slice_is_said_not_to_be_registered(self, single):
        page = read(single)
        page.tells("Single slice, not registered.", "R, A, S, mm")
        page.keeps_back("Dice", "Side")
        assert not page.all("use", href="#template") and not page.all("input", id="show-template")

    def test_a_method_that_does_not_reconstruct_shows_none(self, result):
        bare = replace(result.slice, reconstruction=None)
        page = read(replace(result, slice=bare, reconstruction_volume=None))
        assert not page.all("input", id="show-reconstruction") and len(page.all("image")) == 2
        page.keeps_back("Pseudo-healthy")

    def test_the_scale_bar_is_five_centimetres_and_sides_are_those_of_radiology(self, result):
        """Columns run to the patient's left (-x), so the left edge is the patient's right."""
        page, start = read(result), f"M{64 * 0.03} "
        (bar,) = [path["d"] for path in page.all("path") if path["d"].startswith(start)]
        pixel = np.linalg.norm(result.slice.affine[:3, 1])
        assert float(bar.partition("h")[2]) * pixel == pytest.approx(50, abs=0.1)
        assert result.slice.affine[0, 1] < 0 and result.slice.affine[1, 0] < 0
        pattern = r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>([RLAP])</text>'
        letters = re.findall(pattern, page.source)
        assert len(letters) == 4 * 3
        for x, y, letter in letters:
            place = float(x if letter in "RL" else y)
            assert place < 10 if letter in "RA" else place > 54


class TestRegions:
    def test_each_region_is_a_row_with_its_measures_a_peak_and_an_outline(self, result):
        page = read(result)
        rows = [row["data-region"] for row in page.all("tr") if "data-region" in row]
        assert rows == [str(region.label) for region in result.regions] != []
        one = result.regions[0]
        place = ", ".join(f"{value:.0f}".replace("-", "−") for value in one.peak_mni_mm)
        where = f"{one.side} {one.tissue} {place}"
        page.tells(f"1 {where} {one.area_mm2:.0f} {one.peak:.3f} {one.mean:.3f}")
        for region in result.regions:
            (peak,) = page.all("path", data_peak=str(region.label))
            left, y = map(float, peak["d"][1:].partition("h")[0].split())
            found = result.slice.anomaly_map[int(y // 10), int((left + 20) // 10)]
            assert found == pytest.approx(region.peak)
            assert len(page.all("path", data_region=str(region.label))) == 1

    def test_no_region_no_table_and_print_stops_after_twenty(self, result):
        labels = 0 * result.slice.labels
        page = read(replace(result, regions=(), slice=replace(result.slice, labels=labels)))
        page.tells("No region lies above the pixel threshold")
        assert not page.all("tr", data_region="1")
        regions = tuple(replace(result.regions[0], label=label) for label in range(1, 31))
        page = read(replace(result, regions=regions))
        page.tells("The first 20 of 30 regions")
        assert len(page.all("tr", class_="screen-only")) == 10


class TestOrigin:
    def test_facts_have_units_and_hashes_are_short_but_whole(self, result, brain):
        source = {"format": "dicom", "echo_time": 2.98, "image_type": ["ORIGINAL", "PRIMARY"]}
        source |= {"contrast_agent": True, "series_uid": "1.2.840.99.1"}
        page = read(replace(result, source=source))
        weights = result.provenance["identity"]["weights_sha256"]
        page.tells(
            "echo time 2.98 ms",
            "image type ORIGINAL, PRIMARY",
            "contrast agent yes",
            f"weights sha256 {weights[:12]}… {weights}",
            *("slice · domain brain_extracted", "versions · torch"),
            *("voxel size", "(n = 20)"),
        )
        assert page.source.count("healthy</title>") == len(page.all("rect", class_="healthy")) > 1
        page.keeps_back("series")
        for secret in ("1.2.840.99.1", str(brain.parent), brain.name):
            assert secret not in page.source

    def test_every_text_is_escaped(self, result):
        evil = Finding(EVIL, EVIL, EVIL, refused=False, hint=EVIL)
        made = {"source": {EVIL: EVIL}, "provenance": {EVIL: {EVIL: [EVIL]}}}
        page = read(replace(result, findings=(evil,), **made), EVIL)
        assert len(page.all("script")) == 1 and page.text.count(EVIL) >= 9
        result = ScreeningResult("not_assessable", EVIL, EVIL)
        assert len(Page(report_html(result, EVIL)).all("script")) == 1

    def test_the_same_result_gives_the_same_text_and_a_small_one(self, result):
        """At 128 pixels a side, with noise that no picture format packs."""
        noise = np.random.default_rng(0).random((128, 128)).astype(np.float32)
        half, one = result.slice.affine @ np.diag([0.5, 0.5, 1, 1]), result.slice
        labels = np.zeros((128, 128), np.uint16)
        pictures = (noise, noise, noise, labels)
        fine = ScreenedSlice(one.score, *pictures, half, 23.0, one.mni_affine, one.fit)
        first, second = (report_html(replace(result, slice=fine), "sub-01") for _ in range(2))
        assert first == second and len(first) < LARGEST


@needs_chromium
class TestReportInABrowser:
    def test_a_region_in_the_address_is_shown(self, result, refused, tmp_path):
        page = open_page(report_html(result, EVIL), tmp_path, "#region-2", tmp_path / "page.png")
        region = result.regions[1]
        assert page.console == []
        (line,) = page.all("tr", class_="selected")
        assert line["data-region"] == "2" and page.all("path", data_region="2", class_="selected")
        page.tells(
            f"Region 2: {region.side}, {region.tissue}, {region.area_mm2:.0f} mm², "
            f"peak {region.peak:.3f}",
            f"{result.outcome.capitalize()} Score {result.score:#.3g}",
        )
        title = page.inside("title")[0]
        assert title.startswith(f"{result.outcome.capitalize()}: &lt;script&gt;")
        picture = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).reshape(-1, 3)
        assert len(np.unique(picture, axis=0)) > 200  # a brain was painted
        near = abs(picture.astype(int) - (0x4D, 0xE1, 0xFF)) < 12
        assert np.any(np.all(near, axis=1))  # and the template's outline
        page = open_page(report_html(refused, "sub-01"), tmp_path, "#region-1")
        assert page.console == []
        page.tells("Not assessable")

    def test_what_the_user_does_is_done(self, result, tmp_path):
        """Opacity and toggles; clicks on a row, beside the outlines, and on one."""
        script = """
          const find = (id) => document.getElementById(id);
          const tell = (node, kind) => node.dispatchEvent(new Event(kind, { bubbles: true }));
          const act = (id, change) => tell(Object.assign(find(id), change), "input");
          const gone = (id) => find(id).hasAttribute("hidden");
          const noted = [];
          const note = () => noted.push([find("base").getAttribute("href"),
            find("over").getAttribute("opacity"), gone("over"), gone("outlines"), gone("brain"),
            find("chosen").textContent, location.hash]);
          note();
          act("opacity", { value: 30 }); act("show-reconstruction", { checked: true });
          act("show-template", { checked: true }); note();
          act("show-map", { checked: false }); act("show-outlines", { checked: false }); note();
          document.querySelector("tr[data-region='1'] td:last-child").click(); note();
          tell(find("stack"), "click"); note();
          tell(document.querySelector("path[data-region='2']"), "click"); note();
          document.body.dataset.noted = JSON.stringify(noted);
        """
        noted = play(report_html(result, "sub-01"), script, tmp_path)
        first, moved, bare, line, cleared, outline = noted
        assert first[:5] == ["#input", "0.7", False, False, True]
        assert moved[:5] == ["#reconstruction", "0.3", False, False, False]
        assert bare[2:4] == [True, True]
        assert line[6] == "#region-1" and line[5].startswith("Region 1:")
        assert cleared[5] == "Choose a region in the picture or in the table."
        assert outline[5].startswith("Region 2:")

"""The report of one screened scan."""

import base64
import io
import json
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from outputs.browser import Page, needs_chromium, open_page, with_script
from PIL import Image
from scipy.ndimage import zoom

from pathology_screen.errors import InputError
from pathology_screen.outputs.report import report_html, save_report
from pathology_screen.screening import Finding, ScreenedSlice, ScreeningResult

EVIL = "<script>document.title = 'it ran'</script>&\"'"
ONE_SLICE, ALL_SLICES = 1_500_000, 6_000_000  # bytes
MOST_LEVELS = 180  # of a head at 1 mm


@pytest.fixture
def screen(make_screener, make_calibration):
    """Function that screens a scan so that several regions lie above the pixel threshold."""

    def run(scan, slices="middle", **calibration):
        calibrated = make_calibration(**{"pixel_threshold": 0.093} | calibration)
        return make_screener(calibrated)(scan, slices=slices)

    return run


@pytest.fixture
def one(screen, phantoms) -> ScreeningResult:
    """A scan of which one slice was screened."""
    return screen(phantoms[0])


@pytest.fixture
def every(screen, phantoms) -> ScreeningResult:
    """A scan of which all slices were screened."""
    return screen(phantoms[0], "all")


@pytest.fixture
def refused() -> ScreeningResult:
    error = InputError("missing_slice", "10.4 mm; accepted: 5.2 mm", "Send the whole series.")
    finding = Finding("missing_slice", "10.4 mm", "5.2 mm", hint=error.hint)
    return ScreeningResult("not_assessable", error.code, str(error), (finding,), source={"format": "dicom"})


def read(result, name="sub-01") -> Page:
    page = Page(report_html(result, name))
    page.check_stands_alone()
    assert not page.open and "Research use only" in page.words
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    return page


def layer(page, name, level) -> Image.Image:
    (found,) = page.all("image", id=f"{name}-{level}")
    return Image.open(io.BytesIO(base64.b64decode(found["href"].partition(",")[2])))


def finer(screened: ScreenedSlice) -> ScreenedSlice:
    """The slice with twice the pixels a side."""
    half = screened.affine @ np.diag([0.5, 0.5, 1, 1])
    names = ("image", "reconstruction", "anomaly_map")
    return replace(screened, affine=half, **{name: zoom(getattr(screened, name), 2, order=1) for name in names})


class TestVerdict:
    @pytest.mark.parametrize("outcome", ["normal", "suspicious"])
    def test_outcome_and_its_numbers(self, one, outcome):
        numbers = {"score": 0.16, "percentile": 95.0, "p_value": 2 / 21, "image_threshold": 0.034567}
        page = read(replace(one, outcome=outcome, **numbers))
        assert page.inside("title")[0] == f"{outcome.capitalize()}: sub-01 – screening report"
        assert f"{outcome.capitalize()} Score 0.160" in page.words
        for text in ("Image threshold 0.0346", "for 5 % false positives", "Percentile 95 % of 20 healthy people"):
            assert text in page.words
        assert "p-value 0.095 smallest possible: 0.048" in page.words
        says = {"normal": "does not mean that the scan is healthy", "suspicious": "This is no diagnosis"}
        assert says[outcome] in page.words and says[({*says} - {outcome}).pop()] not in page.words

    def test_what_was_refused_has_a_reason_and_no_score(self, refused):
        page = read(refused)
        assert "Not assessable missing_slice the slices are not evenly spaced" in page.words
        assert "10.4 mm; accepted: 5.2 mm. What to do: Send the whole series." in page.words
        assert "neither that the scan is normal nor that it is suspicious" in page.words
        assert not page.all("svg") and "Percentile" not in page.words and "[missing_slice]" not in page.words

    def test_what_the_reader_refused_has_no_finding(self):
        error = InputError("unreadable", "the file ends early", "Copy it again")
        page = read(ScreeningResult("not_assessable", error.code, str(error)))
        assert "unreadable the file is damaged or cut short: the file ends early. Copy it again" in page.words
        assert "acceptance gate" not in page.words

    def test_what_the_calibration_does_not_cover_is_shown_without_a_score(self, screen, phantoms):
        result = screen(phantoms[0], slices="all", level=0.3)
        assert result.code == "not_calibrated" and result.slices
        page = read(result)
        assert "Not assessable not_calibrated" in page.words and "Percentile" not in page.words
        assert page.all("svg", id="stack") and "The score of each slice" in page.words
        assert "among healthy people" not in page.words and not page.all("line", class_="limit")

    def test_warnings_are_told_with_what_was_measured(self, one):
        warning = Finding("no_tissue", "3 T", "1.5 T", refused=False, hint="Look at it.")
        page = read(replace(one, findings=(warning,)))
        assert "no_tissue no tissue was found in the image or slice Look at it. 3 T 1.5 T warning" in page.words


class TestPictures:
    def test_layers_are_those_of_every_slice(self, every):
        page = read(every)
        for screened in every.slices:
            shown = np.asarray(layer(page, "input", screened.level)) / 255
            assert np.allclose(shown, screened.image, atol=0.002)
            assert np.allclose(shown * 0.9, np.asarray(layer(page, "reconstruction", screened.level)) / 255, atol=0.004)
            opaque = np.asarray(layer(page, "map", screened.level).convert("RGBA"))[..., 3] == 255
            assert np.mean(opaque == (screened.anomaly_map >= every.pixel_threshold)) > 0.98
        assert len(page.all("image")) == 3 * len(every.slices)

    def test_the_slice_that_counts_is_shown_first(self, every):
        page, level = read(every), every.slices[every.scored_slice].level
        assert page.all("use", id="base")[0]["href"] == f"#input-{level}"
        (shown,) = [group for group in page.all("g") if "data-level" in group and "hidden" not in group]
        assert shown["data-level"] == str(level)
        (slider,) = page.all("input", id="slice")
        assert slider["value"] == str(every.scored_slice) and slider["max"] == str(len(every.slices) - 1)

    def test_one_slice_needs_neither_slider_nor_curve(self, one):
        page = read(one)
        assert not page.all("input", id="slice") and "The score of each slice" not in page.words
        assert "The score among healthy people" in page.words

    def test_a_method_that_does_not_reconstruct_shows_none(self, every):
        slices = tuple(replace(screened, reconstruction=None) for screened in every.slices)
        page = read(replace(every, slices=slices, reconstruction_volume=None))
        assert not page.all("input", id="show-reconstruction") and len(page.all("image")) == 2 * len(slices)
        assert "Pseudo-healthy" not in page.words

    def test_the_scale_bar_is_five_centimetres(self, one):
        page = read(one)
        (bar,) = [path["d"] for path in page.all("path") if path["d"].startswith(f"M{64 * 0.03} ")]
        assert float(bar.partition("h")[2]) * 208 / 64 == pytest.approx(50, abs=0.1)

    def test_sides_are_those_of_radiology(self, one):
        """Columns run to the patient's left (-x), so the picture's left edge is the right of the patient."""
        assert one.slices[0].affine[0, 1] < 0 and one.slices[0].affine[1, 0] < 0
        letters = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>([RLAP])</text>', read(one).source)
        assert len(letters) == 4 * 3
        for x, y, letter in letters:
            beside = {"R": float(x) < 10, "L": float(x) > 54, "A": float(y) < 10, "P": float(y) > 54}
            assert beside[letter]

    def test_the_colour_bar_marks_the_threshold(self, one):
        (bar,) = [svg for svg in read(one).all("svg") if "Colours" in svg.get("aria-label", "")]
        assert bar["aria-label"] == "Colours of the anomaly map, from 0 to 0.372; pixel threshold 0.0930"


class TestRegions:
    def test_each_region_is_a_row_with_its_measures(self, every):
        page = read(every)
        rows = [row for row in page.all("tr") if "data-region" in row]
        assert [row["data-region"] for row in rows] == [str(region.label) for region in every.regions]
        region = every.regions[0]
        centroid = ", ".join(f"{value:.0f}".replace("-", "−") for value in region.centroid_mm)
        levels = "–".join(map(str, dict.fromkeys(region.levels)))
        numbers = (
            f"1 {region.area_mm2:.0f} {region.volume_ml:.2f} {centroid} {levels} {region.peak:.3f} {region.mean:.3f}"
        )
        assert numbers in page.words

    def test_volumes_of_one_slice_mean_nothing(self, one, every):
        assert "Volume, ml" in read(every).words and "Volume, ml" not in read(one).words

    def test_a_threshold_of_one_level_is_said_to_be_one(self, one, every, screen, phantoms):
        told = "The pixel threshold was calibrated at one level"
        everywhere = screen(phantoms[0], "all", level="all")
        assert [told in read(result).words for result in (every, everywhere, one)] == [True, False, False]

    @pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SAL", "PIR"])
    def test_a_peak_lies_where_the_map_of_its_slice_is_highest(self, screen, phantoms, tmp_path, axcodes):
        """However the scan is stored: the way from the volume back to the picture is the right one."""
        scan = nib.load(phantoms[1])
        turn = nib.orientations.ornt_transform(nib.io_orientation(scan.affine), nib.orientations.axcodes2ornt(axcodes))
        nib.save(scan.as_reoriented(turn), tmp_path / "scan.nii")
        result = screen(tmp_path / "scan.nii", "all")
        page = read(result)
        rows = {row["data-region"]: row for row in page.all("tr") if "data-region" in row}
        peaks = {path["data-peak"]: path["d"] for path in page.all("path") if "data-peak" in path}
        assert rows.keys() == peaks.keys() and result.regions
        for region in result.regions:
            (screened,) = [one for one in result.slices if str(one.level) == rows[str(region.label)]["data-level"]]
            left, y = map(float, peaks[str(region.label)][1:].partition("h")[0].split())
            row, column = int(y // 10), int((left + 20) // 10)
            around = screened.anomaly_map[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            assert around.max() == pytest.approx(region.peak, rel=0.02)
            assert region.levels[0] <= screened.level <= region.levels[1]

    def test_outlines_enclose_the_area_of_the_regions(self, one):
        """The area by Green's theorem is that of the table, to the width of the threshold's own line."""
        page = read(one)
        for region in one.regions[:3]:
            (path,) = [p["d"] for p in page.all("path", data_region=str(region.label))]
            area = 0.0
            for line in path.strip("Mz").split("zM"):
                start, _, steps = line.partition("l")
                x, y = np.array([*start.split(), *steps.split()], float).reshape(-1, 2).cumsum(axis=0).T / 10
                area += (x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
            assert abs(area) * (208 / 64) ** 2 == pytest.approx(region.area_mm2, rel=0.25, abs=30)

    def test_no_region_no_table(self, screen, phantoms):
        page = read(screen(phantoms[0], pixel_threshold=10.0))
        assert "No region lies above the pixel threshold" in page.words and not page.all("tr", data_region="1")

    def test_print_stops_after_twenty(self, one):
        regions = tuple(replace(one.regions[0], label=label) for label in range(1, 31))
        page = read(replace(one, regions=regions))
        assert len(page.all("tr", class_="screen-only")) == 10 and "The first 20 of 30 regions" in page.words


class TestOrigin:
    def test_facts_have_units_and_hashes_are_short_but_whole(self, one):
        source = {"format": "dicom", "echo_time": 2.98, "image_type": ["ORIGINAL", "PRIMARY"], "contrast_agent": True}
        page = read(replace(one, source=source))
        for text in ("echo time 2.98 ms", "image type ORIGINAL, PRIMARY", "contrast agent yes", "voxel size"):
            assert text in page.words
        weights = one.provenance["identity"]["weights_sha256"]
        assert f"weights sha256 {weights[:12]}… {weights}" in page.words
        assert "calibrated level 0.55" in page.words and "versions · torch" in page.words

    def test_neither_uid_nor_path_nor_date(self, every, phantoms):
        page = read(replace(every, source={"format": "dicom", "series_uid": "1.2.840.99.1"}))
        assert "1.2.840.99.1" not in page.source and "series" not in page.words
        assert str(phantoms[0].parent) not in page.source and phantoms[0].name not in page.source

    def test_a_dot_for_each_healthy_person(self, one):
        page = read(one)
        assert len(page.all("circle")) == 20 and "(n = 20)" in page.words

    def test_every_text_is_escaped(self, one):
        evil = Finding(EVIL, EVIL, EVIL, refused=False, hint=EVIL)
        result = replace(one, findings=(evil,), source={EVIL: EVIL}, provenance={EVIL: {EVIL: [EVIL]}})
        page = read(result, EVIL)
        assert len(page.all("script")) == 1
        assert page.text.count(EVIL) >= 9
        result = ScreeningResult("not_assessable", EVIL, EVIL)
        assert len(Page(report_html(result, EVIL)).all("script")) == 1


class TestFile:
    def test_the_same_result_gives_the_same_bytes(self, every, tmp_path):
        for name in ("a.html", "b.html"):
            save_report(every, "sub-01", tmp_path / name)
        assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()

    def test_it_is_small(self, every):
        """At 128 pixels a side, one slice and as many as a head has."""
        fine = replace(every, slices=tuple(finer(screened) for screened in every.slices))
        one = replace(fine, slices=(fine.slices[fine.scored_slice],), scored_slice=0, regions=())
        length = len(report_html(one, "sub-01"))
        each = (len(report_html(fine, "sub-01")) - length) / (len(fine.slices) - 1)
        assert length < ONE_SLICE and length + each * (MOST_LEVELS - 1) < ALL_SLICES

    def test_nothing_is_left_where_the_report_cannot_be_made(self, one, tmp_path):
        with pytest.raises(AttributeError):
            save_report(replace(one, slices=(None,)), "sub-01", tmp_path / "report.html")
        assert not list(tmp_path.iterdir())

    @pytest.mark.needs_shared
    @pytest.mark.slow
    def test_a_real_head_stays_small(self, shared_data):
        from pathology_screen.screening import Screener

        (path,) = sorted((shared_data / "whole_head").glob("*.nii.gz"))[:1]
        result = Screener.from_bundle("ra")(path, slices="all")
        assert len(result.slices) > 40 and len(report_html(result, "x")) < ALL_SLICES * len(result.slices) / MOST_LEVELS


@needs_chromium
class TestBrowser:
    def test_a_region_in_the_address_is_shown(self, every, tmp_path):
        save_report(every, EVIL, tmp_path / "report.html")
        opened = open_page(tmp_path / "report.html", "#region-2", tmp_path / "page.png")
        page, region = opened.page, every.regions[1]
        assert opened.console == []
        (row,) = page.all("tr", class_="selected")
        assert row["data-region"] == "2" and page.all("path", data_region="2", class_="selected")
        (shown,) = [group for group in page.all("g") if "data-level" in group and "hidden" not in group]
        assert shown["data-level"] == row["data-level"]
        assert page.all("use", id="map")[0]["href"] == f"#map-{row['data-level']}"
        assert f"Region 2: {region.area_mm2:.0f} mm², peak {region.peak:.3f}" in page.words
        assert f"Level {row['data-level']} (0–{every.map_volume.shape[2] - 1}) · slice" in page.words
        assert f"{every.outcome.capitalize()} Score {every.score:#.3g}" in page.words
        assert page.inside("title")[0].startswith(f"{every.outcome.capitalize()}: &lt;script&gt;")
        picture = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).reshape(-1, 3)
        assert len(np.unique(picture, axis=0)) > 200  # a brain was painted

    def test_what_the_user_does_is_done(self, every, tmp_path):
        """Slice, opacity and toggles; then a click on an outline, and one on a row of another slice."""
        script = """
          const act = (id, change) => { Object.assign(document.getElementById(id), change);
            document.getElementById(id).dispatchEvent(new Event("input", { bubbles: true })); };
          const note = () => [document.getElementById("base").getAttribute("href"),
            document.getElementById("map").getAttribute("opacity"),
            document.getElementById("map").hasAttribute("hidden"),
            document.getElementById("outlines").hasAttribute("hidden"), document.getElementById("chosen").textContent,
            location.hash];
          const noted = [];
          act("slice", { value: 1 }); act("opacity", { value: 30 }); act("show-reconstruction", { checked: true });
          noted.push(note());
          act("show-map", { checked: false }); act("show-outlines", { checked: false }); noted.push(note());
          document.querySelector("tr[data-region='1'] td:last-child").click(); noted.push(note());
          document.getElementById("stack").dispatchEvent(new Event("click", { bubbles: true })); noted.push(note());
          document.querySelector("path[data-region='2']").dispatchEvent(new Event("click", { bubbles: true }));
          noted.push(note());
          document.body.dataset.noted = JSON.stringify(noted);
        """
        path = tmp_path / "report.html"
        path.write_text(with_script(report_html(every, "sub-01"), script), "utf-8")
        opened = open_page(path)
        assert opened.console == []
        (body,) = opened.page.all("body")
        moved, bare, row, cleared, outline = json.loads(body["data-noted"])
        level = every.slices[1].level
        assert moved[:4] == [f"#reconstruction-{level}", "0.3", False, False] and bare[2:4] == [True, True]
        peak = next(r["data-level"] for r in opened.page.all("tr", data_region="1"))
        assert row[0] == f"#reconstruction-{peak}" and row[5] == "#region-1" and row[4].startswith("Region 1:")
        assert cleared[4] == "Choose a region in the picture or in the table."
        assert outline[4].startswith("Region 2:") and outline[0] == row[0]

    def test_a_refused_scan_opens_without_complaint(self, refused, tmp_path):
        save_report(refused, "sub-01", tmp_path / "report.html")
        opened = open_page(tmp_path / "report.html", "#region-1")
        assert opened.console == [] and "Not assessable" in opened.page.words

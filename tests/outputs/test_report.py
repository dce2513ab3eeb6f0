"""The report of one screened scan."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from outputs.browser import Page, needs_chromium, open_page, with_script
from PIL import Image

from pathology_screen.errors import InputError
from pathology_screen.outputs.report import report_html, save_report
from pathology_screen.screening import Finding, ScreenedSlice, ScreeningResult

EVIL = "<script>document.title = 'it ran'</script>&\"'"
LARGEST = 1_500_000
"""bytes"""


@pytest.fixture
def one(result) -> ScreeningResult:
    return result


@pytest.fixture
def refused() -> ScreeningResult:
    error = InputError("missing_slice", "10.4 mm; accepted: 5.2 mm", "Send the whole series.")
    finding = Finding("missing_slice", "10.4 mm", "5.2 mm", hint=error.hint)
    return ScreeningResult(
        "not_assessable", error.code, str(error), (finding,), source={"format": "dicom"}
    )


def read(result, name="sub-01") -> Page:
    page = Page(report_html(result, name))
    page.check_stands_alone()
    assert not page.open and "Research use only" in page.words
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    return page


def layer(page, name) -> Image.Image:
    (found,) = page.all("image", id=name)
    return Image.open(io.BytesIO(base64.b64decode(found["href"].partition(",")[2])))


class TestVerdict:
    @pytest.mark.parametrize("outcome", ["normal", "suspicious"])
    def test_outcome_and_its_numbers(self, one, outcome):
        numbers = {
            "score": 0.16,
            "percentile": 95.0,
            "p_value": 2 / 21,
            "image_threshold": 0.034567,
        }
        page = read(replace(one, outcome=outcome, **numbers))
        assert page.inside("title")[0] == f"{outcome.capitalize()}: sub-01 – screening report"
        assert f"{outcome.capitalize()} Score 0.160" in page.words
        for text in (
            "Image threshold 0.0346",
            "for 5 % false positives",
            "Percentile 95 % of 20 healthy people",
        ):
            assert text in page.words
        assert "p-value 0.095 smallest possible: 0.048" in page.words
        says = {
            "normal": "does not mean that the scan is healthy",
            "suspicious": "This is no diagnosis",
        }
        assert says[outcome] in page.words and says[({*says} - {outcome}).pop()] not in page.words

    def test_what_was_refused_has_a_reason_and_no_score(self, refused):
        page = read(refused)
        assert "Not assessable missing_slice the slices are not evenly spaced" in page.words
        assert "10.4 mm; accepted: 5.2 mm. What to do: Send the whole series." in page.words
        assert "neither that the scan is normal nor that it is suspicious" in page.words
        assert (
            not page.all("svg")
            and "Percentile" not in page.words
            and "[missing_slice]" not in page.words
        )

    def test_what_the_reader_refused_has_no_finding(self):
        error = InputError("unreadable", "the file ends early", "Copy it again")
        page = read(ScreeningResult("not_assessable", error.code, str(error)))
        assert (
            "unreadable the file is damaged or cut short: the file ends early. Copy it again"
            in page.words
        )
        assert "acceptance gate" not in page.words

    def test_what_the_calibration_does_not_cover_is_shown_without_a_score(
        self, brain, make_brain_screener
    ):
        result = make_brain_screener()(brain, plane_mm=30)
        page = read(result)
        assert "Not assessable not_calibrated" in page.words and "Percentile" not in page.words
        assert page.all("svg", id="stack") and "z = +30 mm" in page.words
        assert "among healthy people" not in page.words and not page.all("line", class_="limit")

    def test_warnings_are_told_with_what_was_measured(self, one):
        warning = Finding("no_tissue", "3 T", "1.5 T", refused=False, hint="Look at it.")
        page = read(replace(one, findings=(warning,)))
        assert (
            "no_tissue no tissue was found in the image or slice Look at it. 3 T 1.5 T warning"
            in page.words
        )


class TestPictures:
    def test_layers_are_those_of_the_slice(self, one):
        page, screened = read(one), one.slice
        shown = np.asarray(layer(page, "input")) / 255
        assert np.allclose(shown, screened.image, atol=0.002)
        assert np.allclose(shown * 0.9, np.asarray(layer(page, "reconstruction")) / 255, atol=0.004)
        opaque = np.asarray(layer(page, "map").convert("RGBA"))[..., 3] == 255
        assert np.mean(opaque == (screened.anomaly_map >= one.pixel_threshold)) > 0.98
        assert len(page.all("image")) == 3

    def test_the_plane_and_the_fit_are_told_with_their_limits(self, one):
        page = read(one)
        assert "plane z = +23 mm of MNI152" in page.words
        for text in (
            "Dice overlap 0.95 of the brains; at least 0.85",
            "Local correlation 0.75 at least 0.3",
        ):
            assert text in page.words
        assert "Turn 0° at most 55°" in page.words and "In the field of view 100 %" in page.words

    def test_the_outline_of_the_templates_brain_lies_over_the_input(self, one):
        page = read(one)
        (path,) = page.all("path", id="template")
        assert len(page.all("use", href="#template", class_="template")) == 2
        points = [
            np.array(part.replace("l", " ").split(), float).reshape(-1, 2)
            for part in path["d"].strip("Mz").split("zM")
        ]
        outline = max((line.cumsum(axis=0) / 10 for line in points), key=np.ptp)
        rows, columns = np.nonzero(one.slice.image > 0.1)
        for found, brain in ((outline[:, 1], rows), (outline[:, 0], columns)):
            assert (found.min(), found.max()) == pytest.approx(
                (brain.min(), brain.max() + 1), abs=1.5
            )

    def test_a_single_slice_is_said_not_to_be_registered(self, single):
        page = read(single)
        assert "Single slice, not registered." in page.words and "Dice" not in page.words
        assert not page.all("use", href="#template") and not page.all("input", id="show-template")
        assert "Side" not in page.words and "R, A, S, mm" in page.words

    def test_a_method_that_does_not_reconstruct_shows_none(self, one):
        bare = replace(
            one, slice=replace(one.slice, reconstruction=None), reconstruction_volume=None
        )
        page = read(bare)
        assert not page.all("input", id="show-reconstruction") and len(page.all("image")) == 2
        assert "Pseudo-healthy" not in page.words

    def test_the_scale_bar_is_five_centimetres(self, one):
        page = read(one)
        (bar,) = [path["d"] for path in page.all("path") if path["d"].startswith(f"M{64 * 0.03} ")]
        pixel = np.linalg.norm(one.slice.affine[:3, 1])
        assert float(bar.partition("h")[2]) * pixel == pytest.approx(50, abs=0.1)

    def test_sides_are_those_of_radiology(self, one):
        """Columns run to the patient's left (-x), so the picture's left edge is the right of the
        patient."""
        assert one.slice.affine[0, 1] < 0 and one.slice.affine[1, 0] < 0
        letters = re.findall(
            r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>([RLAP])</text>', read(one).source
        )
        assert len(letters) == 4 * 3
        for x, y, letter in letters:
            beside = {
                "R": float(x) < 10,
                "L": float(x) > 54,
                "A": float(y) < 10,
                "P": float(y) > 54,
            }
            assert beside[letter]

    def test_the_colour_bar_marks_the_threshold(self, one):
        (bar,) = [svg for svg in read(one).all("svg") if "Colours" in svg.get("aria-label", "")]
        assert (
            bar["aria-label"]
            == "Colours of the anomaly map, from 0 to 0.372; pixel threshold 0.0930"
        )


class TestRegions:
    def test_each_region_is_a_row_with_its_measures(self, one):
        page = read(one)
        rows = [row for row in page.all("tr") if "data-region" in row]
        assert [row["data-region"] for row in rows] == [str(region.label) for region in one.regions]
        region = one.regions[0]
        place = ", ".join(f"{value:.0f}".replace("-", "−") for value in region.peak_mni_mm)
        assert (
            f"1 {region.side} {place} {region.area_mm2:.0f} {region.peak:.3f} {region.mean:.3f}"
            in page.words
        )

    def test_a_peak_lies_where_the_map_is_highest(self, one):
        page = read(one)
        peaks = {path["data-peak"]: path["d"] for path in page.all("path") if "data-peak" in path}
        assert peaks.keys() == {str(region.label) for region in one.regions} and peaks
        for region in one.regions:
            left, y = map(float, peaks[str(region.label)][1:].partition("h")[0].split())
            assert one.slice.anomaly_map[int(y // 10), int((left + 20) // 10)] == pytest.approx(
                region.peak
            )

    def test_outlines_enclose_the_area_of_the_regions(self, one):
        """The area by Green's theorem is that of the table, to the width of the threshold's own
        line."""
        page = read(one)
        for region in [region for region in one.regions if region.area_mm2 > 200]:
            (path,) = [p["d"] for p in page.all("path", data_region=str(region.label))]
            area = 0.0
            for line in path.strip("Mz").split("zM"):
                start, _, steps = line.partition("l")
                x, y = (
                    np.array([*start.split(), *steps.split()], float)
                    .reshape(-1, 2)
                    .cumsum(axis=0)
                    .T
                    / 10
                )
                area += (x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
            assert abs(area) * 3.82**2 == pytest.approx(region.area_mm2, rel=0.25, abs=30)

    def test_no_region_no_table(self, brain, make_brain_screener):
        page = read(make_brain_screener(pixel_threshold=10.0)(brain))
        assert "No region lies above the pixel threshold" in page.words and not page.all(
            "tr", data_region="1"
        )

    def test_print_stops_after_twenty(self, one):
        regions = tuple(replace(one.regions[0], label=label) for label in range(1, 31))
        page = read(replace(one, regions=regions))
        assert (
            len(page.all("tr", class_="screen-only")) == 10
            and "The first 20 of 30 regions" in page.words
        )


class TestOrigin:
    def test_facts_have_units_and_hashes_are_short_but_whole(self, one):
        source = {
            "format": "dicom",
            "echo_time": 2.98,
            "image_type": ["ORIGINAL", "PRIMARY"],
            "contrast_agent": True,
        }
        page = read(replace(one, source=source))
        for text in (
            "echo time 2.98 ms",
            "image type ORIGINAL, PRIMARY",
            "contrast agent yes",
            "voxel size",
        ):
            assert text in page.words
        weights = one.provenance["identity"]["weights_sha256"]
        assert f"weights sha256 {weights[:12]}… {weights}" in page.words
        assert "slice · domain brain_extracted" in page.words and "versions · torch" in page.words

    def test_neither_uid_nor_path_nor_date(self, one, brain):
        page = read(replace(one, source={"format": "dicom", "series_uid": "1.2.840.99.1"}))
        assert "1.2.840.99.1" not in page.source and "series" not in page.words
        assert str(brain.parent) not in page.source and brain.name not in page.source

    def test_a_dot_for_each_healthy_person(self, one):
        page = read(one)
        assert len(page.all("circle")) == 20 and "(n = 20)" in page.words

    def test_every_text_is_escaped(self, one):
        evil = Finding(EVIL, EVIL, EVIL, refused=False, hint=EVIL)
        result = replace(
            one, findings=(evil,), source={EVIL: EVIL}, provenance={EVIL: {EVIL: [EVIL]}}
        )
        page = read(result, EVIL)
        assert len(page.all("script")) == 1
        assert page.text.count(EVIL) >= 9
        result = ScreeningResult("not_assessable", EVIL, EVIL)
        assert len(Page(report_html(result, EVIL)).all("script")) == 1


class TestFile:
    def test_the_same_result_gives_the_same_bytes(self, one, tmp_path):
        for name in ("a.html", "b.html"):
            save_report(one, "sub-01", tmp_path / name)
        assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()

    def test_it_is_small(self, one):
        """At 128 pixels a side, with noise that no picture format packs."""
        noise = np.random.default_rng(0).random((128, 128)).astype(np.float32)
        half = one.slice.affine @ np.diag([0.5, 0.5, 1, 1])
        labels = np.zeros((128, 128), np.uint16)
        fine = ScreenedSlice(
            one.score, noise, noise, noise, labels, half, 23.0, one.slice.mni_affine, one.slice.fit
        )
        assert len(report_html(replace(one, slice=fine), "sub-01")) < LARGEST

    def test_nothing_is_left_where_the_report_cannot_be_made(self, one, tmp_path):
        with pytest.raises(AttributeError):
            save_report(replace(one, slice="none"), "sub-01", tmp_path / "report.html")
        assert not list(tmp_path.iterdir())


@needs_chromium
class TestBrowser:
    def test_a_region_in_the_address_is_shown(self, one, tmp_path):
        save_report(one, EVIL, tmp_path / "report.html")
        opened = open_page(tmp_path / "report.html", "#region-2", tmp_path / "page.png")
        page, region = opened.page, one.regions[1]
        assert opened.console == []
        (row,) = page.all("tr", class_="selected")
        assert row["data-region"] == "2" and page.all("path", data_region="2", class_="selected")
        assert (
            f"Region 2: {region.side}, {region.area_mm2:.0f} mm², peak {region.peak:.3f}"
            in page.words
        )
        assert f"{one.outcome.capitalize()} Score {one.score:#.3g}" in page.words
        assert page.inside("title")[0].startswith(f"{one.outcome.capitalize()}: &lt;script&gt;")
        picture = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).reshape(-1, 3)
        assert len(np.unique(picture, axis=0)) > 200  # a brain was painted
        assert np.any(
            np.all(abs(picture.astype(int) - (0x4D, 0xE1, 0xFF)) < 12, axis=1)
        )  # and the template's outline

    def test_what_the_user_does_is_done(self, one, tmp_path):
        """Opacity and toggles; then a click on a row, one beside the outlines, and one on an
        outline."""
        script = """
          const act = (id, change) => { Object.assign(document.getElementById(id), change);
            document.getElementById(id).dispatchEvent(new Event("input", { bubbles: true })); };
          const gone = (id) => document.getElementById(id).hasAttribute("hidden");
          const note = () => [document.getElementById("base").getAttribute("href"),
            document.getElementById("over").getAttribute("opacity"), gone("over"), gone("outlines"), gone("brain"),
            document.getElementById("chosen").textContent, location.hash];
          const noted = [note()];
          act("opacity", { value: 30 }); act("show-reconstruction", { checked: true });
          act("show-template", { checked: true }); noted.push(note());
          act("show-map", { checked: false }); act("show-outlines", { checked: false }); noted.push(note());
          document.querySelector("tr[data-region='1'] td:last-child").click(); noted.push(note());
          document.getElementById("stack").dispatchEvent(new Event("click", { bubbles: true })); noted.push(note());
          document.querySelector("path[data-region='2']").dispatchEvent(new Event("click", { bubbles: true }));
          noted.push(note());
          document.body.dataset.noted = JSON.stringify(noted);
        """
        path = tmp_path / "report.html"
        path.write_text(with_script(report_html(one, "sub-01"), script), "utf-8")
        opened = open_page(path)
        assert opened.console == []
        (body,) = opened.page.all("body")
        first, moved, bare, row, cleared, outline = json.loads(body["data-noted"])
        assert first[:5] == ["#input", "0.7", False, False, True]
        assert moved[:5] == ["#reconstruction", "0.3", False, False, False] and bare[2:4] == [
            True,
            True,
        ]
        assert row[6] == "#region-1" and row[5].startswith("Region 1:")
        assert cleared[5] == "Choose a region in the picture or in the table."
        assert outline[5].startswith("Region 2:")

    def test_a_refused_scan_opens_without_complaint(self, refused, tmp_path):
        save_report(refused, "sub-01", tmp_path / "report.html")
        opened = open_page(tmp_path / "report.html", "#region-1")
        assert opened.console == [] and "Not assessable" in opened.page.words

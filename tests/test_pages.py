"""Pages that stand alone."""

import json
import math

import pytest
from jinja2 import UndefinedError
from outputs.browser import checked, needs_chromium, open_page

from pathology_screen.experiments import Measurements, Report
from pathology_screen.metrics.pooled import pooled_mean
from pathology_screen.pages import number, render, short_hash

TITLE = ["Of &lt;b&gt;things&lt;/b&gt;"]


def test_numbers_and_hashes():
    numbers = [(0.027834, 3), (0.1599, 3), (1 / 21, 2), (100.0, 3), (-3.25, 2), (None, 3)]
    shown = [number(value, digits) for value, digits in [*numbers, (math.nan, 3)]]
    assert shown == ["0.0278", "0.160", "0.048", "100", "−3.2", "–", "–"]
    assert short_hash("29bfc375cb92" + "0" * 52) == "29bfc375cb92…"
    assert short_hash("st_alex:468da9baa421" + "f" * 52) == "st_alex:468da9baa421…"
    for text in ("1.2.826.0.1.3680043.2.1143.515404396022363061013111326823367652", "isotropic"):
        assert short_hash(text) == ""


@pytest.fixture
def experiment():
    measured = Measurements()
    measured.add("ra", "", "error", pooled_mean([1, 2, 3], ["a", "b", "c"]), 3)
    report = Report("trial", "Of <b>things</b>", measured, ["A note."], {})
    return {"report": report, "pictures": {}, "provenance": json.dumps({"seed": 0})}


def test_a_page_without_script_allows_none_and_a_missing_value_is_an_error(experiment):
    page = checked(render("experiment", **experiment))
    assert page.policy["script-src"] == "'none'" and not page.all("script") and not page.all("b")
    assert page.inside("title") == TITLE
    del experiment["provenance"]
    with pytest.raises(UndefinedError, match="provenance"):
        render("experiment", **experiment)


@needs_chromium
def test_the_policy_stops_what_is_smuggled_in(experiment, tmp_path):
    """Even where a text were not escaped, the browser would neither run it nor fetch for it."""
    smuggled = (
        "<script>document.title = 'it ran'</script><style>h1 { display: none }</style>"
        "<img src='http://127.0.0.1:9/x' onerror='document.title = 1'></body>"
    )
    html = render("experiment", **experiment).replace("</body>", smuggled)
    page = open_page(html, tmp_path)
    assert page.inside("title") == TITLE
    refused = [line for line in page.console if "Content Security Policy" in line]
    for kind in ("script-src", "img-src", "style-src"):
        assert any(kind in line for line in refused)

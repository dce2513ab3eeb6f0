"""A bundle is found by its name wherever the package and the working directory are."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from pathology_screen.bundles import PROFILES, bundle_root, bundles_folder, read_settings
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.predictor import build_preprocessing
from pathology_screen.registry import METHODS

CHECKOUT = Path(__file__).resolve().parents[1]
PARTS = {"LICENSE", "configs", "docs", "models"}
"""Of a bundle, in a wheel."""
BUNDLES = [name for name, method in METHODS.items() if not method.is_control]


def test_every_method_has_its_bundle():
    for name in BUNDLES:
        root = bundle_root(name)
        assert root == bundles_folder().resolve() / name
        metadata = json.loads((root / "configs" / "metadata.json").read_text())
        assert metadata["required_packages_version"]["pathology_screen"]


def test_a_bundle_is_found_by_its_name_anywhere_and_one_of_ones_own_by_its_path(
    tmp_path, monkeypatch
):
    expected = bundle_root("ra")
    for name in ("ra", "mine"):
        (tmp_path / name / "configs").mkdir(parents=True)
        (tmp_path / name / "configs" / "metadata.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert bundle_root("ra") == expected
    assert bundle_root(tmp_path / "mine") == bundle_root("mine") == (tmp_path / "mine").resolve()


@pytest.mark.parametrize("name", ["no_such_method", "", ".", "ra/configs"])
def test_what_is_no_bundle_is_refused_with_those_that_are(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"bundles here: .*\bra\b"):
        bundle_root(name)


def pip(*arguments):
    """Run pip without the network; return its output, which must hold no warning."""
    options = "--no-build-isolation --no-deps --no-index --disable-pip-version-check --no-input"
    command = [sys.executable, "-m", "pip", *arguments[:1], *options.split(), *arguments[1:]]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what a wheel is built from, with weights and with leftovers of runs."""
    copy = tmp_path_factory.mktemp("checkout")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    tracked = subprocess.run(listing, cwd=CHECKOUT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not in a git checkout")
    for name in filter(None, tracked.stdout.split("\0")):
        if (CHECKOUT / name).is_file() and not name.startswith(("tests/", "docs/", "benchmarks/")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((CHECKOUT / name).read_bytes())
    weights, left = ("models/model.pt", "models/model.ts"), ("train/log.csv", "a/model.pt")
    for name in (*weights, "eval/table.csv", *(f"runs/{file}" for file in left)):
        (copy / "bundles/ra" / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / "bundles/ra" / name).write_bytes(b"x")
    return copy


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    output = tmp_path_factory.mktemp("wheel")
    log = pip("wheel", "-v", "--wheel-dir", str(output), str(checkout)).lower()
    assert "deprecat" not in log and "absent from the `packages`" not in log
    return next(output.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_carries_every_module_and_every_bundle(wheel, checkout):
    names = zipfile.ZipFile(wheel).namelist()
    package, bundles = checkout / "pathology_screen", checkout / "bundles"
    shipped = ("LICENSE", "configs/*", "docs/*", "models/*.pt", "models/*.json", "models/*.csv")
    expected = {path.relative_to(package) for path in package.rglob("*") if path.is_file()}
    for part in shipped:
        expected |= {
            Path("_bundles", path.relative_to(bundles)) for path in bundles.glob(f"*/{part}")
        }
    lists = (checkout / "data_lists").iterdir()
    endings = (".csv", ".json", ".py")
    expected |= {Path("_data_lists", path.name) for path in lists if path.suffix in endings}
    found = {name for name in names if ".dist-info/" not in name}
    assert found == {f"pathology_screen/{path}" for path in expected}
    assert {name.split("/")[3] for name in names if "/_bundles/ra/" in name} == PARTS


def located(code, *options, **environment):
    """Where an interpreter in another folder finds the module and a bundle."""
    code += "import pathology_screen.bundles as b; print(b.__file__); print(b.bundle_root('ra'))"
    command, given = [sys.executable, *options, "-c", code], {"env": os.environ | environment}
    return [*map(Path, subprocess.check_output(command, cwd="/", text=True, **given).split())]


@pytest.mark.slow
def test_an_installed_wheel_finds_its_bundles_from_any_folder(wheel, tmp_path):
    pip("install", "--target", str(tmp_path / "site"), str(wheel))
    module, root = located("", PYTHONPATH=str(tmp_path / "site"))
    package = tmp_path / "site/pathology_screen"
    assert (module, root) == (package / "bundles.py", package / "_bundles/ra")
    assert {path.name for path in root.iterdir()} == PARTS and (root / "models/model.pt").is_file()


@pytest.mark.slow
def test_an_editable_installation_finds_the_bundles_of_the_checkout(checkout, tmp_path):
    """As a wheel that holds a link in place of the code; its path file works in a folder for
    packages alone."""
    pip("install", "--target", str(tmp_path / "site"), "--editable", str(checkout))
    module, root = located(f"import site; site.addsitedir({str(tmp_path / 'site')!r})\n", "-S")
    assert module == checkout / "pathology_screen/bundles.py" and root == checkout / "bundles/ra"


# --- settings as data ---


@pytest.fixture
def bundle(tmp_path):
    """Function that writes a bundle's configurations."""

    def write(config, **overlays):
        (tmp_path / "configs").mkdir(exist_ok=True)
        (tmp_path / "configs/metadata.json").write_text("{}")
        for name, content in {"inference": config, **overlays}.items():
            (tmp_path / f"configs/{name}.json").write_text(json.dumps(content))
        return tmp_path

    return write


SETTING = {
    "method": "ra",
    "slice": {"size": 64},
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [{"_target_": "Resized", "spatial_size": "@slice#size"}],
    },
    "scoring": {"perceptual": "none"},
    "network_def": {"_target_": "a.B", "size": "@slice#size", "channels": [1, "@slice#size"]},
    "device": "$torch.device('cpu')",
}


def test_references_are_followed_and_overlays_laid_over(bundle):
    root = bundle(
        SETTING,
        paper={"network_def#channels": [2], "slice#size": 32, "scoring": {"equalize": True}},
    )
    assert read_settings(root) == {
        **{name: SETTING[name] for name in ("method", "slice", "scoring")},
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Resized", "spatial_size": 64}],
        },
        "network_def": {"_target_": "a.B", "size": 64, "channels": [1, 64]},
        "calibration_section": "calibration",
    }
    paper = read_settings(root, "paper")
    assert (paper["slice"], paper["scoring"]) == ({"size": 32}, {"equalize": True})
    assert paper["network_def"]["channels"] == [2] and paper["network_def"]["size"] == 32


def test_expressions_and_gaps_are_refused(bundle):
    with pytest.raises(ArtifactError, match="expression"):
        read_settings(bundle(SETTING | {"scoring": {"perceptual": "$print()"}}))
    with pytest.raises(ArtifactError, match="lacks slice"):
        read_settings(bundle({name: value for name, value in SETTING.items() if name != "slice"}))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", BUNDLES)
def test_settings_are_those_that_monai_finds(name, profile):
    folder = bundle_root(name) / "configs"
    files = [folder / file for file in ("inference.json", *PROFILES[profile])]
    parser = ConfigParser(ConfigParser.load_config_files(files))
    settings = read_settings(name, profile)
    for key in ("method", "slice", "scoring"):
        assert settings[key] == parser.get_parsed_content(key)
    steps = parser.get_parsed_content("preprocessing").transforms
    built = build_preprocessing(settings["preprocessing"]).transforms
    assert [*map(type, built)] == [*map(type, steps)]
    network = parser.get_parsed_content("network_def", instantiate=False).get_config()
    arguments = {key: value for key, value in network.items() if not key.startswith("_")}
    assert settings["network_def"] == arguments | {"_target_": METHODS[name].network}

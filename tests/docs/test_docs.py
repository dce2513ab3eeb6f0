"""The documentation holds what it promises: links, commands and tables agree with the
repository."""

import ast
import importlib
import inspect
import json
import re
import runpy
import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from pathology_screen import cli
from pathology_screen.outputs.dicom import NAMES
from pathology_screen.outputs.results import SIDECARS
from pathology_screen.registry import METHODS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
MODEL_CARDS = sorted((ROOT / "bundles").glob("*/docs/README.md"))
ALONE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data_lists/README.md")
TEXTS = [*(ROOT / name for name in ALONE), *PAGES, *MODEL_CARDS]
GONE = (
    *("standard pose", "restoration", "registered_template", "reversed_similarity", "isotropic"),
    *("eval_transforms", "each_level", "axial_slices", "--level", "--slices all", "--every"),
    *("random-pose", "#passes", "preprocessing_options", "scored_level", "../shared"),
)
"""What the software had once; no text may speak of it."""
GONE_FROM_CODE = re.compile("principal|standard pose|restoration", re.IGNORECASE)
CONTROL = re.compile("principal[ _-]?components?|PrincipalComponents", re.IGNORECASE)
BUNDLES = [name for name, method in METHODS.items() if not method.is_control]
TABLES = runpy.run_path(str(ROOT / "docs/make_tables.py"))
ENDINGS = (".py", ".json", ".md", ".txt", ".html")
PLACEHOLDER = re.compile(r"[A-Z_]+(/|$)|best_model\.pt$")

every_text = pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))


def commands(path: Path) -> list[list[str]]:
    """The shell commands in the code blocks of a page, as words; lines joined by a backslash are
    one."""
    text = path.read_text("utf-8").replace("\\\n", " ")
    parts = re.findall(r"^```bash(?: [^\n]*)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    parts += re.findall(r"^ {4}(?=python |pathology-screen |torchrun )(.*)$", text, re.MULTILINE)
    lines = filter(str.strip, "\n".join(parts).splitlines())
    return [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]


def commands_of_all(*names: str) -> list[tuple[str, list[str]]]:
    """Commands that hold all the names, each with the page where it stands."""
    found = [(str(path.relative_to(ROOT)), words) for path in TEXTS for words in commands(path)]
    return [(page, words) for page, words in found if all(name in words for name in names)]


def options(words: list[str]) -> dict[str, str]:
    """`--key value` pairs of a command."""
    return {word[2:]: value for word, value in zip(words, words[1:]) if word.startswith("--")}


def heading_anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    bare = (re.sub(r"[^\w\- ]", "", heading).strip() for heading in headings)
    return {heading.lower().replace(" ", "-") for heading in bare}


@every_text
def test_relative_links_lead_to_files_and_headings(path):
    links = re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)\)", path.read_text("utf-8"))
    for link in links:
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in heading_anchors(target), f"{link} names no heading"


@every_text
def test_no_text_speaks_of_what_is_gone(path):
    text = path.read_text("utf-8").lower()
    assert [word for word in GONE if word in text] == []


@pytest.mark.parametrize(
    ("folder", "known"),
    [
        ("bundles", []),
        ("pathology_screen/engines", []),
        ("pathology_screen/screening", []),
        ("pathology_screen", ["methods.py", "controls.py", "registry.py"]),
    ],
)
def test_no_code_speaks_of_what_is_gone(folder, known):
    """But for a control, where it is known; weights and their calibrations are no texts."""
    files = [file for file in sorted((ROOT / folder).rglob("*")) if file.parent.name != "models"]
    texts = {file: file.read_text("utf-8") for file in files if file.suffix in ENDINGS}
    plain = {file: " ".join(text.split()) for file, text in texts.items()}
    assert plain and [file.name for file in plain if GONE_FROM_CODE.search(plain[file])] == known
    rest = {file.name for file in plain if GONE_FROM_CODE.search(CONTROL.sub("", plain[file]))}
    assert rest == set()


def test_the_texts_stay_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 90
    assert [path for path in MODEL_CARDS if len(path.read_text("utf-8").split()) > 550] == []


def given_files(words: list[str]) -> list[str]:
    """The configuration and metadata files that a bundle command names."""
    chosen = [value for key, value in options(words).items() if key in ("config_file", "meta_file")]
    lists = (ast.literal_eval(value) if value.startswith("[") else [value] for value in chosen)
    return [file for files in lists for file in files]


def exists(file: str) -> bool:
    return (ROOT / file).is_file() or bool(PLACEHOLDER.match(file))


def test_bundle_commands_name_existing_files():
    found = commands_of_all("-m", "monai.bundle")
    assert len(found) > 15
    for page, words in found:
        files = given_files(words)
        assert files and all(map(exists, files)), f"{page}: {words}"


def test_bundle_runs_name_what_the_configurations_hold():
    for page, words in commands_of_all("-m", "monai.bundle", "run"):
        files = [ROOT / file for file in given_files(words) if (ROOT / file).is_file()]
        parser = ConfigParser(ConfigParser.load_config_files(files))
        given = words[words.index("run") + 1 :]
        assert (given[0] if not given[0].startswith("--") else "run") in parser.get(), (page, given)
        keys = options(given).keys() - {"config_file", "meta_file"}
        assert [key for key in keys if not is_there(parser, key)] == [], page


def is_there(parser: ConfigParser, key: str) -> bool:
    """Whether the configuration has a key, or leaves it out and it is an argument of what it
    belongs to."""
    parent, _, name = key.rpartition("#")
    if key in parser or parent not in parser:
        return key in parser
    target = parser[parent].get("_target_", "")
    if parent == "scoring":  # "$a.B(**@scoring)" calls a.B
        target = re.match(r"\$([\w.]+)\(", parser["anomaly_map"])[1]
    module, _, attribute = target.rpartition(".")
    function = target and getattr(importlib.import_module(module), attribute)
    return bool(function) and name in inspect.signature(function).parameters


def configurations(bundle: str) -> list[ConfigParser]:
    """Training and inference of a bundle."""
    folder = ROOT / "bundles" / bundle / "configs"
    files = [folder / name for name in ("train.json", "inference.json")]
    return [ConfigParser(ConfigParser.load_config_files([file])) for file in files]


def test_options_of_pages_exist_in_the_configurations():
    """Options written in the text rather than in a command: on a page in those of any bundle, on a
    model card in those of its own."""
    parsers = {bundle: configurations(bundle) for bundle in BUNDLES}
    found = 0
    for path in TEXTS:
        card = path.parents[1].name if path in MODEL_CARDS else None
        known = parsers[card] if card else [parser for both in parsers.values() for parser in both]
        for key in re.findall(r"`--([a-z_]+#[a-z_#]+)", path.read_text("utf-8")):
            assert any(is_there(parser, key) for parser in known), f"{path.name}: {key}"
            found += 1
    assert found > 10


@pytest.mark.parametrize("path", MODEL_CARDS, ids=lambda path: path.parents[1].name)
def test_model_cards_credit_the_data_and_name_their_limits(path):
    text = " ".join(path.read_text("utf-8").split())
    wanted = ("IXI, brain-development.org, CC BY-SA 3.0", "other_domain", "Not a medical device")
    assert [words for words in wanted if words not in text] == []


def test_every_bundle_has_a_model_card_with_its_own_commands():
    assert [path.parents[1].name for path in MODEL_CARDS] == sorted(BUNDLES)
    for path in MODEL_CARDS:
        bundle = path.parents[1].name
        files = [file for words in commands(path) for file in given_files(words)]
        assert files and all(file.startswith(f"bundles/{bundle}/") for file in files), path
        kinds = ("train", "inference", "paper")
        assert {f"bundles/{bundle}/configs/{name}.json" for name in kinds} <= set(files)


def test_every_method_stands_on_the_page_of_baselines():
    text = (ROOT / "docs/baselines.md").read_text("utf-8")
    assert [name for name in METHODS if f"`{name}`" not in text] == []
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [name for name in BUNDLES if f"`bundles/{name}`" not in readme] == []


def test_subcommands_and_their_options_exist():
    everywhere = [
        (page, words[1 + words.index("--no-python") :] if "--no-python" in words else words)
        for page, words in commands_of_all()
    ]
    found = [(page, words) for page, words in everywhere if words[:1] == ["pathology-screen"]]
    assert {words[1] for _, words in found} == set(subparsers())
    for page, words in found:
        try:
            cli._parser().parse_args(words[1:])
        except SystemExit:
            pytest.fail(f"{page}: {words} is no command")


def subparsers() -> dict[str, ArgumentParser]:
    choices = (action.choices for action in cli._parser()._actions)
    return next(found for found in choices if isinstance(found, dict))


def test_scripts_exist():
    for page, words in commands_of_all("python"):
        scripts = [word for word in words[1:2] if word.endswith(".py")]
        assert all(map(exists, scripts)), f"{page}: {words}"


def test_two_commands_stand_at_the_top_of_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    first, second = re.findall(r"^    (.*)$", text, re.MULTILINE)[:2]
    assert "monai.bundle run training" in first and "inference.json" in first
    assert second.endswith("python -m pytest")


def test_tables_are_what_the_code_says():
    fill, tables = (TABLES[name] for name in ("fill", "TABLES"))
    of_bundles = {f"{kind}-{name}" for kind in ("recipe", "results") for name in BUNDLES}
    assert {name for _, name, _ in tables} >= {"refusals", "profiles"} | of_bundles
    for page, name, table in tables:
        text = (ROOT / "docs" / page).read_text("utf-8")
        assert fill(text, name, table()) == text, f"{page}; run: python docs/make_tables.py"


def test_a_table_without_its_place_on_the_page_is_an_error():
    fill, text = TABLES["fill"], "<!-- a:start -->\n{}\n<!-- a:end -->"
    assert fill(text.format("old"), "a", "new") == text.format("\nnew")
    with pytest.raises(ValueError, match="0 places for the table b"):
        fill("<!-- a:start -->\n<!-- a:end -->", "b", "new")


def test_every_field_of_the_record_is_on_the_page():
    text = (ROOT / "docs/screening.md").read_text("utf-8")
    described = json.loads((ROOT / "pathology_screen/outputs/screening.schema.json").read_text())
    assert [name for name in described["properties"] if f"`{name}`" not in text] == []


def test_endings_of_the_files_are_those_that_are_written():
    for page in ("README.md", "docs/screening.md"):
        text = (ROOT / page).read_text("utf-8")
        volumes = set(re.findall(r"`(?:sub-NAME/)?sub-NAME_(desc-\w+)\.nii\.gz`", text))
        assert volumes == set(SIDECARS), page
    assert all(f"`{name}`" in (ROOT / "docs/screening.md").read_text("utf-8") for name in NAMES)


def test_every_argument_of_every_command_is_on_the_page():
    text = (ROOT / "docs/cli.md").read_text("utf-8")
    for name, parser in subparsers().items():
        section = re.search(rf"^## {name}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]
        options = {o for action in parser._actions for o in action.option_strings[-1:]}
        assert [o for o in options - {"--help"} if f"`{o}`" not in section] == []


def test_every_block_of_commands_is_run_or_says_what_it_needs():
    """What stands without a title is run by `test_commands_run.py`."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for title in re.findall(r"^```bash ?(.*)$", text, re.MULTILINE):
            assert re.fullmatch('title="needs [^"]+"', title) or page.name == "tutorial.md", page
        assert not re.search(r"^ {4}(?:python|pathology-screen|torchrun) ", text, re.MULTILINE)


def test_python_examples_import_what_exists():
    text = (ROOT / "docs/python.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    nodes = [node for block in blocks for node in ast.parse(block).body]
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        module = importlib.import_module(node.module)
        assert all(hasattr(module, alias.name) for alias in node.names)


def test_navigation_lists_every_page():
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)
    assert sorted(listed) == sorted(str(path.relative_to(ROOT / "docs")) for path in PAGES)

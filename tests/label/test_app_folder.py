"""The folder of an app."""

import pytest

from pathology_screen.cli import main
from pathology_screen.label.app_folder import write_app


def test_the_command_writes_an_app_and_says_how_to_start_it(tmp_path, capsys):
    folder = tmp_path / "app"
    assert main(["label-app", str(folder)]) == 0
    assert f"python {folder / 'main.py'} --studies STUDIES" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "main.py"]
    compile((folder / "main.py").read_text(), "main.py", "exec")


def test_an_app_is_brought_up_to_date_and_keeps_what_it_has_learned(tmp_path):
    main_file = write_app(tmp_path / "app")
    kept = tmp_path / "app" / "model" / "ra" / "active.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    main_file.write_text(main_file.read_text() + "# of an older version\n")
    assert "older version" not in write_app(tmp_path / "app").read_text()
    assert kept.read_text() == "{}"


@pytest.mark.parametrize("name", ["notes.txt", "main.py"])
def test_another_folder_is_not_written_into(tmp_path, name, capsys):
    (tmp_path / name).write_text("mine")
    assert main(["label-app", str(tmp_path)]) == 1
    assert "name a new one" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]

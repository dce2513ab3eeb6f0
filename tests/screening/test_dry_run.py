"""What a run would do is told, and nothing is done."""

from batches import contents

from pathology_screen import cli


def test_a_dry_run_tells_what_a_run_would_do_and_writes_nothing(
    tree, make_screener, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(cli, "_screener", lambda options: make_screener())
    (tree / "notes.txt").write_text("no scan")
    out, key = tmp_path / "out", tmp_path / "key.csv"
    command = ["screen", str(tree), "-o", str(out), "--axial-slice", "--names", "paths"]
    dry = [*command, "--dry-run", "--key", str(key)]
    assert cli.main(dry) == cli.NOT_ASSESSABLE
    told = capsys.readouterr().out.splitlines()
    assert told[:4] == [f"s{number}T1w: to screen" for number in range(4)]
    assert told[4].startswith("s4T1w: would be refused: [unreadable]")
    assert told[5].startswith("4 to screen, 0 done already, 1 would be refused, 1 files")
    assert not out.exists() and not key.exists()
    assert cli.main([*command[:1], str(tree / "s0"), *dry[2:]]) == 0

    assert cli.main(command) == cli.NOT_ASSESSABLE
    kept, _ = contents(out), capsys.readouterr()
    assert cli.main(dry) == cli.NOT_ASSESSABLE and contents(out) == kept
    assert "s4T1w: done already: not_assessable\n0 to screen, 5 done" in capsys.readouterr().out
    monkeypatch.setattr(cli, "_screener", lambda options: make_screener(rate=0.2))
    assert cli.main(dry) == 1 and "other settings (rate" in capsys.readouterr().err

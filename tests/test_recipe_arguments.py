"""Every recipe starts from its command line, and says what it takes."""

import pathlib
import runpy
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
RECIPES = [
    path.stem
    for path in sorted((ROOT / "recipes").glob("*.py"))
    if "\ndef main(" in path.read_text()
]


@pytest.mark.parametrize("name", RECIPES)
def test_help(name, monkeypatch, capsys):
    # Otherwise runpy warns of a module that another test has imported.
    monkeypatch.delitem(sys.modules, f"recipes.{name}", raising=False)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match="^0$"):
        runpy.run_module(f"recipes.{name}", run_name="__main__")
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("smoke", "--resume", "--recompute"))


@pytest.mark.parametrize(
    "name, option",
    [
        ("spos_figure2", "--supernet"),
        ("mixpath_figure5", "--supernet"),
        ("mixpath_figure7", "--supernet"),
        ("mixpath_table1", "--supernet"),
        ("mixpath_table1", "--network"),
        ("mixpath_table4", "--supernet"),
    ],
)
def test_a_missing_file_is_noticed_before_the_work(
    name, option, monkeypatch, capsys, tmp_path
):
    monkeypatch.delitem(sys.modules, f"recipes.{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    words = [option, "missing.keras", "--preset", "smoke", "--output-dir", "out"]
    monkeypatch.setattr(sys, "argv", [name, *words])
    with pytest.raises(SystemExit, match="^2$"):
        runpy.run_module(f"recipes.{name}", run_name="__main__")
    assert f"{option}: Expected a file that exists" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["mixpath_table3", "spos_table8", "nasbench_macro", "nasbench_macro_search"]
)
def test_a_missing_table_leaves_no_output_behind(name, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, f"recipes.{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    words = ["--data-dir", ".", "--preset", "smoke", "--output-dir", "out"]
    monkeypatch.setattr(sys, "argv", [name, *words])
    with pytest.raises(FileNotFoundError, match=r"nasbench\w*.npz"):
        runpy.run_module(f"recipes.{name}", run_name="__main__")
    assert not (tmp_path / "out").exists()

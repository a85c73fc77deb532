"""The table of commands: groups of the help, loading on use, names of earlier versions."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer
from tests.cli.conftest import Tumen

from tumen import cli
from tumen.cli.commands import COMMANDS, RENAMED_COMMANDS, RenamedError, reject_old_names

GROUPS = {
    "Build": ("run", "recipe", "train", "lineage", "export", "import"),
    "Plan": ("plan", "fit"),
    "Cluster": (
        "launch",
        "status",
        "logs",
        "cancel",
        "nodes",
        "drain",
        "watch",
        "resize",
        "drill",
        "goodput",
        "metrics",
    ),
    "Evaluate": ("eval", "ablate"),
    "Release": ("keys", "sign", "promote", "rollback"),
    "Use": ("talk", "serve"),
}


def command(name: str) -> Any:
    return typer.main.get_command(cli.app).commands[name]  # type: ignore[attr-defined]


def test_the_help_has_every_command_under_its_heading(tumen: Tumen) -> None:
    shown = tumen("--help").stdout
    found: dict[str, list[str]] = {}
    for line in shown[shown.index("Build:") :].splitlines():
        if line.endswith(":") and not line.startswith(" "):
            found[line.removesuffix(":")] = []
        elif line.startswith("  ") and line[2] != " ":
            found[list(found)[-1]].append(line.split()[0])
    assert found == {group: list(names) for group, names in GROUPS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_the_first_sentence_of_the_command(name: str) -> None:
    sentence = COMMANDS[name].help
    assert sentence.endswith(".")
    assert command(name).help.split("\n\n")[0].replace("\n", " ") == sentence


def test_the_help_imports_no_command() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['tumen', '--help']\n"
        "from tumen.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('tumen.')}\n"
        "print(sorted(rooms))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['cli', 'core']"


@pytest.mark.parametrize(("old", "new"), RENAMED_COMMANDS.items())
def test_an_old_command_is_one_line_with_the_new_one(tumen: Tumen, old: str, new: str) -> None:
    done = tumen(old, "runs/tiny")
    assert done.returncode == 2
    assert done.stderr == f"tumen: `tumen {old}` is now `tumen {new}`; see `tumen {new} --help`\n"


def test_an_old_option_is_one_line_with_the_new_one(tumen: Tumen) -> None:
    for option in (("--exam", "ohf"), ("--exam=ohf",)):
        done = tumen("eval", "bundle", *option)
        assert done.returncode == 2
        assert done.stderr == "tumen: `--exam` is now `--suite`; see `tumen eval --help`\n"


def test_words_behind_two_dashes_are_text() -> None:
    reject_old_names(["talk", "--", "--exam"])
    reject_old_names([])
    with pytest.raises(RenamedError):
        reject_old_names(["eval", "--exam", "--"])


def test_a_misspelt_command_names_the_one_that_is_meant(tumen: Tumen) -> None:
    done = tumen("lanch")
    assert done.returncode == 2
    assert "Did you mean 'launch'" in done.stderr

"""Changed rows are noticed wherever a recipe names a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tumen.data import data_digests
from tumen.recipe import Data


def one_file(folder: Path) -> Data:
    return Data(source="slurp", path=str(folder / "rows.jsonl"))


def a_folder(folder: Path) -> Data:
    return Data(source="text", path=str(folder))


def a_glob(folder: Path) -> Data:
    return Data(source="text", path=str(folder / "*.jsonl"))


def a_mix(folder: Path) -> Data:
    return Data.model_validate({"mix": [{"path": str(folder), "weight": 1}, {"weight": 1}]})


def held_out(folder: Path) -> Data:
    return Data(held_out=(str(folder / "rows.jsonl"),))


def priors(folder: Path) -> Data:
    part = {"weight": 1, "class_priors": str(folder / "rows.jsonl")}
    return Data.model_validate({"mix": [part]})


@pytest.mark.parametrize("section", [one_file, a_folder, a_glob, a_mix, held_out, priors])
def test_other_rows_are_another_digest(section: Callable[[Path], Data], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one"}\n')
    first = data_digests(section(tmp_path))
    assert list(first)
    assert data_digests(section(tmp_path)) == first
    rows.write_text('{"text": "two"}\n')
    os.utime(rows, ns=(1, 1))  # a time of its own, on file systems with coarse ones too
    assert data_digests(section(tmp_path)) != first


def test_a_touched_file_has_the_same_digest(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one"}\n')
    first = data_digests(one_file(tmp_path))
    os.utime(rows, ns=(1, 1))
    assert data_digests(one_file(tmp_path)) == first


def test_names_of_a_hub_and_missing_paths_have_none() -> None:
    assert data_digests(Data(source="massive", path="AmazonScience/massive")) == {}
    assert data_digests(Data()) == {}

"""What a bundle says about itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tumen.core.errors import ArtifactError
from tumen.serve.runners import read_bundle_info


def test_fields_of_a_newer_tumen_are_ignored(tmp_path: Path) -> None:
    about = {"recipe": "pocket", "tier": "device", "of_tomorrow": 1}
    (tmp_path / "bundle.json").write_text(json.dumps(about))
    info = read_bundle_info(tmp_path)
    assert (info.recipe, info.tier, info.prefix, info.control) == ("pocket", "device", "", None)


def test_a_folder_without_bundle_json_is_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing, so .* is not a bundle"):
        read_bundle_info(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"recipe": 1, "tier": "x"}', '{"recipe": "x"}', "\xff"]
)
def test_a_damaged_bundle_json_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "bundle.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match="bundle.json: ") as caught:
        read_bundle_info(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_field_that_is_wrong_is_named(tmp_path: Path) -> None:
    about = {"recipe": "x", "tier": "y", "serve": {"unsure": 7}}
    (tmp_path / "bundle.json").write_text(json.dumps(about))
    with pytest.raises(ArtifactError, match="damaged at serve.unsure"):
        read_bundle_info(tmp_path)


def test_an_older_bundle_says_quantise(tmp_path: Path) -> None:
    about = {"recipe": "pocket", "tier": "device", "quantise": "int4"}
    (tmp_path / "bundle.json").write_text(json.dumps(about))
    assert read_bundle_info(tmp_path).quantize == "int4"

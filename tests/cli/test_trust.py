"""Keys, signatures, promotion and rollback as people type them."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest
from tests.cli.conftest import Tumen

from tumen.core import events
from tumen.core.artifact import manifest_of
from tumen.release import slot


@pytest.fixture(scope="module")
def key(tumen: Tumen, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "release"
    done = tumen("keys", path)
    assert done.returncode == 0, done.stderr
    return path


def test_keys_are_not_written_over(tumen: Tumen, key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    done = tumen("keys", key)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "already exists" in done.stderr


def test_from_a_run_to_a_signed_live_place_and_back(
    tumen: Tumen, run: Path, key: Path, tmp_path: Path
) -> None:
    live, store, digest = (
        tmp_path / "live",
        key.with_name("release.pub"),
        manifest_of(run / "bundle-device").digest,
    )
    refused = tumen("talk", "--run", run, "--ungated", "--trust", store, "turn on the light")
    assert refused.returncode == 3
    assert "is not signed" in refused.stderr
    assert refused.stderr.count("\n") == 1

    signed = tumen("sign", run, "--key", key, "--version", 1)
    assert signed.returncode == 0, signed.stderr
    assert manifest_of(run / "bundle-device").digest == digest
    first = tumen("promote", run, "--to", live, "--trust", store)
    assert first.returncode == 0, first.stderr
    assert tumen("sign", run, "--key", key, "--version", 2).returncode == 0
    assert (
        f"live is 000002-{digest}" in tumen("promote", run, "--to", live, "--trust", store).stdout
    )
    said = tumen("talk", "--run", live, "--trust", store, "--json", "turn on the light")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["sentence"]
    assert tumen("eval", live, "--trust", store, "--json").returncode == 0

    back = tumen("rollback", live, "--trust", store)
    assert back.stdout == f"{live}: live is 000001-{digest}\n"
    assert tumen("rollback", live).returncode == 4
    told = [row["state"] for row in events.read(live / slot.EVENTS, "promotion")]
    assert told == ["started", "done", "started", "done"]


def test_without_a_store_the_run_hears_once_that_nobody_signed(tumen: Tumen, run: Path) -> None:
    for _ in range(2):
        done = tumen("talk", "--run", run, "--ungated", "turn on the light")
        assert done.returncode == 0, done.stderr
    assert len(list(events.read(run / "events.jsonl", "bundle_unsigned"))) == 1


def test_what_does_not_pass_is_not_promoted(tumen: Tumen, run: Path, tmp_path: Path) -> None:
    live = tmp_path / "live"
    shutil.rmtree(run / "bundle-device" / "scorecard")
    done = tumen("promote", run, "--to", live)
    assert done.returncode == 9
    assert "no scorecard" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not slot.is_slot(live)
    for verb in (
        ("talk", "--run", live, "hello"),
        ("serve", live),
        ("rollback", live),
        ("promote", tmp_path / "none", "--to", live),
    ):
        done = tumen(*verb)
        assert done.returncode == 4, verb
        assert done.stderr.count("\n") == 1


def test_the_scorecard_shows_the_classes(tumen: Tumen, whole: Path) -> None:
    said = tumen("eval", whole).stdout
    assert "device / cloud" in said
    assert "device reaches its share of the cloud in " in said
    own = json.loads(tumen("eval", whole, "--json").stdout)
    assert "marks" not in json.dumps(own)

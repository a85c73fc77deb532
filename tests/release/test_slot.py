"""A slot: the live bundle stays usable whatever happens to a promotion."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tumen.core.artifact import manifest_of, verify, writing
from tumen.core.errors import ArtifactError, DiskError, InputError, RunnerBusy
from tumen.core.lock import alone
from tumen.release import slot


def make_bundle(folder: Path, text: str, size: int = 0) -> Path:
    with writing(folder, "bundle", "x", []) as stage:
        (stage / "model.gguf").write_bytes(text.encode() + bytes(size))
        (stage / "bundle.json").write_text("{}")
    return folder


def text_of(folder: Path) -> str:
    bundle = slot.live_bundle(folder)
    verify(bundle, "bundle")
    return (bundle / "model.gguf").read_bytes().rstrip(b"\0").decode()


def test_activate_keeps_earlier_bundles_and_roll_back_returns_to_them(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    assert not slot.is_slot(folder)
    for n in range(6):
        slot.activate(folder, make_bundle(tmp_path / f"b{n}", str(n)), keep=2)
        assert text_of(folder) == str(n)
    assert len(list((folder / "bundles").iterdir())) == 3
    assert [text_of(folder) for _ in range(2) if slot.roll_back(folder)] == ["4", "3"]
    with pytest.raises(InputError, match="nothing to go back to"):
        slot.roll_back(folder)
    slot.activate(folder, tmp_path / "b5", keep=2)
    assert text_of(folder) == "5"
    slot.roll_back(folder)
    assert text_of(folder) == "3", "a bundle left by a rollback must not be rolled back to"


def test_only_files_listed_in_manifests_are_copied(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", "x")
    (bundle / "diary").write_text("dear")
    (bundle / "signature.json").write_text("{}")
    with writing(bundle / "scorecard", "scorecard", "x", []) as stage:
        (stage / "scorecard.json").write_text("{}")
    target = slot.activate(tmp_path / "live", bundle, keep=1)
    found = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert found == [
        "bundle.json", "manifest.json", "model.gguf", "scorecard/manifest.json", "scorecard/scorecard.json", "signature.json",
    ]  # fmt: skip
    assert manifest_of(target).digest == manifest_of(bundle).digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"live": "../../etc"}',
        '{"live": "000001-0123456789abcdef", "before": ["/"]}',
        "[" * 100_000,
    ],
)
def test_a_damaged_live_json_is_one_line(tmp_path: Path, text: str) -> None:
    slot.activate(tmp_path, make_bundle(tmp_path / "b", "x"), keep=1)
    (tmp_path / "live.json").write_text(text)
    with pytest.raises(ArtifactError, match="damaged; delete it and promote") as caught:
        slot.live_bundle(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "live.json").unlink()
    slot.activate(tmp_path, tmp_path / "b", keep=1)
    assert text_of(tmp_path) == "x"


def test_a_slot_without_a_promotion_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no bundle is live here"):
        slot.live_bundle(tmp_path)


def test_a_full_disk_leaves_the_live_bundle(small_disk: Path, tmp_path: Path) -> None:
    folder = small_disk / "live"
    slot.activate(folder, make_bundle(tmp_path / "a", "a", 200_000), keep=3)
    with pytest.raises(DiskError, match="the disk is full"):
        slot.activate(folder, make_bundle(tmp_path / "b", "b", 900_000), keep=3)
    assert text_of(folder) == "a"
    assert len(list((folder / "bundles").iterdir())) == 1, "nothing of the failed copy may stay"
    slot.activate(folder, make_bundle(tmp_path / "c", "c", 200_000), keep=3)
    assert text_of(folder) == "c"


def test_one_process_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    says = f"process {os.getpid()} works on this slot"
    with alone(tmp_path), pytest.raises(RunnerBusy, match=says), alone(tmp_path, "this slot"):
        pass


AGAIN = """
import sys
from pathlib import Path
from tumen.core.lock import alone
from tumen.release import slot
folder, bundles = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
print("ready", flush=True)
while True:
    for bundle in bundles:
        with alone(folder):
            slot.activate(folder, bundle, keep=1)
            slot.roll_back(folder)
            slot.activate(folder, bundle, keep=1)
"""


def test_after_a_kill_at_any_moment_the_live_bundle_is_complete(tmp_path: Path) -> None:
    rng, folder = random.Random(1), tmp_path / "live"
    bundles = [make_bundle(tmp_path / name, name, 300_000) for name in "ab"]
    slot.activate(folder, bundles[0], keep=1)
    slot.activate(folder, bundles[1], keep=1)
    for _ in range(8):
        command = [sys.executable, "-c", AGAIN, str(folder), *map(str, bundles)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as busy:
            assert busy.stdout is not None
            assert busy.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0, 0.05))
            busy.send_signal(signal.SIGKILL)
        assert text_of(folder) in "ab"
    with alone(folder):
        slot.activate(folder, bundles[0], keep=1)
    assert text_of(folder) == "a"
    assert len(list((folder / "bundles").iterdir())) == 2, "leftovers of the kills must be removed"
    assert not list(folder.glob(".*.part"))

"""The story: from sentences to a lamp that switches on, with one kill -9 on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tumen.core import events
from tumen.core.artifact import manifest_of

TINY = Path(__file__).parents[1] / "tiny.toml"
CHAIN = (
    "corpus",
    "tokenizer",
    "dataset",
    "cloud",
    "device",
    "bundle-device",
    "bundle-cloud",
    "bundle-device/scorecard",
)
ROOMS = {
    "en": (
        "kitchen",
        "living room",
        "bedroom",
        "hallway",
        "bathroom",
        "office",
        "garage",
        "garden",
    ),
    "zh": ("厨房", "客厅", "卧室", "走廊", "浴室", "书房", "车库", "花园"),
    "de": ("küche", "wohnzimmer", "schlafzimmer", "flur", "bad", "büro", "garage", "garten"),
}
SAID = {
    "en": (
        "turn {} the {} light",
        "turn {} the light in the {}",
        "please turn {} the {} light",
        "turn {} the {} lights",
    ),
    "zh": ("{}{}的灯", "请{}{}的灯", "把{1}的灯{0}", "{}{}灯"),
    "de": (
        "mach das licht {1} {0}",
        "schalte das licht {1} {0}",
        "bitte mach das licht {1} {0}",
        "licht {1} {0}",
    ),
}
WAYS = {"en": ("on", "off"), "zh": ("打开", "关掉"), "de": ("an", "aus")}
ASKED = {"en": "turn on the kitchen light", "zh": "打开厨房的灯", "de": "mach das licht küche an"}


def sentences() -> list[dict[str, Any]]:
    """What a small team wrote down: lights of rooms, in three languages. The three sentences of the test are not in it."""
    rows = []
    for lang, forms in SAID.items():
        for form in forms:
            for room in ROOMS[lang]:
                for way, intent in zip(WAYS[lang], ("HassTurnOn", "HassTurnOff"), strict=True):
                    action = {"lang": lang, "intent": intent, "domain": "light", "area": room}
                    if (sentence := form.format(way, room)) != ASKED[lang]:
                        rows.append({"sentence": sentence, "action": action})
    return rows


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """`tumen run` with the tiny recipe on the team's file, long enough to learn it by heart."""
    own = tmp_path_factory.mktemp("team") / "lights.jsonl"
    own.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in sentences()), "utf-8"
    )
    changes = {
        "data.source": "file",
        "data.path": f"'{own}'",
        "gate.exact": "0.5",
        "gate.agreement": "0.95",
    }
    changes |= {"serve.unsure": "0.3"}  # so short a training is hardly sure of anything
    for tier in ("cloud", "device"):
        changes |= {
            f"family.{tier}.train.{name}": value
            for name, value in (("steps", "160"), ("batch_size", "4"), ("seq_len", "192"))
        }
        changes |= {f"family.{tier}.train.checkpoint_every": "20"}
    return (
        sys.executable,
        "-m",
        "tumen",
        "run",
        str(TINY),
        *(part for name, value in changes.items() for part in ("--set", f"{name}={value}")),
    )


def tumen(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tumen", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def digests(run: Path) -> dict[str, str]:
    return {name: manifest_of(run / name).digest for name in CHAIN}


def finish(command: tuple[str, ...], run: Path) -> str:
    done = subprocess.run(
        [*command, "--run", run], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def kill_in_training(command: tuple[str, ...], run: Path, step: int) -> int:
    """Start, wait until the cloud tier has a checkpoint at a step, kill -9; returns the pid of what was training."""
    process = subprocess.Popen([*command, "--run", run], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while True:
        done = [
            row for row in events.read(run / "events.jsonl", "checkpoint") if row["step"] >= step
        ]
        if done:
            break
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return int(done[0]["pid"])


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.story
def test_from_sentences_to_a_lamp(command: tuple[str, ...], tmp_path: Path) -> None:
    run = tmp_path / "killed"
    trainer = kill_in_training(command, run, step=40)
    deadline = time.monotonic() + 10
    while is_running(trainer):
        assert time.monotonic() < deadline, "training went on without its starter"
        time.sleep(0.02)
    assert (run / "dataset" / "manifest.json").exists()
    assert not (run / "cloud").exists()

    said = finish(command, run)
    assert "corpus" not in said, "what was done is not made again"
    assert "gate: passed" in said
    (resumed,) = (row["step"] for row in events.read(run / "events.jsonl", "resumed"))
    assert resumed >= 40

    for lang, sentence in ASKED.items():
        turn = json.loads(tumen("talk", "--run", str(run), "--json", sentence))
        assert turn["action"] == {
            "lang": lang,
            "intent": "HassTurnOn",
            "domain": "light",
            "area": ROOMS[lang][0],
        }
        lamps = [change for change in turn["changes"] if change["id"].startswith("light.kitchen")]
        assert [(lamp["before"]["state"], lamp["after"]["state"]) for lamp in lamps] == [
            ("off", "on")
        ] * 2
        assert turn["tier"] in ("words", "templates", "device"), turn["why"]

    before = digests(run)
    assert "nothing to do" in finish(command, run)
    assert digests(run) == before

    chain = tumen("lineage", str(run))
    assert all(digest in chain for digest in before.values())
    assert chain.endswith("nothing is stale\n")
    later = tumen("lineage", str(run), "--set", "family.device.quantize=int4")
    assert "stale: bundle-device, bundle-device/scorecard; " in later

    finish(command, tmp_path / "unbroken")
    assert digests(tmp_path / "unbroken") == before, (
        "killed and resumed is unbroken, digest by digest"
    )

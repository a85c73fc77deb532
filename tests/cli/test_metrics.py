"""`tumen metrics`: from a run's events to TensorBoard and Prometheus."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.cli.conftest import Tumen

from tumen.cli.reports import address
from tumen.core.errors import MissingExtra
from tumen.core.events import Events


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """A run that told of two steps."""
    told = Events(tmp_path / "home" / "events.jsonl")
    told.emit("train", tier="cloud", step=0, steps=20)
    for step in (10, 20):
        told.emit("step", tier="cloud", step=step, steps=20, loss=3 - step / 10)
    return tmp_path / "home"


def test_writes_what_both_read(tumen: Tumen, told: Path, tmp_path: Path) -> None:
    done = tumen(
        "metrics", told, "--tensorboard", tmp_path / "board", "--textfile", tmp_path / "tumen.prom"
    )
    assert done.returncode == 0, done.stderr
    assert "6 scalars" in done.stdout
    board = EventAccumulator(str(tmp_path / "board" / "cloud"))
    board.Reload()
    assert [one.value for one in board.Scalars("train/loss")] == [2.0, 1.0]
    families = {
        family.name: family
        for family in text_string_to_metric_families((tmp_path / "tumen.prom").read_text())
    }
    assert families["tumen_train_loss"].samples[0].value == 1.0
    assert families["tumen_train_loss"].samples[0].labels == {"run": "home", "tier": "cloud"}


def test_serves_on_loopback_and_follows(told: Path) -> None:
    command = [sys.executable, "-m", "tumen", "metrics", str(told), "--prometheus", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TERM": "dumb"}
    ) as child:
        assert child.stdout is not None
        try:
            url = child.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            assert (
                b'tumen_train_loss{run="home",tier="cloud"} 1.0'
                in urllib.request.urlopen(url, timeout=30).read()
            )
            Events(told / "events.jsonl").emit("step", tier="cloud", step=20, steps=20, loss=0.5)
            assert (
                b'tumen_train_loss{run="home",tier="cloud"} 0.5'
                in urllib.request.urlopen(url, timeout=30).read()
            )
        finally:
            child.kill()


def test_a_port_that_is_taken_is_one_line(tumen: Tumen, told: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = tumen("metrics", told, "--prometheus", port)
    assert done.returncode == 10
    assert done.stderr == f"tumen: 127.0.0.1:{port} is taken; name another port\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "no export is named"),
        (("--prometheus", "host"), "write it as HOST:PORT"),
        (("--prometheus", "a:99999"), "HOST:PORT"),
    ],
)
def test_what_cannot_be_exported_to(
    tumen: Tumen, told: Path, options: tuple[str, ...], says: str
) -> None:
    done = tumen("metrics", told, *options)
    assert done.returncode == 4
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_run(tumen: Tumen, tmp_path: Path) -> None:
    done = tumen("metrics", tmp_path / "none", "--textfile", tmp_path / "x.prom")
    assert done.returncode == 4
    assert "no events.jsonl" in done.stderr
    assert not (tmp_path / "x.prom").exists()


@pytest.mark.parametrize(
    ("option", "extra"), [("--tensorboard", "tensorboard"), ("--textfile", "prometheus")]
)
def test_a_missing_exporter_is_one_line_that_names_its_extra(
    light: Tumen, told: Path, tmp_path: Path, option: str, extra: str
) -> None:
    done = light("metrics", told, option, tmp_path / "out.prom")
    assert done.returncode == MissingExtra.exit_code
    assert f"pip install 'tumen[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_address_is_loopback_unless_a_host_is_named() -> None:
    assert address("9400") == ("127.0.0.1", 9400)
    assert address("0.0.0.0:9400") == ("0.0.0.0", 9400)
    assert address("[::1]:9400") == ("::1", 9400)

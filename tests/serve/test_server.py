"""From bundles to a listening server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tumen.core.errors import InputError, RunnerBusy
from tumen.serve import bind, build_router, serve
from tumen.serve.runners import DeviceRunner, RemoteRunner


def test_a_port_in_use_is_one_line_that_says_what_to_do(bundle: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            RunnerBusy,
            match=rf"port {port} on 127.0.0.1 is in use; .* choose another, such as {port + 1}",
        ) as caught:
            serve(bundle, port=port)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "port"), [("192.0.2.1", 8765), ("no such host", 1), ("127.0.0.1", 99_999), ("", -1)]
)
def test_an_address_of_another_machine_is_one_line(host: str, port: int) -> None:
    with pytest.raises(InputError) as caught:
        bind(host, port).close()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", ""])
def test_serving_other_machines_needs_a_key(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.delenv("TUMEN_KEY", raising=False)
    with pytest.raises(InputError, match="set TUMEN_KEY"):
        serve(bundle, host=host, port=0)
    monkeypatch.setenv("TUMEN_KEY", "")
    with pytest.raises(InputError, match="set TUMEN_KEY"):
        serve(bundle, host=host, port=0)


def test_serve_answers_until_it_is_interrupted(bundle: Path) -> None:
    code = f"""
        import signal
        from pathlib import Path
        from tumen.serve import serve
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored when tests run in the background
        try:
            serve(Path({str(bundle)!r}), port=0, ready=lambda url: print(url, flush=True))
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    server = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TUMEN_KEY": ""},
    )
    assert server.stdout
    url = server.stdout.readline().strip()
    with urllib.request.urlopen(url + "/models", timeout=10) as answer:
        assert [row["id"] for row in json.load(answer)["data"]] == ["pocket", "device"]
    server.send_signal(signal.SIGINT)
    assert server.communicate(timeout=10)[0].strip() == "interrupted"


def test_the_router_has_a_runner_for_each_bundle(
    tmp_path: Path, bundle: Path, make_bundle: Callable[..., Path]
) -> None:
    cloud = make_bundle(tmp_path / "cloud", tier="cloud", seed=1)
    router = build_router(bundle, cloud)
    assert isinstance(router.device, DeviceRunner)
    assert isinstance(router.cloud, DeviceRunner)
    assert router.device.name == "pocket/device"
    assert router.cloud.name == "pocket/cloud"
    assert router.tiers == ("device", "cloud")
    router.device.stop()
    router.cloud.stop()


def test_the_device_is_stopped_when_the_cloud_bundle_is_broken(
    tmp_path: Path, bundle: Path, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []
    stop = DeviceRunner.stop

    def record_and_stop(self: DeviceRunner) -> None:
        stopped.append(self.name)
        stop(self)

    monkeypatch.setattr(DeviceRunner, "stop", record_and_stop)
    cloud = make_bundle(tmp_path / "cloud", tier="cloud")
    (cloud / "model.gguf").write_bytes(b"")
    with pytest.raises(Exception, match="0 bytes"):
        build_router(bundle, cloud)
    assert stopped == ["pocket/device"]


def test_the_recipe_names_the_cloud_endpoint(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    folder = make_bundle(
        tmp_path / "b", serve={"cloud_url": "http://127.0.0.1:9/v1", "cloud_model": "big"}
    )
    router = build_router(folder)
    assert isinstance(router.cloud, RemoteRunner)
    assert router.cloud.name == "big at 127.0.0.1:9"
    assert isinstance(router.device, DeviceRunner)
    router.device.stop()


def test_a_closed_port_can_be_bound_again(bundle: Path) -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
    with bind("127.0.0.1", port) as again:
        assert again.getsockname()[1] == port
        assert isinstance(again, socket.socket)

"""`tumen metrics RUN`: a run's numbers for TensorBoard and Prometheus, read from its events while it trains or long after."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import typer

from tumen.core.errors import InputError, RunnerBusy
from tumen.core.events import Tail
from tumen.core.extras import optional
from tumen.pipeline import Gauges, TensorBoard

prometheus = optional("prometheus_client", "the export to Prometheus")
POLL_SECONDS = 2.0


def metrics(
    run: Path = typer.Argument(..., help="Folder of a run."),
    tensorboard: Path = typer.Option(
        None, help="Write TensorBoard's event files into this folder, one run a tier."
    ),
    prometheus: str = typer.Option(
        None, help="Serve /metrics on HOST:PORT, or on 127.0.0.1 if only a port is given."
    ),
    textfile: Path = typer.Option(
        None, help="Write Prometheus' text into this file (*.prom), for node-exporter."
    ),
    follow: bool = typer.Option(
        False, "--follow", help="Go on while the run goes on; serving always does."
    ),
) -> None:
    """Export what a run told of its training. The training itself is not touched."""
    if not (run / "events.jsonl").exists():
        raise InputError(
            f"{run}: no events.jsonl; name the folder of a run (`tumen run RECIPE` starts one)"
        )
    if not (tensorboard or prometheus or textfile):
        raise InputError(
            "nothing to export to: name --tensorboard DIR, --prometheus HOST:PORT or --textfile FILE"
        )
    _export(run, tensorboard, address(prometheus) if prometheus else None, textfile, follow)


def address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `PORT`; loopback where no host is named.

    Raises:
        InputError: no port.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise InputError(f"--prometheus {text!r}: write it as HOST:PORT, such as 127.0.0.1:9400")
    return host.strip("[]") or "127.0.0.1", int(port)


def _export(
    run: Path,
    tensorboard: Path | None,
    prometheus: tuple[str, int] | None,
    textfile: Path | None,
    follow: bool,
) -> None:
    tail, gauges = Tail(run / "events.jsonl"), Gauges(run)
    board = TensorBoard(tensorboard) if tensorboard else None
    if prometheus:
        _serve(gauges, *prometheus)
    while True:
        written = board.take(tail.new()) if board else 0
        if written:
            print(f"{tensorboard}: {written:,} scalars", flush=True)
        if textfile:
            gauges.write(textfile)
        if not (follow or prometheus):
            break
        time.sleep(POLL_SECONDS)
    if board:
        board.close()
    if textfile:
        print(f"{textfile}: written")


def _serve(gauges: Gauges, host: str, port: int) -> None:
    try:
        server, _ = prometheus.start_http_server(port, host, gauges.registry())
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise RunnerBusy(f"{host}:{port} is taken; name another port") from None
        raise InputError(f"--prometheus {host}:{port}: {error.strerror or error}") from None
    print(f"http://{host}:{server.server_port}/metrics", flush=True)

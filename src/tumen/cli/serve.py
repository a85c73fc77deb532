"""`tumen serve`: OpenAI's HTTP before a bundle."""

from __future__ import annotations

from pathlib import Path

import typer

from tumen.cli.options import TRUST
from tumen.pipeline.folder import admitted, cloud_bundle, newest_run


def serve(
    bundle: Path = typer.Argument(
        None, help="A bundle, a run or a place of `tumen promote`; default: the newest under runs/."
    ),
    host: str = typer.Option("127.0.0.1", help="Off loopback a key in TUMEN_KEY is required."),
    port: int = typer.Option(8765, help="0 takes any free port."),
    ungated: bool = typer.Option(False, help="Also with a bundle below its floors."),
    trust: Path = TRUST,
) -> None:
    """Answer /v1/models and /v1/chat/completions: device first, the cloud tier when the device is unsure."""
    from tumen.eval import require_gate
    from tumen.serve import serve as run_server

    folder = admitted(bundle or newest_run(), trust)
    require_gate(folder, ungated)
    run_server(
        folder,
        cloud_bundle(folder),
        host,
        port,
        store=trust,
        ready=lambda url: print(f"listening on {url}", flush=True),
    )

"""From bundles to a listening server: the parts put together."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from tumen.core.errors import InputError, RunnerBusy
from tumen.core.events import Events
from tumen.serve.api import create_app
from tumen.serve.guard import LOOPBACK
from tumen.serve.router import Router
from tumen.serve.runners.device_runner import DeviceRunner, load_runner, read_bundle_info
from tumen.serve.runners.remote_runner import RemoteRunner

KEY_ENV = "TUMEN_KEY"
PORT = 8765
BACKLOG = 128
DRAIN_SECONDS = 2


def build_router(
    bundle: Path, cloud: Path | None = None, events: Events | None = None, store: Path | None = None
) -> Router:
    """Start the runners a bundle's recipe asks for and put a router before them.

    Args:
        bundle: the device tier's bundle; its `serve` section rules.
        cloud: a bundle of the cloud tier on this machine; without it `serve.cloud_url`, if there is one.
        store: the trust store of both; see `load_runner`.

    Raises:
        ArtifactError, RunnerError: see `load_runner`.
    """
    serve = read_bundle_info(bundle).serve
    device = load_runner(bundle, serve.threads, serve.context, events, store=store)
    try:
        upper: DeviceRunner | RemoteRunner | None = None
        if cloud:
            upper = load_runner(cloud, serve.threads, serve.context, events, store=store)
        elif serve.cloud_url:
            upper = RemoteRunner(
                serve.cloud_url,
                serve.cloud_model or "default",
                serve.cloud_key_env,
                ontology=device.ontology,
            )
    except BaseException:
        device.stop()
        raise
    return Router(device, upper, serve)


def serve(
    bundle: Path,
    cloud: Path | None = None,
    host: str = "127.0.0.1",
    port: int = PORT,
    events: Events | None = None,
    store: Path | None = None,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until interrupted. `ready` is called with the base URL once clients are heard.

    Raises:
        InputError: `host` is not this machine and $TUMEN_KEY is not set.
        RunnerBusy: the port is taken.
        ArtifactError, RunnerError: see `load_runner`.
    """
    key = os.environ.get(KEY_ENV) or None
    if key is None and host not in LOOPBACK:
        raise InputError(
            f"{host} can be reached from other machines; set {KEY_ENV} to a key for clients, or serve on 127.0.0.1"
        )
    with bind(host, port) as listener:
        router = build_router(bundle, cloud, events, store)
        ready(f"http://{host}:{listener.getsockname()[1]}/v1")
        build_server(create_app(router, read_bundle_info(bundle).recipe, key, events)).run(
            sockets=[listener]
        )


def build_server(application: Starlette) -> uvicorn.Server:
    """A server that writes no logs and does not wait long for slow clients."""
    return uvicorn.Server(
        uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            limit_concurrency=256,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free.

    Raises:
        RunnerBusy: the port is taken.
        InputError: the address is not this machine's, or the port not ours to take.
    """
    try:
        if not 0 <= port <= 65_535:  # some resolvers wrap larger ones round
            raise OSError
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
    except (OSError, UnicodeError):
        raise InputError(
            f"{host}:{port} is no address to listen on; try 127.0.0.1:{PORT}"
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise RunnerBusy(
                f"port {port} on {host} is taken; stop what listens there or choose another, such as {port + 1}"
            ) from None
        raise InputError(
            f"{host}:{port}: {os.strerror(error.errno or 0)}; choose another host or a port above 1023"
        ) from None
    return listener

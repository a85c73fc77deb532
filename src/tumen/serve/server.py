"""From bundles to a listening server."""

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
from tumen.release import signing
from tumen.serve.api import ReadMarks, create_app
from tumen.serve.request_checks import LOOPBACK
from tumen.serve.router import Router
from tumen.serve.runners import DeviceRunner, RemoteRunner, Runner, load_runner, read_bundle_info

KEY_ENV = "TUMEN_KEY"
PORT = 8765
MAX_PORT = 65_535
BACKLOG = 128  # connections that the system accepts before the server does
MAX_CONNECTIONS = 256
KEEP_ALIVE_SECONDS = 5
SHUTDOWN_SECONDS = 2


def build_router(
    bundle: Path,
    cloud: Path | None = None,
    events: Events | None = None,
    store: signing.TrustStore = None,
) -> Router:
    """Start the runners that a bundle's recipe asks for, and return a router over them.

    Args:
        bundle: the device tier's bundle; its `serve` section decides.
        cloud: a bundle of the cloud tier on this machine; default: the endpoint `serve.cloud_url`,
            if there is one.
        events: see `load_runner`.
        store: the trust store of both bundles; see `load_runner`.

    Raises:
        ArtifactError: a bundle is rejected; see `load_runner`.
        RunnerError: a runner does not start.
    """
    serve = read_bundle_info(bundle).serve

    def start(folder: Path) -> DeviceRunner:
        return load_runner(folder, serve.threads, serve.context, events, store=store)

    # The device first: without it there is nothing to serve.
    device = start(bundle)
    try:
        upper: Runner | None = None
        if cloud:
            upper = start(cloud)
        elif serve.cloud_url:
            model = serve.cloud_model or "default"
            ontology = device.ontology
            upper = RemoteRunner(serve.cloud_url, model, serve.cloud_key_env, ontology=ontology)
    except BaseException:
        device.stop()
        raise
    return Router(device, upper, serve)


def serve(
    bundle: Path,
    cloud: Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    events: Events | None = None,
    store: signing.TrustStore = None,
    ready: Callable[[str], None] = lambda url: None,
    marks: ReadMarks | None = None,
) -> None:
    """Serve until interrupted.

    Args:
        bundle: see `build_router`, also for `cloud` and `store`.
        cloud: a bundle of the cloud tier.
        host: address to listen on.
        port: 0 takes any free one.
        events: see `create_app` and `load_runner`.
        store: the trust store.
        ready: called with the base URL once clients can connect.
        marks: see `create_app`.

    Raises:
        InputError: `host` is not this machine and $TUMEN_KEY is not set.
        RunnerBusy: the port is in use.
        ArtifactError: a bundle is rejected; see `load_runner`.
        RunnerError: a runner does not start.
    """
    # An empty variable is no key, which everybody would guess.
    key = os.environ.get(KEY_ENV) or None
    if key is None and host not in LOOPBACK:
        raise InputError(
            f"{host} can be reached from other machines; "
            f"set {KEY_ENV} to a key for clients, or serve on 127.0.0.1"
        )
    with bind(host, port) as listener:
        router = build_router(bundle, cloud, events, store)
        ready(f"http://{host}:{listener.getsockname()[1]}/v1")
        application = create_app(router, read_bundle_info(bundle).recipe, key, events, marks)
        build_server(application).run(sockets=[listener])


def build_server(application: Starlette) -> uvicorn.Server:
    """Return a server that writes no logs and does not wait long for slow clients."""
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return uvicorn.Server(config)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one.

    Raises:
        RunnerBusy: the port is in use.
        InputError: the address is not of this machine, or the port needs privileges.
    """
    listener, address = _open_socket(host, port)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise RunnerBusy(
                f"port {port} on {host} is in use; "
                f"stop the program that uses it or choose another, such as {port + 1}"
            ) from None
        reason = os.strerror(error.errno or 0)
        raise InputError(
            f"{host}:{port}: {reason}; choose another host or a port above 1023"
        ) from None
    return listener


def _open_socket(host: str, port: int) -> tuple[socket.socket, tuple[object, ...]]:
    try:
        if not 0 <= port <= MAX_PORT:  # some resolvers take it modulo 65,536
            raise OSError
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        return socket.socket(family, kind, protocol), address
    except (OSError, UnicodeError):
        raise InputError(
            f"cannot listen on {host}:{port}: not a valid address; try 127.0.0.1:{PORT}"
        ) from None

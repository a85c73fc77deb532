"""A stand-in of an API server on loopback, as far as tumen asks: JobSets that are checked, kept and deleted; pods; nodes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jsonschema
from aiohttp import web
from tests.cluster.crd import JOBSET

TOKEN = "s3cret"
JOBSETS = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/{namespace}/jobsets"
GPU = "nvidia.com/gpu"


class FakeKubernetes:
    """What the cluster holds; tests change it."""

    def __init__(self) -> None:
        self.jobsets: dict[str, dict[str, Any]] = {}
        self.token = TOKEN
        self.forbidden = self.without_jobset = False
        self.pods: list[dict[str, Any]] = []
        self.logs: dict[str, str] = {}
        self.nodes = {
            name: {"metadata": {"name": name}, "spec": {}, "status": _healthy(8)}
            for name in ("a1", "a2")
        }
        self.server = ""

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._known])
        app.router.add_post(JOBSETS, self._create)
        app.router.add_get(JOBSETS + "/{name}", self._get)
        app.router.add_delete(JOBSETS + "/{name}", self._delete)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods", self._list_pods)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/log", self._log)
        app.router.add_get("/api/v1/nodes", self._list_nodes)
        app.router.add_patch("/api/v1/nodes/{name}", self._patch_node)
        return app

    @web.middleware
    async def _known(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _refusal(401, "Unauthorized")
        if self.forbidden:
            return _refusal(403, f'{request.method} is forbidden: User "u" cannot do that')
        return await handler(request)  # type: ignore[no-any-return]

    async def _create(self, request: web.Request) -> web.Response:
        if self.without_jobset:
            return web.Response(status=404, text="404 page not found")
        found = await request.json()
        try:
            jsonschema.validate(found, JOBSET)
        except jsonschema.ValidationError as error:
            return _refusal(422, f"JobSet is invalid: {error.message}")
        name = found["metadata"]["name"]
        if name in self.jobsets:
            return _refusal(409, f'jobsets "{name}" already exists')
        self.jobsets[name] = found
        return web.json_response(found, status=201)

    async def _get(self, request: web.Request) -> web.Response:
        found = self.jobsets.get(request.match_info["name"])
        return web.json_response(found) if found else _refusal(404, "not found")

    async def _delete(self, request: web.Request) -> web.Response:
        found = self.jobsets.pop(request.match_info["name"], None)
        return web.json_response(found) if found else _refusal(404, "not found")

    async def _list_pods(self, request: web.Request) -> web.Response:
        key, _, value = request.query["labelSelector"].partition("=")
        return web.json_response(
            {"items": [pod for pod in self.pods if pod["metadata"]["labels"].get(key) == value]}
        )

    async def _log(self, request: web.Request) -> web.Response:
        return web.Response(text=self.logs[request.match_info["name"]])

    async def _list_nodes(self, request: web.Request) -> web.Response:
        return web.json_response({"items": list(self.nodes.values())})

    async def _patch_node(self, request: web.Request) -> web.Response:
        node = self.nodes.get(request.match_info["name"])
        if not node:
            return _refusal(404, "nodes not found")
        if request.content_type != "application/strategic-merge-patch+json":
            return _refusal(415, "unsupported media type")
        change = await request.json()
        node["spec"].update(change["spec"])
        node["metadata"].setdefault("annotations", {}).update(change["metadata"]["annotations"])
        return web.json_response(node)


def _healthy(cards: int) -> dict[str, Any]:
    return {
        "allocatable": {GPU: str(cards), "cpu": "96"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }


def _refusal(code: int, message: str) -> web.Response:
    return web.json_response(
        {"kind": "Status", "status": "Failure", "message": message, "code": code}, status=code
    )


@contextmanager
def served() -> Iterator[FakeKubernetes]:
    """The stand-in, listening on loopback in a thread of its own."""
    fake, loop, ready = FakeKubernetes(), asyncio.new_event_loop(), threading.Event()
    runner = web.AppRunner(fake.app())

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        fake.server = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()

    def run() -> None:
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

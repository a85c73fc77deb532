"""How to reach a Kubernetes API server: who and where from a kubeconfig or a pod's own account, and one request.

aiohttp, which the project has anyway, instead of the official client: six kinds of request do not pay for its generated models.
Kubeconfig: kubernetes.io/docs/reference/config-api/kubeconfig.v1.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tumen.core.errors import EngineError
from tumen.core.extras import need

POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ASK_SECONDS = 30.0


@dataclass(frozen=True)
class Api:
    """An API server and who asks it."""

    server: str
    namespace: str
    token: str = ""
    trust: ssl.SSLContext | bool = True

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """One request; returns the HTTP status and the text.

        Raises:
            EngineError: nobody answers.
        """
        return asyncio.run(self._ask(method, path, body))

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, str]:
        kind = "application/strategic-merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Accept": "application/json, text/plain", "Content-Type": kind}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body)
        try:
            limit = aiohttp.ClientTimeout(total=ASK_SECONDS)
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.request(
                    method,
                    self.server + path,
                    data=data,
                    headers=headers,
                    ssl=self.trust,
                    allow_redirects=False,
                ) as said,
            ):
                return said.status, await said.text(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EngineError(
                f"kubernetes does not answer at {self.server}: {str(error) or type(error).__name__}"
            ) from None


def connection() -> Api:
    """The API server of KUBECONFIG (default ~/.kube/config), or of the pod this runs in.

    Raises:
        EngineError: neither is there, or it cannot be used.
    """
    path = Path(
        os.environ.get("KUBECONFIG", "").split(os.pathsep)[0] or "~/.kube/config"
    ).expanduser()
    host, port = (
        os.environ.get("KUBERNETES_SERVICE_HOST"),
        os.environ.get("KUBERNETES_SERVICE_PORT", "443"),
    )
    if path.is_file():
        return _from_kubeconfig(path)
    if host and (POD / "token").exists():
        trust = ssl.create_default_context(cafile=str(POD / "ca.crt"))
        where = f"[{host}]" if ":" in host else host
        return Api(
            f"https://{where}:{port}",
            (POD / "namespace").read_text().strip(),
            (POD / "token").read_text().strip(),
            trust,
        )
    raise EngineError(
        f"no Kubernetes cluster: there is no {path}, and this is no pod; set KUBECONFIG"
    )


def _from_kubeconfig(path: Path) -> Api:
    yaml = need("yaml", "the Kubernetes engine", "kubernetes")
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
        context = _called(tree["contexts"], tree["current-context"])["context"]
        cluster = _called(tree["clusters"], context["cluster"])["cluster"]
        user = _called(tree["users"], context["user"])["user"] or {}
        namespace, server = context.get("namespace", "default"), cluster["server"].rstrip("/")
        return Api(server, namespace, _token(user, path), _trust(cluster, user, path))
    except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        said = str(error).splitlines()[0]
        raise EngineError(
            f"{path}: no usable kubeconfig ({said}); `kubectl config view --minify` shows the current context"
        ) from None
    except OSError as error:
        raise EngineError(
            f"{error.filename or path}: {error.strerror}, which {path} needs"
        ) from None


def _called(rows: list[dict[str, Any]], name: str) -> Any:
    for row in rows:
        if row["name"] == name:
            return row
    raise KeyError(name)


def _token(user: dict[str, Any], path: Path) -> str:
    """A bearer token: written down, in a file, or printed by a credential plugin; "" when a certificate is used."""
    if "tokenFile" in user:
        return (path.parent / str(user["tokenFile"])).read_text("utf-8").strip()
    if "exec" not in user:
        return str(user.get("token", ""))
    plugin = user["exec"]
    variables = {row["name"]: row["value"] for row in plugin.get("env") or []}
    info = json.dumps(
        {
            "apiVersion": plugin["apiVersion"],
            "kind": "ExecCredential",
            "spec": {"interactive": False},
        }
    )
    command = [plugin["command"], *(plugin.get("args") or [])]
    environment = {**os.environ, **variables, "KUBERNETES_EXEC_INFO": info}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            check=True,
        )
    except (subprocess.SubprocessError, FileNotFoundError) as error:
        raise EngineError(
            f"{path}: the credential plugin {plugin['command']} failed: {error}"
        ) from None
    return str(json.loads(done.stdout)["status"]["token"])


def _trust(cluster: dict[str, Any], user: dict[str, Any], path: Path) -> ssl.SSLContext | bool:
    """Whom to believe, and the certificate to show."""
    if not cluster["server"].startswith("https:"):
        return True
    authority = _bytes(cluster, "certificate-authority", path)
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate := _bytes(user, "client-certificate", path):
        with tempfile.NamedTemporaryFile() as file:  # 0600 and gone at once; ssl reads files alone
            file.write(certificate + b"\n" + (_bytes(user, "client-key", path) or b""))
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _bytes(section: dict[str, Any], name: str, path: Path) -> bytes | None:
    """A part of a kubeconfig that stands in it or in a file beside it."""
    if inline := section.get(f"{name}-data"):
        return base64.b64decode(inline)
    return (path.parent / section[name]).read_bytes() if name in section else None

"""One request to a Kubernetes API server, which a kubeconfig or a pod's service account names.

aiohttp, which the project uses anyway, instead of the official client: six kinds of request do not
pay for its generated models. Kubeconfig: kubernetes.io/docs/reference/config-api/kubeconfig.v1.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tumen.cluster.engines.kubernetes_credentials import (
    PLUGINS,
    Credential,
    credential_of,
    read_entry,
)
from tumen.core.errors import EngineError
from tumen.core.extras import need

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REQUEST_SECONDS = 30.0
UNAUTHORIZED = 401
JSON_TYPE = "application/json"
PATCH_TYPE = "application/strategic-merge-patch+json"


@dataclass(frozen=True)
class Api:
    """An API server, and who asks it.

    Attributes:
        server: its URL, without a slash at the end.
        namespace: default for objects.
        token: bearer token, "" where a certificate is used.
        trust: TLS context, or True for plain HTTP and the system's authorities.
        user: of the kubeconfig.
    """

    server: str
    namespace: str
    token: str = ""
    trust: ssl.SSLContext | bool = True
    user: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """Send one request. A credential that the server rejects is renewed once.

        Args:
            method: of HTTP.
            path: of the object, such as /api/v1/nodes.
            body: is sent as JSON.

        Returns:
            The HTTP status and the text.

        Raises:
            EngineError: the server cannot be reached.
        """
        status, text = asyncio.run(self._ask(method, path, body))
        if status == UNAUTHORIZED and "exec" in self.user:
            PLUGINS.forget(self.user["exec"])
            return asyncio.run(connection()._ask(method, path, body))
        return status, text

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, str]:
        headers = {
            "Accept": "application/json, text/plain",
            "Content-Type": PATCH_TYPE if method == "PATCH" else JSON_TYPE,
        }
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body)
        limit = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.request(
                    method,
                    self.server + path,
                    data=data,
                    headers=headers,
                    ssl=self.trust,
                    # A redirect could carry the token to another host.
                    allow_redirects=False,
                ) as response,
            ):
                return response.status, await response.text(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise EngineError(f"kubernetes does not answer at {self.server}: {reason}") from None


def connection() -> Api:
    """Return the API server of KUBECONFIG (default ~/.kube/config), or of the pod this runs in.

    Raises:
        EngineError: neither is there, or it cannot be used.
    """
    # It may name several files, which kubectl merges; here the first one counts.
    first = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    path = Path(first or "~/.kube/config").expanduser()
    if path.is_file():
        return _from_kubeconfig(path)
    if os.environ.get("KUBERNETES_SERVICE_HOST") and (SERVICE_ACCOUNT / "token").exists():
        return _from_service_account()
    raise EngineError(
        f"no Kubernetes cluster: there is no {path}, and this is no pod; set KUBECONFIG"
    )


def _from_service_account() -> Api:
    """Return the API server of this pod. Its token is rotated, so it is read each time."""
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if ":" in host:  # IPv6
        host = f"[{host}]"
    return Api(
        f"https://{host}:{port}",
        (SERVICE_ACCOUNT / "namespace").read_text().strip(),
        (SERVICE_ACCOUNT / "token").read_text().strip(),
        ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt")),
    )


def _from_kubeconfig(path: Path) -> Api:
    """Return the API server of a kubeconfig's current context."""
    yaml = need("yaml", "the Kubernetes engine", "kubernetes")
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
        context = _find(tree["contexts"], tree["current-context"])["context"]
        cluster = _find(tree["clusters"], context["cluster"])["cluster"]
        user = _find(tree["users"], context["user"])["user"] or {}
        credential = credential_of(user, path)
        return Api(
            cluster["server"].rstrip("/"),
            context.get("namespace", "default"),
            credential.token,
            _trust(cluster, credential, path),
            user,
        )
    except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise EngineError(
            f"{path}: not a usable kubeconfig ({reason}); "
            "`kubectl config view --minify` shows the current context"
        ) from None
    except OSError as error:
        raise EngineError(
            f"{error.filename or path}: {error.strerror}, which {path} needs"
        ) from None


def _find(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    """Return the row of that name."""
    for row in rows:
        if row["name"] == name:
            return row
    raise KeyError(name)


def _trust(cluster: Mapping[str, Any], credential: Credential, path: Path) -> ssl.SSLContext | bool:
    """Return the TLS context: whom to trust, and the certificate to show.

    Args:
        cluster: of the kubeconfig.
        credential: who asks.
        path: of the kubeconfig, to which its files are relative.
    """
    # Plain HTTP, as `kubectl proxy` has it.
    if not cluster["server"].startswith("https:"):
        return True
    authority = read_entry(cluster, "certificate-authority", path)
    context = ssl.create_default_context(cadata=authority.decode() or None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if credential.certificate:
        # ssl reads certificates from files alone: this one is 0600 and removed at once.
        with tempfile.NamedTemporaryFile() as file:
            file.write(credential.certificate + b"\n" + credential.key)
            file.flush()
            context.load_cert_chain(file.name)
    return context

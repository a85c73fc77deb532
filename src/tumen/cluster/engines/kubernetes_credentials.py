"""Credentials for a Kubernetes API server, from a kubeconfig's user or its credential plugin.

What a plugin prints is kept until it expires, or until the server rejects it (HTTP 401), as
kubectl does: a plugin may take seconds and ask another server. Format:
kubernetes.io/docs/reference/config-api/client-authentication.v1.
"""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tumen.core.errors import EngineError

PLUGIN_SECONDS = 30.0
MARGIN_SECONDS = 60.0  # a credential that expires so soon is not used any more


@dataclass(frozen=True)
class Credential:
    """Who asks: a bearer token, or a client certificate with its key.

    Attributes:
        token: "" where a certificate is used.
        certificate: PEM, b"" where a token is used.
        key: PEM of the certificate's key.
        expires: in seconds since 1970.
    """

    token: str = ""
    certificate: bytes = b""
    key: bytes = b""
    expires: float = math.inf


class PluginCredentials:
    """The credentials that plugins printed, by plugin. One for all threads of this process."""

    def __init__(self) -> None:
        self._kept: dict[str, Credential] = {}
        self._lock = threading.Lock()

    def of(self, plugin: Mapping[str, Any], path: Path) -> Credential:
        """Return the credential of a plugin; it runs where none is kept that is still valid.

        Args:
            plugin: the section `exec` of a kubeconfig's user.
            path: of the kubeconfig, for messages.

        Raises:
            EngineError: the plugin failed, or printed no credential.
        """
        name = _name_of(plugin)
        with self._lock:
            kept = self._kept.get(name)
            if kept is None or kept.expires - time.time() < MARGIN_SECONDS:
                kept = _run_plugin(plugin, path)
                self._kept[name] = kept
            return kept

    def forget(self, plugin: Mapping[str, Any]) -> None:
        """Forget the credential of a plugin: the server rejected it."""
        with self._lock:
            self._kept.pop(_name_of(plugin), None)


PLUGINS = PluginCredentials()


def credential_of(user: Mapping[str, Any], path: Path) -> Credential:
    """Return the credential of a kubeconfig's user.

    Args:
        user: of the kubeconfig.
        path: of the kubeconfig, to which its files are relative.

    Raises:
        EngineError: its plugin failed.
        OSError: a file that it names cannot be read.
    """
    certificate = read_entry(user, "client-certificate", path)
    key = read_entry(user, "client-key", path)
    # Read for each request, because it is rotated.
    if "tokenFile" in user:
        token = (path.parent / str(user["tokenFile"])).read_text("utf-8").strip()
        return Credential(token, certificate, key)
    if "exec" in user:
        return PLUGINS.of(user["exec"], path)
    return Credential(str(user.get("token", "")), certificate, key)


def read_entry(section: Mapping[str, Any], name: str, path: Path) -> bytes:
    """Return an entry of a kubeconfig that is inline, as NAME-data, or in a file.

    Args:
        section: of the kubeconfig.
        name: such as client-certificate.
        path: of the kubeconfig, to which its files are relative.

    Returns:
        b"" where there is none.

    Raises:
        OSError: its file cannot be read.
    """
    inline = section.get(f"{name}-data")
    if inline:
        return base64.b64decode(inline)
    if name in section:
        return (path.parent / str(section[name])).read_bytes()
    return b""


def _name_of(plugin: Mapping[str, Any]) -> str:
    """Return what makes a plugin another one: all of its section, not its command alone."""
    return json.dumps(plugin, sort_keys=True)


def _run_plugin(plugin: Mapping[str, Any], path: Path) -> Credential:
    """Run a plugin and return the credential that it prints.

    Args:
        plugin: the section `exec` of a kubeconfig's user.
        path: of the kubeconfig, for messages.

    Raises:
        EngineError: it failed, or printed no credential.
    """
    command = [plugin["command"], *(plugin.get("args") or [])]
    try:
        done = subprocess.run(
            command,
            env=_plugin_environment(plugin),
            capture_output=True,
            text=True,
            timeout=PLUGIN_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return _parse_credential(done.stdout)
    except (subprocess.SubprocessError, OSError) as error:
        failed = str(error)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        failed = f"it printed no ExecCredential ({error})"
    raise EngineError(f"{path}: the credential plugin {plugin['command']} failed: {failed}")


def _plugin_environment(plugin: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a plugin's process. Nobody sits at it, so it must not ask."""
    info = {
        "apiVersion": plugin["apiVersion"],
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
    variables = {row["name"]: row["value"] for row in plugin.get("env") or []}
    return {**os.environ, **variables, "KUBERNETES_EXEC_INFO": json.dumps(info)}


def _parse_credential(text: str) -> Credential:
    """Return the credential of an ExecCredential as JSON."""
    status = json.loads(text)["status"]
    expires = math.inf
    # Without a time the server's rejection ends it.
    if status.get("expirationTimestamp"):
        expires = datetime.fromisoformat(status["expirationTimestamp"]).timestamp()
    if "token" not in status and "clientCertificateData" not in status:
        raise KeyError("status.token")
    return Credential(
        token=str(status.get("token", "")),
        certificate=str(status.get("clientCertificateData", "")).encode(),
        key=str(status.get("clientKeyData", "")).encode(),
        expires=expires,
    )

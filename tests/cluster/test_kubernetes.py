"""The Kubernetes engine: its manifests against the schema, its verbs against a stand-in of the API server. No cluster is here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.cluster.crd import JOBSET, published
from tests.cluster.fake_kubernetes import GPU, TOKEN, FakeKubernetes, served
from tests.cluster.jobs import LARGE, SMALL

from tumen.cluster.engines import JobSpec, JobStatus, Node, kubernetes_api, kubernetes_credentials
from tumen.cluster.engines.kubernetes import KubernetesEngine, parse, parse_nodes
from tumen.cluster.engines.kubernetes_api import connection
from tumen.cluster.engines.kubernetes_credentials import PluginCredentials
from tumen.cluster.engines.kubernetes_manifest import manifest, name_of, render
from tumen.core.errors import DiskError, EngineError
from tumen.recipe import fleet_section

GOLDEN = Path(__file__).parents[1] / "golden" / "kubernetes_job.yaml"
SITE = fleet_section.Kubernetes(
    image="registry.example/tumen:1",
    namespace="llm",
    queue="h800",
    priority="high",
    volumes={"/runs": "runs", "/data": "corpora"},
    service_account="trainer",
)
PLAIN = fleet_section.Kubernetes(image="registry.example/tumen:1", volumes={"/runs": "runs"})


def test_rendered_text_is_as_it_was() -> None:
    assert render(LARGE, SITE) == GOLDEN.read_text()
    assert yaml.safe_load(GOLDEN.read_text()) == manifest(LARGE, SITE)


@pytest.mark.parametrize("site", [SITE, PLAIN])
@pytest.mark.parametrize("job", [LARGE, SMALL, replace(SMALL, nodes=4, ranks_per_node=2)])
def test_fits_the_schema(job: JobSpec, site: fleet_section.Kubernetes) -> None:
    jsonschema.validate(manifest(job, site), JOBSET)


@pytest.mark.parametrize("job", [LARGE, SMALL, replace(SMALL, nodes=4, ranks_per_node=2)])
def test_fits_the_published_schema(job: JobSpec) -> None:
    schema = published()
    if schema is None:
        pytest.skip("TUMEN_JOBSET_CRD names no published schema")
    jsonschema.validate(manifest(job, SITE), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**manifest(job, SITE), "spec": {"gang": True}}, schema)


def test_pods_without_cards_keep_apart() -> None:
    pod = manifest(replace(SMALL, nodes=4), PLAIN)["spec"]["replicatedJobs"][0]["template"]["spec"][
        "template"
    ]["spec"]
    assert "podAntiAffinity" in pod["affinity"]
    assert "resources" not in pod["containers"][0]


def test_a_name_is_a_dns_label_and_the_same_for_the_same_folder() -> None:
    long = replace(LARGE, name="A very.long_name" * 9)
    assert name_of(long) == name_of(replace(long, nodes=2))
    assert name_of(long) != name_of(replace(long, folder=Path("/runs/other")))
    assert len(f"{name_of(long)}-node-0-9999-abcde") <= 63


@pytest.mark.parametrize(
    ("site", "line"),
    [
        (fleet_section.Kubernetes(), "set fleet.kubernetes.image"),
        (
            fleet_section.Kubernetes(image="x"),
            r"/runs/v2/jobs/cloud is in no volume of fleet.kubernetes.volumes \(there: none\)",
        ),
        (
            fleet_section.Kubernetes(image="x", volumes={"/run": "r"}),
            r"in no volume .*\(there: /run\)",
        ),
    ],
)
def test_what_pods_could_not_use_is_refused(site: fleet_section.Kubernetes, line: str) -> None:
    with pytest.raises(EngineError, match=line):
        render(LARGE, site)


def a_jobset(nodes: int = 2, **status: Any) -> str:
    return json.dumps(
        {
            "spec": {"replicatedJobs": [{"template": {"spec": {"parallelism": nodes}}}]},
            "status": status,
        }
    )


def condition(kind: str, message: str = "", status: str = "True") -> list[dict[str, str]]:
    return [{"type": kind, "status": status, "message": message}]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (a_jobset(), JobStatus("waiting", reason="no pod of 2 runs yet")),
        (a_jobset(replicatedJobsStatus=[{"active": 1, "ready": 0}]), JobStatus("running")),
        (
            a_jobset(restarts=2, replicatedJobsStatus=[{"active": 1, "ready": 1}]),
            JobStatus("running", reason="restarted 2 times"),
        ),
        (
            a_jobset(conditions=condition("Suspended", "jobset is suspended")),
            JobStatus("waiting", reason="jobset is suspended"),
        ),
        (
            a_jobset(
                conditions=condition("Suspended", status="False"),
                replicatedJobsStatus=[{"active": 1}],
            ),
            JobStatus("running"),
        ),
        (a_jobset(conditions=condition("Completed")), JobStatus("done", 0)),
        (
            a_jobset(conditions=condition("Failed", "max restarts")),
            JobStatus("failed", 1, "max restarts"),
        ),
    ],
)
def test_parse(text: str, status: JobStatus) -> None:
    assert parse(text) == status


def test_nodes() -> None:
    healthy = {"allocatable": {GPU: "8"}, "conditions": [{"type": "Ready", "status": "True"}]}
    items = [
        {"metadata": {"name": "a1"}, "spec": {}, "status": healthy},
        {
            "metadata": {"name": "a2", "annotations": {"tumen/drained": "Xid 79"}},
            "spec": {"unschedulable": True},
            "status": healthy,
        },
        {
            "metadata": {"name": "a3"},
            "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
        },
    ]
    assert parse_nodes(json.dumps({"items": items})) == [
        Node("a1", 8),
        Node("a2", 8, False, "cordoned: Xid 79"),
        Node("a3", 0, False, "not ready"),
    ]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeKubernetes]:
    with served() as fake:
        yield fake


@pytest.fixture
def cluster(
    server: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FakeKubernetes:
    """An empty cluster that the kubeconfig names."""
    address = server.server
    server.__init__()  # type: ignore[misc]
    server.server = address
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, address, {"token": TOKEN})))
    return server


def kubeconfig(folder: Path, server: str, user: dict[str, Any]) -> Path:
    tree = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "contexts": [
            {"name": "lab", "context": {"cluster": "c", "user": "u", "namespace": "team"}}
        ],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture
def engine(tmp_path: Path) -> KubernetesEngine:
    return KubernetesEngine(fleet_section.Kubernetes(image="x", volumes={str(tmp_path): "runs"}))


@pytest.fixture
def job(tmp_path: Path) -> JobSpec:
    return replace(LARGE, folder=tmp_path / "run" / "jobs" / "cloud")


class TestVerbs:
    def test_from_submit_to_done(
        self, cluster: FakeKubernetes, engine: KubernetesEngine, job: JobSpec
    ) -> None:
        job_id = engine.submit(job)
        ((name, kept),) = cluster.jobsets.items()
        assert yaml.safe_load((job.folder / "job.yaml").read_text()) == kept
        assert (job.folder / "id").read_text().strip().endswith(f"/namespaces/team/jobsets/{name}")
        assert engine.status(job_id).state == "waiting"
        kept["status"] = {"replicatedJobsStatus": [{"active": 1, "ready": 256}]}
        assert engine.status(job_id).state == "running"
        kept["status"] = {"conditions": condition("Completed")}
        assert engine.status(job_id) == JobStatus("done", 0)

    def test_logs_are_the_first_nodes_and_those_that_failed(
        self, cluster: FakeKubernetes, engine: KubernetesEngine, job: JobSpec
    ) -> None:
        name = name_of(job)
        for index, phase in enumerate(("Running", "Running", "Failed")):
            labels = {
                "jobset.sigs.k8s.io/jobset-name": name,
                "batch.kubernetes.io/job-completion-index": str(index),
            }
            cluster.pods.append(
                {"metadata": {"name": f"p{index}", "labels": labels}, "status": {"phase": phase}}
            )
            cluster.logs[f"p{index}"] = f"said by {index}\n"
        assert engine.logs(engine.submit(job)) == "said by 0\nsaid by 2\n"

    def test_cancel(self, cluster: FakeKubernetes, engine: KubernetesEngine, job: JobSpec) -> None:
        job_id = engine.submit(job)
        engine.cancel(job_id)
        engine.cancel(job_id)
        assert not cluster.jobsets
        assert engine.status(job_id) == JobStatus("cancelled")
        engine.submit(job)
        assert engine.status(job_id).state == "waiting", "it may be launched again"

    def test_drain_and_nodes(self, cluster: FakeKubernetes, engine: KubernetesEngine) -> None:
        engine.drain("a2", "Xid 79, card 3")
        assert engine.nodes() == [Node("a1", 8), Node("a2", 8, False, "cordoned: Xid 79, card 3")]
        with pytest.raises(
            EngineError,
            match=r"does not drain a9: the cluster has no such object \(nodes not found\)",
        ):
            engine.drain("a9", "gone")

    def test_twice_is_refused(
        self, cluster: FakeKubernetes, engine: KubernetesEngine, job: JobSpec
    ) -> None:
        engine.submit(job)
        with pytest.raises(EngineError, match="it is there already; `tumen cancel` removes it"):
            engine.submit(job)
        assert len(cluster.jobsets) == 1

    def test_deleted_by_somebody_is_lost(
        self, cluster: FakeKubernetes, engine: KubernetesEngine, job: JobSpec
    ) -> None:
        job_id = engine.submit(job)
        cluster.jobsets.clear()
        assert engine.status(job_id).state == "lost"

    def test_refusals_are_one_line(
        self, cluster: FakeKubernetes, engine: KubernetesEngine, job: JobSpec
    ) -> None:
        cluster.without_jobset = True
        with pytest.raises(
            EngineError, match="^kubernetes refused v2-cloud: the cluster has no JobSet"
        ):
            engine.submit(job)
        cluster.forbidden = True
        with pytest.raises(
            EngineError,
            match=r"^kubernetes refused v2-cloud: the cluster does not permit it \(POST is forbidden",
        ):
            engine.submit(job)
        assert engine.status(str(job.folder)).state == "lost"

    def test_who_is_not_known(
        self,
        cluster: FakeKubernetes,
        engine: KubernetesEngine,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv(
            "KUBECONFIG", str(kubeconfig(tmp_path, cluster.server, {"token": "guessed"}))
        )
        with pytest.raises(
            EngineError, match="the cluster does not know you; renew your kubeconfig's credentials"
        ):
            engine.nodes()

    def test_nobody_answers(
        self,
        engine: KubernetesEngine,
        job: JobSpec,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv(
            "KUBECONFIG", str(kubeconfig(tmp_path, "http://127.0.0.1:1", {"token": TOKEN}))
        )
        with pytest.raises(
            EngineError, match=r"^kubernetes does not answer at http://127\.0\.0\.1:1: "
        ):
            engine.submit(job)
        assert not (job.folder / "id").exists()
        (job.folder / "id").write_text("/apis/jobset.x-k8s.io/v1alpha2/namespaces/team/jobsets/x\n")
        assert engine.status(str(job.folder)).state == "silent"

    def test_read_only_folder_submits_nothing(
        self,
        cluster: FakeKubernetes,
        job: JobSpec,
        small_disk: Path,
        make_read_only: Callable[[], None],
    ) -> None:
        make_read_only()
        engine = KubernetesEngine(
            fleet_section.Kubernetes(image="x", volumes={str(small_disk): "runs"})
        )
        with pytest.raises(DiskError, match="read-only"):
            engine.submit(replace(job, folder=small_disk / "job"))
        assert not cluster.jobsets


class TestPlugin:
    """The credential plugin of a kubeconfig: it is slow, so what it prints is kept."""

    @pytest.fixture(autouse=True)
    def _nothing_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kubernetes_credentials, "PLUGINS", PluginCredentials())
        monkeypatch.setattr(kubernetes_api, "PLUGINS", kubernetes_credentials.PLUGINS)

    def plugin(self, folder: Path, status: str, server: str, monkeypatch: Any) -> Path:
        """Name a plugin in the kubeconfig; returns a file with a line for each of its runs."""
        code = f"""if True:
            import json, os
            from datetime import datetime, timedelta, timezone
            info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
            assert info["kind"] == "ExecCredential" and os.environ["ROLE"] == "trainer"
            with open({str(folder / "runs")!r}, "a") as runs:
                runs.write("run\\n")
            number = len(open({str(folder / "runs")!r}).readlines())
            later = lambda seconds: (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()
            print(json.dumps(dict(status={status})))
        """
        section = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": ["-c", code],
            "env": [{"name": "ROLE", "value": "trainer"}],
        }
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(folder, server, {"exec": section})))
        return folder / "runs"

    def runs(self, path: Path) -> int:
        return len(path.read_text().splitlines()) if path.exists() else 0

    @pytest.mark.parametrize(
        ("expires", "runs"),
        [("", 1), (", expirationTimestamp=later(600)", 1)]
        + [(f", expirationTimestamp=later({seconds})", 3) for seconds in (-600, 50)],
    )
    def test_a_credential_is_kept_until_it_expires(
        self,
        cluster: FakeKubernetes,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        expires: str,
        runs: int,
    ) -> None:
        status = f"dict(token={TOKEN!r}{expires})"
        path = self.plugin(tmp_path, status, cluster.server, monkeypatch)
        for _ in range(3):
            assert len(KubernetesEngine().nodes()) == 2
        assert self.runs(path) == runs

    def test_a_credential_that_the_server_rejects_is_renewed_once(
        self, cluster: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        status = "dict(token='token-' + str(number))"
        path = self.plugin(tmp_path, status, cluster.server, monkeypatch)
        cluster.token = "token-1"
        assert len(KubernetesEngine().nodes()) == 2
        cluster.token = "token-2"
        assert len(KubernetesEngine().nodes()) == 2
        assert len(KubernetesEngine().nodes()) == 2
        assert self.runs(path) == 2
        cluster.token = "revoked"
        with pytest.raises(EngineError, match="renew your kubeconfig's credentials"):
            KubernetesEngine().nodes()
        assert self.runs(path) == 3

    def test_another_plugin_has_another_credential(
        self, cluster: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.plugin(tmp_path, "dict(token='guessed')", cluster.server, monkeypatch)
        with pytest.raises(EngineError, match="does not know you"):
            KubernetesEngine().nodes()
        self.plugin(tmp_path, f"dict(token={TOKEN!r})", cluster.server, monkeypatch)
        assert len(KubernetesEngine().nodes()) == 2

    def test_a_client_certificate_is_a_credential_too(self) -> None:
        text = json.dumps({"status": {"clientCertificateData": "cert", "clientKeyData": "key"}})
        credential = kubernetes_credentials._parse_credential(text)
        assert (credential.token, credential.certificate, credential.key) == ("", b"cert", b"key")

    @pytest.mark.parametrize(
        ("status", "line"),
        [
            ("1 / 0", "returned non-zero exit status"),
            ("dict()", "it printed no ExecCredential"),
            ("dict(token='x', expirationTimestamp='soon')", "it printed no ExecCredential"),
        ],
    )
    def test_a_plugin_that_fails_is_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, line: str
    ) -> None:
        self.plugin(tmp_path, status, "http://127.0.0.1:1", monkeypatch)
        with pytest.raises(EngineError, match=f"the credential plugin .* failed: .*{line}"):
            connection()

    def test_a_plugin_that_is_not_installed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/no/such/plugin"}
        path = kubeconfig(tmp_path, "http://127.0.0.1:1", {"exec": plugin})
        monkeypatch.setenv("KUBECONFIG", str(path))
        with pytest.raises(EngineError, match="the credential plugin /no/such/plugin failed"):
            connection()


class TestConnection:
    def test_a_token_in_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "token").write_text("abc\n")
        monkeypatch.setenv(
            "KUBECONFIG", str(kubeconfig(tmp_path, "http://127.0.0.1:1/", {"tokenFile": "token"}))
        )
        api = connection()
        assert (api.server, api.namespace, api.token) == ("http://127.0.0.1:1", "team", "abc")

    def test_a_pod_knows_its_cluster(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import ssl

        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
        monkeypatch.setattr("tumen.cluster.engines.kubernetes_api.SERVICE_ACCOUNT", tmp_path)
        monkeypatch.setattr(ssl, "create_default_context", lambda cafile: cafile)
        for name, text in {"token": "abc", "namespace": "llm", "ca.crt": ""}.items():
            (tmp_path / name).write_text(text)
        api = connection()
        assert (api.server, api.namespace, api.token) == ("https://[fd00::1]:443", "llm", "abc")

    @pytest.mark.parametrize("text", ["", "{}", "a: [", "current-context: x\ncontexts: []", "[1]"])
    def test_a_bad_kubeconfig_is_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        (tmp_path / "config").write_text(text)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        with pytest.raises(EngineError, match="not a usable kubeconfig") as raised:
            connection()
        assert "\n" not in str(raised.value)

    def test_no_cluster(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
        with pytest.raises(
            EngineError,
            match="no Kubernetes cluster: there is no .*none, and this is no pod; set KUBECONFIG",
        ):
            connection()

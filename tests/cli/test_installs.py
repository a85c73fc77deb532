"""The wheel as users install it: every verb works, or names the extra to install in one line.

Three environments, each with the wheel in it:

    none    `pip install tumen`: only what pyproject.toml lists as dependencies
    data    and the extra `data`, on top of the first
    train   the first, and torch and the rest from the environment of the tests, as installing
            torch again takes minutes; packages of other extras are hidden there
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.cli.conftest import TINY
from tests.conftest import Once

from tumen.cli.commands import COMMANDS
from tumen.core.extras import EXTRAS

ROOT = Path(__file__).parents[2]
MISSING = 12  # exit code of MissingExtra
PATIENCE_SECONDS = 300
MOST_BYTES = 280e6  # of the light install, without pip
# Environment -> the extras in it. `kubernetes` is one package, which `data` has, too; `train` names
# `data` and `fit` in pyproject.toml.
DATA = ("data", "kubernetes")
ENVIRONMENTS = {"none": (), "data": DATA, "train": (*DATA, "fit", "train")}
HIDE = "import sys\nfor name in {names!r}:\n    sys.modules[name] = None\n"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Case:
    """A command, the extra it needs, and its exit code where that extra is installed."""

    words: str
    extra: str = ""
    code: int = 0
    seconds: str = ""  # why it does not run where the extra is installed


# In this order in one folder: `run` is finished, `untrained` lacks the device tier, `bare` is new.
CASES = (
    Case("recipe show tiny.toml"),
    Case("recipe check tiny.toml"),
    Case("recipe schema"),
    Case("plan recipe tiny.toml --fleet h800:8"),
    Case("plan check published.csv", code=4),  # no such file
    Case("plan calibrate", "train", seconds="measures for minutes"),
    Case("plan actual run", code=6),  # no profile of this machine
    Case("plan fleet --devices 1M --recipe tiny.toml"),
    Case("plan cards"),
    Case("fit tiny.toml"),
    Case("fit --calibrate", "fit", seconds="measures for minutes"),
    Case("run tiny.toml --run bare --until dataset", "data"),
    Case("run tiny.toml --run run"),  # everything is made
    Case("launch run --dry-run"),
    Case("launch untrained --tier device", "train"),
    Case("train untrained device", "train"),  # it is trained already
    Case("watch untrained", "train", code=4),  # the same
    Case("run tiny.toml --run untrained", "train"),
    Case("status run"),
    Case("logs run"),
    Case("cancel run"),
    Case("nodes --on local"),
    Case("nodes --on kubernetes", "kubernetes", code=11),  # no cluster answers
    Case("drain n1 --why broken --on local", code=11),
    Case("resize run 2", code=11),  # nothing is running
    Case("drill run --fault rank", code=11),
    Case("goodput run"),
    Case("metrics run --textfile run.prom", "prometheus"),
    Case("metrics run --tensorboard board", "tensorboard"),
    Case("lineage run"),
    Case("export run/device folder", "train"),
    Case("import run/bundle-device/model.gguf weights", "train"),
    Case("eval run"),
    Case("eval run --suite clinc --data clinc.json"),
    Case("eval run --suite ohf --data intents", "data", code=4),  # an empty folder
    Case("ablate variants.toml --run variants --plan"),
    Case("keys key"),
    Case("sign run/bundle-device --key key"),
    Case("promote run/bundle-device --to slot"),
    Case("rollback slot", code=4),  # one bundle alone was live
    Case("talk --run slot turn on the light"),
    Case("talk turn on the kitchen light"),  # with the bundle that ships
    Case("serve run --port 99999", code=4),
)
VARIANTS = """
[ablation]
seeds = [1]
budget = "6e9"

[ablation.taught]
tier = "device"
"""


@dataclass(frozen=True)
class Install:
    """An environment with the wheel, and a folder to work in."""

    name: str
    python: Path
    folder: Path

    def tumen(self, *words: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command of the installed wheel; no source of this checkout is on its path."""
        hidden = {"PYTHONPATH", "TUMEN_TRUST", "KUBERNETES_SERVICE_HOST"}
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        kept |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "KUBECONFIG": str(self.folder / "kube")}
        return subprocess.run(
            [*prefix, str(self.python), "-m", "tumen", *words],
            cwd=self.folder,
            env=kept,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )


def pip(*words: object, python: Path | None = None) -> None:
    """Run pip of the tests' environment, for another one if it is named."""
    command = [sys.executable, "-m", "pip", *(("--python", str(python)) if python else ())]
    done = subprocess.run([*command, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def packages(environment: Path) -> Path:
    """Return the folder of an environment's packages."""
    return next((environment / "lib").glob("python*/site-packages"))


def new_environment(folder: Path, *bases: Path) -> Path:
    """Make an environment that also sees the packages in `bases`; return its Python."""
    venv.create(folder)
    (packages(folder) / "bases.pth").write_text("".join(f"{base}\n" for base in bases))
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def environments(once: Once) -> Path:
    """A folder with the three environments."""

    def make(folder: Path) -> None:
        folder.mkdir()
        probe = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
        found = subprocess.run([*probe, "unicode-rbnf"], capture_output=True, check=False)
        if found.returncode:
            pytest.skip("no package index can be reached")
        pip("wheel", "-q", "--no-deps", "-w", folder, ROOT)
        wheel = next(folder.glob("tumen-*.whl"))
        install = ("install", "-q", "-c", ROOT / "constraints.txt")
        pip(*install, wheel, python=new_environment(folder / "none"))
        light = packages(folder / "none")
        pip(*install, f"{wheel}[data]", python=new_environment(folder / "data", light))
        whole = Path(sysconfig.get_paths()["purelib"])
        new_environment(folder / "train", light, whole)
        hidden = [name for name in EXTRAS if EXTRAS[name] not in ENVIRONMENTS["train"]]
        text = HIDE.format(names=hidden)
        (packages(folder / "train") / "sitecustomize.py").write_text(text)

    return once("environments", make)


@pytest.fixture(scope="session")
def install_of(
    environments: Path, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Install]:
    """Returns an environment by name, with a folder of its own."""
    made: dict[str, Install] = {}

    def install(name: str) -> Install:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            furnish(folder, whole)
            made[name] = Install(name, environments / name / "bin" / "python", folder)
        return made[name]

    return install


def furnish(folder: Path, whole: Path) -> None:
    """Write what the cases read."""
    shutil.copy(TINY, folder / "tiny.toml")
    (folder / "variants.toml").write_text(TINY.read_text() + VARIANTS)
    shutil.copytree(whole, folder / "run")
    gone = shutil.ignore_patterns("device", "bundle-*", "jobs", ".*")
    shutil.copytree(whole, folder / "untrained", ignore=gone)
    (folder / "intents").mkdir()
    (folder / "clinc.json").write_text(json.dumps({"val": [["hello there", "greeting"]]}))
    cluster = {"name": "none", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "none", "context": {"cluster": "none", "user": "none"}}
    user = {"name": "none", "user": {}}
    config = {
        "clusters": [cluster],
        "contexts": [context],
        "users": [user],
        "current-context": "none",
    }
    (folder / "kube").write_text(json.dumps(config))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_verb_works_or_names_the_extra(
    name: str, case: Case, install_of: Callable[[str], Install]
) -> None:
    here = not case.extra or case.extra in ENVIRONMENTS[name]
    if here and case.seconds:
        pytest.skip(case.seconds)
    done = install_of(name).tumen(*case.words.split())
    assert "Traceback" not in done.stderr
    assert done.returncode == (case.code if here else MISSING), done.stderr
    if done.returncode:
        assert done.stderr.count("\n") == 1
    if not here:
        assert f"pip install 'tumen[{case.extra}]'" in done.stderr


def test_every_verb_is_tried() -> None:
    assert {case.words.split()[0] for case in CASES} == {*COMMANDS}


def test_the_light_install_is_small(environments: Path) -> None:
    files = [path for path in (environments / "none").rglob("*") if not path.is_symlink()]
    assert sum(512 * path.stat().st_blocks for path in files) <= MOST_BYTES


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take the network away")
def test_the_light_install_talks_without_a_network(install_of: Callable[[str], Install]) -> None:
    light = install_of("none")
    done = light.tumen(
        "talk", "--run", "run", "--json", "turn on the light", prefix=("unshare", "--net")
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["action"]["lang"] in ("en", "zh", "de")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take the network away")
def test_the_light_install_answers_with_the_bundle_that_ships(
    install_of: Callable[[str], Install], tmp_path: Path
) -> None:
    fresh = replace(install_of("none"), folder=tmp_path)
    talk = ("talk", "--json", "turn on the kitchen light")
    done = fresh.tumen(*talk, prefix=("unshare", "--net"))
    assert done.returncode == 0, done.stderr
    turn = json.loads(done.stdout)
    assert {change["id"] for change in turn["changes"]} >= {"light.kitchen_ceiling"}
    assert done.stderr.startswith("bundle: the flagship that ships with tumen (pocket, ")
    assert done.stderr.count("\n") == 1

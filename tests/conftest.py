"""What many rooms' tests share: the tiny recipe, what is made from it once, and a disk that is full."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tumen.core.shape import Shape
from tumen.recipe import Recipe, load_recipe

Once = Callable[[str, Callable[[Path], object]], Path]
TINY = Path(__file__).with_name("tiny.toml")
settings.register_profile("untimed", deadline=None)  # machines are shared: nothing here is timed
settings.load_profile("untimed")


@functools.cache
def _in_lab(file: str) -> bool:
    """Whether a file of tests uses the Slurm lab."""
    return "pytest.mark.lab" in (TINY.parents[1] / file).read_text("utf-8")


class ByFile(LoadScopeScheduling):
    """With several workers a file is one worker's, and so are all files that use the Slurm lab: there is one lab on a machine."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "lab" if _in_lab(file) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """See `ByFile`."""
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes the whole machine is run when it is asked for; files that take long come first, so that no worker waits for them."""
    long = set()
    for item in items:
        for name in ("many", "drill"):
            if item.get_closest_marker(name) and name not in config.option.markexpr:
                item.add_marker(
                    pytest.mark.skip(
                        reason=f"takes minutes and the whole machine: pytest -m {name}"
                    )
                )
        if any(item.get_closest_marker(name) for name in ("lab", "slow", "story")):
            long.add(item.path)
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """The tiny recipe."""
    return load_recipe(TINY)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """A folder that whichever worker comes first makes, and all read. Nobody changes it: copies are broken."""
    base = tmp_path_factory.getbasetemp()
    home = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = home / "once" / name, home / "once" / f"{name}.done"
        folder.parent.mkdir(exist_ok=True)
        with open(home / "once" / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def corpus(recipe: Recipe, once: Once) -> Path:
    """The corpus artifact of the tiny recipe."""
    from tumen.data import write_corpus

    return once("corpus", lambda folder: write_corpus(recipe.data, recipe.seed, folder, "tiny"))


@pytest.fixture(scope="session")
def tokenizer(recipe: Recipe, corpus: Path, once: Once) -> Path:
    """The tokeniser artifact of the tiny recipe."""
    from tumen.data import write_tokenizer

    return once(
        "tokenizer", lambda folder: write_tokenizer(recipe.tokenizer, corpus, folder, "tiny")
    )


@pytest.fixture(scope="session")
def dataset(corpus: Path, tokenizer: Path, once: Once) -> Path:
    """The dataset artifact of the tiny recipe."""
    from tumen.data import write_dataset

    return once("dataset", lambda folder: write_dataset(corpus, tokenizer, folder, "tiny"))


@pytest.fixture(scope="session")
def shape_of(recipe: Recipe, tokenizer: Path) -> Callable[[str], Shape]:
    """The shape of a tier with the vocabulary of the tokeniser."""
    from tumen.data import Codec

    vocab = Codec.load(tokenizer).vocab
    return lambda tier: recipe.family[tier].shape.model_copy(update={"vocab_size": vocab})


@pytest.fixture(scope="session")
def cloud(recipe: Recipe, dataset: Path, shape_of: Callable[[str], Shape], once: Once) -> Path:
    """The cloud tier of the tiny recipe, trained."""
    from tumen.train import Making, fit

    section, shape = recipe.family["cloud"].train, shape_of("cloud")
    return once(
        "cloud",
        lambda folder: fit(
            section, shape, dataset, folder, making=Making(seed=recipe.seed, inputs="tiny")
        ),
    )


@pytest.fixture(scope="session")
def device(
    recipe: Recipe, dataset: Path, cloud: Path, shape_of: Callable[[str], Shape], once: Once
) -> Path:
    """The device tier of the tiny recipe, distilled from the cloud tier."""
    from tumen.core.events import Events
    from tumen.shrink import distil
    from tumen.train import Making

    tier = recipe.family["device"]
    taught = (tier.train, shape_of("device"), tier.distil, cloud, dataset)
    making = Making(seed=recipe.seed, inputs="tiny", events=Events(None))
    return once("device", lambda folder: distil(*taught, folder, making=making))


@pytest.fixture(scope="session")
def make_gguf() -> Callable[..., Path]:
    """Writes a GGUF with random weights."""
    from tests.bundles import write_gguf

    return write_gguf


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """Writes a bundle around such a GGUF."""
    from tests.bundles import write_bundle

    return write_bundle


@pytest.fixture(scope="session")
def stranger(corpus: Path, once: Once) -> Path:
    """A GGUF that is not ours; beside it `tokenizer.json`, and `hf`, the same model as transformers has it."""
    from tests.strangers import make_stranger

    from tumen.data import read_corpus

    def make(folder: Path) -> None:
        folder.mkdir()
        make_stranger((row["sentence"] for row in read_corpus(corpus, "train")), folder)

    return once("stranger", make) / "model.gguf"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct, where its package is installed."""
    from tests import strangers

    return strangers.smollm2()


@pytest.fixture(scope="session")
def smollm2_cut(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its first two layers."""
    from tests.strangers import cut_of

    return cut_of(smollm2, tmp_path_factory.mktemp("smollm2") / "cut.gguf", 2)


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a folder, to be broken."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / folder.name))


def _mounted(folder: Path, options: str) -> bool:
    folder.mkdir()
    return (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True
        ).returncode
        == 0
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of one megabyte. Needs root."""
    folder = tmp_path / "disk"
    if not _mounted(folder, "size=1m"):
        pytest.skip("a small disk is mounted by root alone")
    yield folder
    subprocess.run(["mount", "-o", "remount,rw", folder], check=False, capture_output=True)
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def make_read_only(small_disk: Path) -> Callable[[], None]:
    """Turns the small disk read-only."""
    return lambda: subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True) and None


@pytest.fixture(scope="session")
def slurm_lab() -> Iterator[None]:
    """A Slurm cluster of eight nodes, each with its own host name and network. Needs root and slurm-wlm."""
    from tests.lab import slurm

    if why := slurm.cannot():
        pytest.skip(why)
    found = slurm.running()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in slurm.environment().items():
            patch.setenv(name, value)
        slurm.up(8)
        yield
        if not found:
            slurm.down()

"""A recipe that starts from an outside model, through the whole chain: tuned whole, and as an adapter beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.cli.conftest import Tumen
from tests.conftest import Once

from tumen.core.artifact import manifest_of
from tumen.formats.pretrained import digest_of_start
from tumen.serve.runners import load_runner

RECIPE = """
name = "outside"
data = {{ sentences = 300, validation = 40, eval_sentences = 12, home_entities = [12, 20] }}
serve = {{ cloud_url = "http://127.0.0.1:9/v1" }}
[family.device]
init_from = {{ path = "{path}"{how} }}
train = {{ steps = 4, batch_size = 4, seq_len = 192, compile = false, threads = 1, sentence_weight = 0.0 }}
"""


def recipe(folder: Path, stranger: Path, how: str) -> Path:
    path = folder / "outside.toml"
    path.write_text(RECIPE.format(path=stranger, how=how))
    return path


@pytest.fixture
def run(stranger: Path, tmp_path: Path, tumen: Tumen, once: Once) -> Path:
    """A run that has its corpus."""

    def make(folder: Path) -> None:
        folder.mkdir()
        said = tumen(
            "run", recipe(folder, stranger, ""), "--run", folder / "run", "--until", "corpus"
        )
        assert said.returncode == 0, said.stderr

    return Path(shutil.copytree(once("outside", make) / "run", tmp_path / "run"))


def states(tumen: Tumen, run: Path) -> dict[str, str]:
    return {row["name"]: row["state"] for row in json.loads(tumen("lineage", run, "--json").stdout)}


def test_tuned_whole_with_fewer_tokens_and_pieces_of_actions(
    stranger: Path, run: Path, tmp_path: Path, tumen: Tumen
) -> None:
    path = recipe(tmp_path, stranger, "")
    fewer = ("--set", "tokenizer.trim=40", "--set", "tokenizer.pieces=true")
    said = tumen("run", path, "--run", run, *fewer)
    assert said.returncode == 0, said.stderr
    assert digest_of_start(stranger) in manifest_of(run / "device").made_from
    assert digest_of_start(stranger) in manifest_of(run / "tokenizer").made_from
    with load_runner(run / "bundle-device") as runner:
        done = runner.ask("turn on the kitchen light")
        assert json.loads(done.text)["intent"]
        assert done.prompt_tokens < 20
    assert set(states(tumen, run).values()) == {"done"}
    again = tumen("run", path, "--run", run, *fewer)
    assert "nothing to do" in again.stdout


def test_an_adapter_beside_it(stranger: Path, run: Path, tmp_path: Path, tumen: Tumen) -> None:
    path = recipe(tmp_path, stranger, ', tune = "lora", rank = 4')
    said = tumen("run", path, "--run", run)
    assert said.returncode == 0, said.stderr
    assert (run / "bundle-device" / "model.gguf").read_bytes() == stranger.read_bytes()
    facts = manifest_of(run / "device").facts
    assert facts["adapter_parameters"] < manifest_of(run / "bundle-device").facts["parameters"]
    out = tumen("export", run / "device", tmp_path / "a.gguf", "--to", "adapter")
    assert out.returncode == 0, out.stderr
    assert (tmp_path / "a.gguf").read_bytes()[:4] == b"GGUF"
    assert tumen("export", run / "device", tmp_path / "hf").returncode == 0
    other = tumen("run", path, "--run", run, "--set", "family.device.init_from.merge=true")
    assert other.returncode == 0, other.stderr
    assert not (run / "bundle-device" / "adapters").exists()
    assert "\ndevice " not in f"\n{other.stdout}", "the adapter itself is not trained again"


def test_an_import_says_the_recipe_lines(stranger: Path, tmp_path: Path, tumen: Tumen) -> None:
    said = tumen("import", stranger, tmp_path / "in")
    assert said.returncode == 0, said.stderr
    assert f'init_from = "{tmp_path / "in"}"' in said.stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "family.device.init_from.path='none.gguf'",
            "family.device.init_from.path: none.gguf: holds no model",
        ),
        ("family.device.init_from.layers=7", "has 3 layers, number 6 (from 0 on) is asked for"),
        ("family.device.shape.hidden_size=32", "family.device"),
    ],
)
def test_one_clear_line(
    stranger: Path, tmp_path: Path, tumen: Tumen, change: str, says: str
) -> None:
    said = tumen("recipe", "check", recipe(tmp_path, stranger, ""), "--set", change)
    assert said.returncode != 0
    assert says in said.stderr
    assert "Traceback" not in said.stderr

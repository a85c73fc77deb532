"""An encoder as a device tier, from its recipe to a bundle that talks; where it is refused, one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Tumen
from tests.conftest import Once

from tumen.core import artifact
from tumen.core.artifact import manifest_of
from tumen.core.errors import ArtifactError, InputError, RecipeError, RunnerError
from tumen.data import read_corpus
from tumen.language import parse
from tumen.recipe import load_recipe
from tumen.serve.runners import HEADS_FILE, load_runner

RECIPE = Path(__file__).parents[1] / "encoder.toml"


@pytest.fixture(scope="module")
def made(tumen: Tumen, once: Once) -> Path:
    """The run of the recipe, to its end."""

    def make(run: Path) -> None:
        done = tumen("run", RECIPE, "--run", run)
        assert done.returncode == 0, done.stderr
        assert "gate: passed" in done.stdout

    return once("tiny-encoder", make)


def reseal(bundle: Path, change: Callable[[Path], Any]) -> Path:
    """A copy of a bundle that is changed and sealed again."""
    copy = bundle.with_name("changed")
    shutil.rmtree(copy, ignore_errors=True)
    with artifact.writing(copy, "bundle", "test", []) as stage:
        for name in manifest_of(bundle).files:
            shutil.copyfile(bundle / name, stage / name)
        change(stage)
    return copy


def test_the_bundle_reads_what_torch_reads(made: Path) -> None:
    bundle = made / "bundle-device"
    facts = manifest_of(bundle).facts
    assert facts["agreement"] >= 0.99
    assert facts["sentences"] == 36
    right = 0
    rows = list(read_corpus(made / "corpus", "eval"))
    with load_runner(bundle, store="own") as runner:
        for row in rows:
            found = runner.ask(row["sentence"])
            action = parse(found.text, runner.ontology)
            assert 0 < found.confidence <= 1
            assert found.passes == 1
            assert "".join(piece for piece, _ in found.logprobs).count('"intent"') == 1
            right += action.intent == row["action"]["intent"]
        # of some forty intents; how many it gets right differs between machines
        assert right > len(rows) / 9, "it has learned something"
        with pytest.raises(RunnerError, match="is an encoder, which reads actions"):
            runner.complete("turn on")
        with pytest.raises(InputError, match="shorten the sentence"):
            runner.ask("a " * 140)
        assert runner.ask("turn on the kitchen light").text, "it goes on after a refusal"


def test_nothing_is_made_twice(made: Path, tumen: Tumen) -> None:
    done = tumen("run", RECIPE, "--run", made)
    assert done.returncode == 0
    assert "everything in this recipe is made" in done.stdout


def test_it_talks_without_torch(made: Path, light: Tumen) -> None:
    done = light("talk", "turn on the kitchen light", "--run", made, "--ungated", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])


def test_bad_heads_get_one_line(made: Path) -> None:
    bundle = made / "bundle-device"
    gone = reseal(bundle, lambda folder: (folder / HEADS_FILE).unlink())
    with pytest.raises(ArtifactError, match=r"heads.safetensors: missing"):
        load_runner(gone, store="own")
    cut = reseal(bundle, lambda folder: (folder / HEADS_FILE).write_bytes(b"\1\2\3"))
    with pytest.raises(ArtifactError, match="no safetensors: cut short"):
        load_runner(cut, store="own")

    def other(folder: Path) -> None:
        ontology = json.loads((folder / "ontology.json").read_text("utf-8"))
        ontology["languages"].append("fr")
        (folder / "ontology.json").write_text(json.dumps(ontology), "utf-8")

    with pytest.raises(RunnerError, match="sentence.weight .* of two recipes"):
        load_runner(reseal(bundle, other), store="own")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("plan", RECIPE), "an encoder tier is trained"),
        (("fit", RECIPE, "--device", "laptop"), "an encoder tier is trained"),
        (("fit", "{bundle}", "--device", "laptop"), "an encoder reads a sentence in one pass"),
        (("export", "{tier}", "{out}"), "is an encoder; a decoder is needed"),
        (("train", "{run}", "device", "--profile", "{out}"), "an encoder tier is trained"),
    ],
)
def test_what_an_encoder_cannot_do_gets_one_line(
    words: tuple[Any, ...], says: str, made: Path, tumen: Tumen, tmp_path: Path
) -> None:
    places = {
        "bundle": made / "bundle-device",
        "tier": made / "device",
        "run": made,
        "out": tmp_path / "out",
    }
    done = tumen(*(str(word).format(**places) for word in words))
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("distil={teacher='cloud'}", "an encoder learns from the data alone"),
        ("quantize={type='int4', qat=true}", "an encoder takes one plain type"),
        ("train.mesh.dp=2", "an encoder trains in one process"),
        ("shape.num_attention_heads=5", "hidden_size 64 is no multiple of num_attention_heads 5"),
        ("shape.attention=1", "family.device.shape.attention: unknown field"),
    ],
)
def test_a_recipe_that_asks_for_more_is_refused(change: str, says: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(RECIPE, [f"family.device.{change}"])
    assert says in str(error.value)

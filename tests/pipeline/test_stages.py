"""The chain of a recipe: what is made from what, and what a change makes stale."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import TINY

from tumen.pipeline.lineage import links
from tumen.pipeline.stages import evaluated_tiers, stages
from tumen.pipeline.training import QatStage
from tumen.recipe import load_recipe, recipe_of

ALL = [
    "corpus",
    "tokenizer",
    "dataset",
    "cloud",
    "device",
    "bundle-device",
    "bundle-cloud",
    "bundle-device/scorecard",
]


def stale_after(run: Path, *changes: str) -> list[str]:
    return [
        link.stage.name for link in links(load_recipe(TINY, changes), run) if link.state == "stale"
    ]


def test_stages_in_order() -> None:
    found = list(stages(load_recipe(TINY)))
    assert [stage.name for stage in found] == ALL
    assert found[4].parents == ("dataset", "tokenizer", "cloud")


def test_a_cloud_elsewhere_is_not_packed() -> None:
    recipe = load_recipe(TINY, ["serve.cloud_url='http://x/v1'"])
    assert evaluated_tiers(recipe) == {"device": "device", "teacher": "cloud"}
    alone = load_recipe(TINY, ["serve.cloud='device'", "family.device.distil.teacher='cloud'"])
    assert evaluated_tiers(alone) == {"device": "device", "teacher": "cloud"}


def test_without_a_cloud_there_is_one_column() -> None:
    tree = load_recipe(TINY).model_dump(mode="json", exclude_unset=True)
    del tree["family"]["cloud"], tree["family"]["device"]["distil"]
    recipe = recipe_of(tree, "alone")
    assert recipe.serve.cloud is None
    assert evaluated_tiers(recipe) == {"device": "device"}
    assert [stage.name for stage in stages(recipe)][3:] == [
        "device",
        "bundle-device",
        "bundle-device/scorecard",
    ]


def test_a_tier_that_learns_without_the_teacher_is_evaluated_beside_it() -> None:
    tree = load_recipe(TINY).model_dump(mode="json", exclude_unset=True)
    tree["family"]["same"] = {**tree["family"]["device"], "distil": None}
    tree["gate"]["alone"] = "same"
    recipe = recipe_of(tree, "same")
    assert evaluated_tiers(recipe) == {"device": "device", "cloud": "cloud", "alone": "same"}
    assert "bundle-same" in [stage.name for stage in stages(recipe)]


def test_a_tier_that_is_quantized_with_care_has_more_stages() -> None:
    budget = load_recipe(TINY, ["family.device.quantize={budget='1 MB'}"])
    assert [stage.name for stage in stages(budget)][5:7] == ["device-quant", "bundle-device"]
    by_name = {
        stage.name: stage
        for stage in stages(
            load_recipe(TINY, ["family.device.quantize={type='int4', qat=true, steps=60}"])
        )
    }
    assert list(by_name)[4:8] == ["device", "device-quant", "device-qat", "bundle-device"]
    assert by_name["bundle-device"].parents == (
        "device",
        "tokenizer",
        "corpus",
        "device-quant",
        "device-qat",
    )
    trained = by_name["device-qat"]
    assert isinstance(trained, QatStage)
    assert trained.tier.train.steps == 60
    assert trained.tier.distil is None, "the tier's own teacher has done its work"


def test_how_a_tier_is_trained_on_its_types_leaves_their_choice() -> None:
    asked = {}
    for steps in (60, 80):
        chain = {
            stage.name: stage
            for stage in stages(
                load_recipe(
                    TINY, [f"family.device.quantize={{type='int4', qat=true, steps={steps}}}"]
                )
            )
        }
        asked[steps] = {name: chain[name].inputs({}) for name in ("device-quant", "device-qat")}
    assert asked[60]["device-quant"] == asked[80]["device-quant"]
    assert asked[60]["device-qat"] != asked[80]["device-qat"]


def test_nothing_is_stale_after_a_run(whole: Path) -> None:
    assert [link.state for link in links(load_recipe(TINY), whole)] == ["done"] * len(ALL)


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ("seed=8", "corpus"),
        ("data.eval_sentences=20", "corpus"),
        ("tokenizer.vocab_size=800", "tokenizer"),
        ("family.cloud.train.steps=9", "cloud"),
    ],
)
def test_a_change_makes_everything_after_it_stale(whole: Path, change: str, first: str) -> None:
    assert stale_after(whole, change) == ALL[ALL.index(first) :]


def test_a_change_of_the_student_leaves_the_teacher(whole: Path) -> None:
    assert stale_after(whole, "family.device.train.learning_rate=0.1") == [
        "device",
        "bundle-device",
        "bundle-device/scorecard",
    ]
    assert stale_after(whole, "family.device.quantize=int4") == [
        "bundle-device",
        "bundle-device/scorecard",
    ]
    assert stale_after(whole, "gate.exact=0.5") == ALL[5:]


@pytest.mark.parametrize(
    "change",
    ["family.cloud.train.checkpoint_every=7", "family.cloud.train.keep=1", "fleet.engine='local'"],
)
def test_what_decides_nothing_makes_nothing_stale(whole: Path, change: str) -> None:
    assert stale_after(whole, change) == []


def test_missing_and_damaged(run: Path) -> None:
    for file in ("tokenizer.json", "ontology.json"):
        (run / "tokenizer" / file).unlink()
    (run / "tokenizer" / "manifest.json").unlink()
    (run / "tokenizer").rmdir()
    (run / "device" / "manifest.json").write_text("{")
    states = {link.stage.name: link.state for link in links(load_recipe(TINY), run)}
    assert states["corpus"] == "done"
    assert states["tokenizer"] == "missing"
    assert states["dataset"] == states["cloud"] == "stale"
    assert states["device"] == "damaged"

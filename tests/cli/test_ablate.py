"""`tumen ablate`: variants at one budget over seeds, on top of a finished tiny run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.cli.conftest import TINY, Tumen

from tumen.cli.evaluation import table_lines
from tumen.core import events
from tumen.core.artifact import manifest_of, verify
from tumen.core.errors import InputError, PlanError, RecipeError
from tumen.pipeline.ablation import plan_ablation, variant_stages
from tumen.pipeline.ablation.variants import with_budget
from tumen.plan import training_compute
from tumen.recipe import load_recipe

BUDGET = 6e9
VARIANTS = f"""
[ablation]
seeds = [1, 2]
budget = "{BUDGET:g}"

[ablation.dense]
tier = "cloud"
without = ["shape.experts"]
set = {{ "shape.intermediate_size" = 192, "train.learning_rate" = 1e-3 }}

[ablation.taught]
tier = "device"
"""


@pytest.fixture(scope="session")
def recipe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ablation") / "tiny.toml"
    path.write_text(TINY.read_text() + VARIANTS)
    return path


@pytest.fixture(scope="session")
def trained(tumen: Tumen, whole: Path, recipe_path: Path) -> Path:
    """A finished run whose variants are trained too. Nobody changes it."""
    run = Path(shutil.copytree(whole, recipe_path.with_name("run")))
    done = tumen("ablate", recipe_path, "--run", run)
    assert done.returncode == 0, done.stderr
    (run / "said.txt").write_text(done.stdout)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def made(run: Path, since: int = 0) -> list[str]:
    rows = [
        row["name"] for row in events.read(run / "events.jsonl", "stage") if row["state"] == "done"
    ]
    return rows[since:]


def test_what_the_run_had_is_shared_and_seeds_come_in_turns(trained: Path, whole: Path) -> None:
    names = [f"ablation/{arm}/seed-{seed}" for seed in (1, 2) for arm in ("dense", "taught")]
    assert made(trained, len(made(whole))) == [*names, "ablation/table"]
    for name in names:
        assert (
            manifest_of(whole / "dataset").digest in verify(trained / name, "checkpoint").made_from
        )
    assert (
        manifest_of(whole / "cloud").digest
        in manifest_of(trained / "ablation/taught/seed-1").made_from
    )
    digests = {manifest_of(trained / name).digest for name in names}
    assert len(digests) == len(names), "every seed and arm is another network"
    assert json.loads((trained / "ablation/dense/seed-1/shape.json").read_text())["experts"] is None


def test_arms_spend_alike(trained: Path) -> None:
    rows = json.loads((trained / "ablation/table/table.json").read_text())["variants"]
    assert [row["name"] for row in rows] == ["dense", "taught"]
    for row in rows:
        assert 0 <= BUDGET - row["flops"] < row["step_flops"]
        facts = manifest_of(trained / "ablation" / row["name"] / "seed-2").facts
        assert (facts["steps"], facts["tokens"]) == (row["steps"], row["tokens"])
    assert rows[0]["steps"] != rows[1]["steps"]
    taught = rows[1]
    cloud = load_recipe(TINY).family["cloud"]
    training = training_compute(
        cloud.shape.model_copy(update={"vocab_size": 700}), cloud.train
    ).flops
    assert taught["teacher"] == "cloud"
    assert training < taught["teacher_flops"] < 2 * training, "eight steps, and a pass to ask it"
    assert rows[0]["teacher_flops"] == 0


def test_the_table(trained: Path) -> None:
    said = (trained / "said.txt").read_text()
    table = said[
        said.index("tiny: 6.000e9 FLOPs for each variant and seed; seeds 1, 2") :
    ].splitlines()
    assert table[1].split()[:6] == ["variant", "loss", "against", "steps", "tokens", "weights"]
    assert [line.split()[0] for line in table[2:4]] == ["dense", "taught"]
    assert len({len(line) for line in table[1:4]}) == 1, "columns are straight"
    assert "95% interval over seeds (Student's t)" in table[4]
    assert "measured by `tumen ablate " in table[6]
    found = verify(trained / "ablation/table", "ablation")
    assert set(found.facts) == {"tokens_per_second", "machine", "load", "versions", "command"}
    assert set(found.facts["tokens_per_second"]) == {"dense", "taught"}


def test_losses_and_differences_are_those_of_the_checkpoints(trained: Path) -> None:
    rows = json.loads((trained / "ablation/table/table.json").read_text())["variants"]
    for row in rows:
        losses = [
            manifest_of(trained / "ablation" / row["name"] / f"seed-{seed}").facts[
                "validation_loss"
            ]
            for seed in (1, 2)
        ]
        assert row["losses"] == losses
        assert row["loss"]["low"] < row["loss"]["mean"] < row["loss"]["high"]
    assert rows[0]["against_first"] is None
    pairs = [
        ours - theirs for ours, theirs in zip(rows[1]["losses"], rows[0]["losses"], strict=True)
    ]
    assert rows[1]["against_first"]["mean"] == pytest.approx(sum(pairs) / 2)


def test_what_is_done_is_not_done_again(tumen: Tumen, run: Path, recipe_path: Path) -> None:
    before = len(made(run))
    again = tumen("ablate", recipe_path, "--run", run, "--json")
    assert again.returncode == 0, again.stderr
    assert [row["name"] for row in json.loads(again.stdout)["variants"]] == ["dense", "taught"]
    assert made(run, before) == []
    old = manifest_of(run / "ablation/dense/seed-2").digest
    shutil.rmtree(run / "ablation/dense/seed-2")
    fewer = tumen("ablate", recipe_path, "--run", run)
    assert fewer.returncode == 0, fewer.stderr
    assert made(run, before) == ["ablation/dense/seed-2"]
    assert manifest_of(run / "ablation/dense/seed-2").digest == old, (
        "the same seed is the same network"
    )


def test_one_seed_has_no_interval_and_a_suite_is_put(
    tumen: Tumen, run: Path, recipe_path: Path
) -> None:
    before = len(made(run))
    done = tumen(
        "ablate",
        recipe_path,
        "--run",
        run,
        "--set",
        "ablation.seeds=[2]",
        "--set",
        "ablation.eval=true",
    )
    assert done.returncode == 0, done.stderr
    assert made(run, before) == [
        *(f"ablation/{arm}/bundle-2" for arm in ("dense", "taught")),
        "ablation/table",
    ]
    assert done.stdout.count("(no interval)") == 2 + 1 + 2, "loss, against, exact"
    assert "one seed: no interval" in done.stdout
    for row in json.loads((run / "ablation/table/table.json").read_text())["variants"]:
        assert row["exact"]["n"] == 36
        assert 0 <= row["exact"]["mean"] <= 1


def test_seconds_are_measured_and_kept(tumen: Tumen, run: Path, recipe_path: Path) -> None:
    text = recipe_path.read_text().replace(f'budget = "{BUDGET:g}"', "seconds = 1e-6")
    path = run.with_name("seconds.toml")
    path.write_text(text[: text.index("[ablation.taught]")])
    done = tumen("ablate", path, "--run", run)
    assert done.returncode == 6
    assert done.stderr.startswith("tumen: ablation.dense: one step takes ")
    assert done.stderr.count("\n") == 1
    pace = json.loads((run / "ablation/dense/pace/pace.json").read_text())["step_seconds"]
    recipe = load_recipe(path, [f"ablation.seconds={7.5 * pace}"])
    vocab = 700
    assert with_budget(recipe, run, "dense", vocab).train.steps == 7
    names = [stage.name for stage in variant_stages(recipe, run)]
    assert names == [
        "ablation/dense/pace",
        "ablation/dense/seed-1",
        "ablation/dense/seed-2",
        "ablation/table",
    ]
    refused = tumen("ablate", path, "--run", run, "--plan")
    assert refused.returncode == 4
    assert "set ablation.budget to plan" in refused.stderr


def test_plan_trains_nothing(tumen: Tumen, recipe_path: Path, tmp_path: Path) -> None:
    done = tumen("ablate", recipe_path, "--plan", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in json.loads(done.stdout)["variants"]] == ["dense", "taught"]
    assert list(tmp_path.iterdir()) == []


class TestBad:
    def test_no_arms(self, tumen: Tumen, tmp_path: Path) -> None:
        done = tumen("ablate", TINY, folder=tmp_path)
        assert done.returncode == InputError.exit_code
        assert done.stderr == "tumen: tiny has no [ablation]; see recipes/ablation-pocket.toml\n"

    def test_less_than_a_step(self, tumen: Tumen, recipe_path: Path, tmp_path: Path) -> None:
        done = tumen("ablate", recipe_path, "--set", "ablation.budget='1k'", folder=tmp_path)
        assert done.returncode == PlanError.exit_code
        assert done.stderr.startswith(
            "tumen: ablation.dense: one step takes 1.96e+09 FLOPs, the budget is 1e+03; "
        )
        assert done.stderr.count("\n") == 1
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            ("ablation.budget=0", "ablation: budget 0.0 must be above 0 FLOPs"),
            ("ablation.budget='much'", "ablation: budget: 'much' is not a count"),
            ("ablation.seconds=5", "ablation: set one of budget (FLOPs) and seconds"),
            (
                "ablation.buget='2e15'",
                "ablation.buget: neither a field (seeds, budget, seconds, eval) nor a variant",
            ),
            ("ablation.seeds=[]", "ablation.seeds: "),
            ("ablation.seeds=[1, 1]", "ablation: a seed stands twice in seeds"),
            (
                "ablation.table={ tier = 'cloud' }",
                "ablation: 'table': a variant's name is its folder",
            ),
            (
                "ablation.dense.tier='cluod'",
                "ablation.dense.tier: 'cluod' is no tier; the family has cloud, device",
            ),
            (
                "ablation.dense.teir='cloud'",
                "ablation.dense.teir: unknown field; did you mean 'tier'?",
            ),
            (
                "ablation.dense.set={ 'train.steps' = 3 }",
                "ablation.dense.set: train.steps follows from the budget",
            ),
            (
                "ablation.dense.set={ 'shape.hiden_size' = 3 }",
                "ablation.dense.shape.hiden_size: unknown field; did you mean 'hidden_size'?",
            ),
            (
                "ablation.dense.set={ 'shape.attention.num_atention_heads' = 3 }",
                "ablation.dense.shape.attention.num_atention_heads: unknown field; did you mean 'num_attention_heads'?",
            ),
            (
                "ablation.dense.set={ 'shape.num_hidden_layers.x' = 3 }",
                "ablation.dense.set: 'num_hidden_layers' is a value, not a section",
            ),
            (
                "ablation.dense.set={ 'shape.num_hidden_layers' = 'two' }",
                "ablation.dense.shape.num_hidden_layers: ",
            ),
            ("ablation.dense.without=['shape.hidden_size']", "ablation.dense.shape.hidden_size: "),
            (
                "ablation.taught.set={ 'distil.teacher' = 'nobody' }",
                "ablation.taught.distil.teacher: 'nobody' is no tier",
            ),
        ],
    )
    def test_is_one_fault_with_its_path(self, recipe_path: Path, change: str, fault: str) -> None:
        with pytest.raises(RecipeError) as caught:
            load_recipe(recipe_path, [change])
        assert len(caught.value.faults) == 1
        assert caught.value.faults[0].startswith(fault)


def test_a_recipe_survives_its_folder(recipe_path: Path) -> None:
    from tumen.recipe import Recipe

    recipe = load_recipe(recipe_path)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_plan_has_no_losses(recipe_path: Path, tmp_path: Path) -> None:
    said = list(table_lines(plan_ablation(load_recipe(recipe_path), tmp_path)))
    assert len(said) == 1 + 3 + 1
    assert "loss" not in said[1]

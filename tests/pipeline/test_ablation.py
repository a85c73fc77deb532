"""What the variants of an ablation may spend, and the table that compares them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import TINY
from tests.pipeline.engines import PretendEngine

from tumen.cluster.engines import JobStatus
from tumen.core.artifact import verify, writing
from tumen.core.errors import InputError, PlanError, TrainError
from tumen.core.events import Events
from tumen.eval.statistics import mean_over_seeds, paired_seed_difference
from tumen.pipeline.ablation import step_pace
from tumen.pipeline.ablation.step_pace import read_pace
from tumen.pipeline.ablation.variant_table import (
    TableStage,
    compared,
    read_table,
    variant_bundle,
    variant_checkpoint,
    variant_pace,
)
from tumen.pipeline.ablation.variants import (
    ablation_of,
    heading,
    pace_stage,
    plan_ablation,
    spending,
    teachers_of,
    whole_shape,
    with_budget,
)
from tumen.pipeline.stage import Work
from tumen.plan import training_compute
from tumen.recipe import Recipe, Tier, load_recipe

VOCAB = 700
LOSSES = {"dense": [2.0, 2.4], "taught": [1.5, 1.7], "wide": [2.0, 2.0]}  # seed by seed
VARIANTS = """
[ablation]
seeds = [1, 2]
{budget}

[ablation.dense]
tier = "cloud"
without = ["shape.experts"]

[ablation.taught]
tier = "device"

[ablation.wide]
tier = "cloud"
set = {{ "shape.intermediate_size" = 192 }}
"""


def recipe_with(tmp_path: Path, budget: str, *changes: str) -> Recipe:
    """The tiny recipe with a plain variant and one that has a teacher."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.read_text() + VARIANTS.format(budget=budget))
    return load_recipe(path, changes)


def write_pace(run: Path, variant: str, step_seconds: float) -> None:
    folder = run / variant_pace(variant)
    folder.mkdir(parents=True)
    (folder / "pace.json").write_text(json.dumps({"step_seconds": step_seconds}))


class TestBudget:
    def test_seconds_pay_for_whole_steps(self, tmp_path: Path) -> None:
        recipe = recipe_with(tmp_path, "seconds = 10")
        write_pace(tmp_path, "dense", 0.3)
        write_pace(tmp_path, "taught", 10.0)
        assert with_budget(recipe, tmp_path, "dense", VOCAB).train.steps == 33
        assert with_budget(recipe, tmp_path, "taught", VOCAB).train.steps == 1

    def test_seconds_that_pay_for_no_step_are_too_few(self, tmp_path: Path) -> None:
        recipe = recipe_with(tmp_path, "seconds = 10")
        write_pace(tmp_path, "dense", 10.1)
        with pytest.raises(PlanError) as caught:
            with_budget(recipe, tmp_path, "dense", VOCAB)
        assert str(caught.value) == (
            "ablation.dense: one step takes 10.1 s here, the budget is 10 s; raise ablation.seconds"
        )

    def test_flops_pay_for_whole_steps_of_this_vocabulary(self, tmp_path: Path) -> None:
        recipe = recipe_with(tmp_path, 'budget = "6e9"')
        tier = with_budget(recipe, tmp_path, "dense", VOCAB)
        spent = training_compute(whole_shape(tier, VOCAB), tier.train)
        assert 6e9 - spent.flops / tier.train.steps < spent.flops <= 6e9
        larger = with_budget(recipe, tmp_path, "dense", 5 * VOCAB)
        assert larger.train.steps < tier.train.steps

    def test_the_heading_names_the_one_budget(self, tmp_path: Path) -> None:
        seconds = heading(recipe_with(tmp_path, "seconds = 10"))
        assert seconds == {"recipe": "tiny", "budget_seconds": 10.0, "seeds": [1, 2]}
        flops = heading(recipe_with(tmp_path, 'budget = "6e9"'))
        assert flops == {"recipe": "tiny", "budget_flops": 6e9, "seeds": [1, 2]}

    def test_without_variants_there_is_nothing_to_plan(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"tiny has no \[ablation\]"):
            ablation_of(load_recipe(TINY))


class TestSpending:
    def test_a_variant_without_a_teacher(self, tmp_path: Path) -> None:
        recipe = recipe_with(tmp_path, 'budget = "6e9"')
        tier = with_budget(recipe, tmp_path, "dense", VOCAB)
        row = spending(recipe, tmp_path, tier, VOCAB)
        assert (row["teacher"], row["teacher_flops"], row["start"]) == (None, 0, None)
        assert row["steps"] == tier.train.steps

    def test_a_teacher_costs_its_training_and_a_pass_over_the_data(self, tmp_path: Path) -> None:
        recipe = recipe_with(tmp_path, 'budget = "6e9"')
        tier = with_budget(recipe, tmp_path, "taught", VOCAB)
        cloud = recipe.family["cloud"]
        shape = whole_shape(cloud, VOCAB)
        trained = training_compute(shape, cloud.train).flops
        row = spending(recipe, tmp_path, tier, VOCAB)
        assert (row["teacher"], row["teacher_flops"]) == ("cloud", trained)
        with writing(tmp_path / "dataset", "dataset", "asked", [], {"train_tokens": 5000}):
            pass
        asked = 5000 * shape.flops_per_token(tier.train.seq_len)
        assert spending(recipe, tmp_path, tier, VOCAB)["teacher_flops"] == trained + asked

    def test_teachers_of_teachers_count(self) -> None:
        """The device tier is taught by `upper`, that one by `lower`, and `lower` by the cloud tier."""
        recipe = load_recipe(TINY)
        lower = recipe.family["device"]
        distil = lower.distil
        assert distil is not None

        def taught_by(teacher: str) -> Tier:
            return lower.model_copy(
                update={"distil": distil.model_copy(update={"teacher": teacher})}
            )

        family = {**recipe.family, "lower": lower, "upper": taught_by("lower")}
        chained = recipe.model_copy(update={"family": family})
        assert teachers_of(chained, taught_by("upper")) == ["upper", "lower", "cloud"]
        assert teachers_of(recipe, recipe.family["cloud"]) == []

    def test_a_plan_has_a_row_for_each_variant(self, tmp_path: Path) -> None:
        recipe = recipe_with(tmp_path, 'budget = "6e9"')
        plan = plan_ablation(recipe, tmp_path)
        assert [row["name"] for row in plan["variants"]] == ["dense", "taught", "wide"]
        tier = with_budget(recipe, tmp_path, "dense", recipe.tokenizer.vocab_size)
        assert plan["variants"][0]["steps"] == tier.train.steps


class TestTable:
    def made(self, run: Path) -> dict[str, Any]:
        """The table of two variants whose checkpoints have these losses."""
        for name, losses in LOSSES.items():
            for seed, loss in zip((1, 2), losses, strict=True):
                facts = {"validation_loss": loss, "epochs": 3, "tokens_per_second": 100 * seed}
                where = run / variant_checkpoint(name, seed)
                with writing(where, "checkpoint", "asked", [], facts) as out:
                    (out / "weights").write_text(f"{name} {seed}")
        section = recipe_with(run, 'budget = "6e9"').ablation
        assert section is not None
        spendings = {name: {"flops": 7} for name in LOSSES}
        stage = TableStage("ablation/table", (), section, {"recipe": "tiny"}, spendings, 1)
        stage.make(Work(run, "asked", Events(None), None, None))  # type: ignore[arg-type]
        return read_table(run)

    def test_losses_seed_by_seed_against_the_first(self, tmp_path: Path) -> None:
        dense, taught, wide = self.made(tmp_path)["variants"]
        assert (dense["losses"], taught["losses"]) == ([2.0, 2.4], [1.5, 1.7])
        assert dense["against_first"] is None
        assert taught["against_first"]["mean"] == pytest.approx(-0.6)
        assert wide["against_first"]["mean"] == pytest.approx(-0.2), "not against the one before"
        assert (dense["name"], dense["flops"], dense["epochs"]) == ("dense", 7, 3)

    def test_speeds_and_machine_are_facts_and_no_part_of_the_digest(self, tmp_path: Path) -> None:
        table = self.made(tmp_path)
        assert table["tokens_per_second"] == {"dense": 150, "taught": 150, "wide": 150}
        assert {"machine", "load", "versions", "command"} <= set(table)
        payload = (tmp_path / "ablation" / "table" / "table.json").read_text()
        assert "tokens_per_second" not in payload
        assert "machine" not in payload

    def test_it_is_made_from_every_checkpoint(self, tmp_path: Path) -> None:
        self.made(tmp_path)
        parents = {
            verify(tmp_path / variant_checkpoint(name, seed)).digest
            for name in LOSSES
            for seed in (1, 2)
        }
        assert set(verify(tmp_path / "ablation" / "table").made_from) == parents
        assert len(parents) == 6

    def test_a_comparison_is_paired_by_seed(self) -> None:
        first, losses = [2.0, 3.0, 4.0], [1.9, 2.9, 3.9]
        found = compared(losses, first)
        assert found["loss"] == mean_over_seeds(losses)._asdict()
        assert found["against_first"] == paired_seed_difference(losses, first)._asdict()
        # every seed is better by the same, so the difference is far surer than the losses
        width = found["against_first"]["high"] - found["against_first"]["low"]
        assert width < 0.01 < found["loss"]["high"] - found["loss"]["low"]

    def test_names_of_stages(self) -> None:
        assert variant_checkpoint("a", 3) == "ablation/a/seed-3"
        assert variant_bundle("a", 3) == "ablation/a/bundle-3"
        assert variant_pace("a") == "ablation/a/pace"


class TestPace:
    def make(self, run: Path, engine: PretendEngine, patch: pytest.MonkeyPatch) -> Any:
        patch.setattr(step_pace, "connect", lambda name, fleet: engine)
        patch.setattr(step_pace, "POLL_SECONDS", 0.0)
        stage = pace_stage("dense", recipe_with(run, "seconds = 10"), VOCAB)
        return stage.make(Work(run, "asked", Events(None), None, None))  # type: ignore[arg-type]

    def test_what_the_job_prints_last_is_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        statuses = [JobStatus("running"), JobStatus("done", 0)]
        engine = PretendEngine(statuses, log='a warning\n{"step_seconds": 0.25}\n')
        manifest = self.make(tmp_path, engine, monkeypatch)
        assert manifest.facts == {"step_seconds": 0.25}
        assert read_pace(tmp_path / variant_pace("dense")) == 0.25
        (job,) = engine.submitted
        question = json.loads(job.command[-1])
        assert question["shape"]["vocab_size"] == VOCAB
        assert question["steps"] == question["train"]["steps"] == step_pace.STEPS
        assert engine.cancelled, "nothing of the job is left"

    @pytest.mark.parametrize(("log", "why"), [("Killed\n", "Killed"), ("", "out of memory")])
    def test_a_measurement_that_failed_says_why(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, why: str
    ) -> None:
        engine = PretendEngine([JobStatus("failed", 137, "out of memory")], log=log)
        with pytest.raises(TrainError, match=f"ablation/dense/pace: {why} .log: "):
            self.make(tmp_path, engine, monkeypatch)
        assert not (tmp_path / variant_pace("dense")).exists()

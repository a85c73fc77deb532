"""What is asked: recipes become jobs, layouts become scenarios, and each refusal names the nearest legal value."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from tests.plan.networks import dense, mixture, workload

from tumen.core.errors import PlanError
from tumen.plan import Layout, Workload, workload_of
from tumen.plan.facts import cards, fleet_of, one_kind, software
from tumen.plan.layout import (
    accelerator_fields,
    base_scenario,
    divisors,
    nearest,
    recompute_fields,
    scenario_of,
)
from tumen.plan.model.scenario import Scenario, network, stack
from tumen.plan.workload import sequences
from tumen.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


def recipe(*changes: str):
    """DeepSeek-V2's recipe with changes."""
    return load_recipe(RECIPES / "v2.toml", list(changes))


# ---------------------------------------------------------------------- a recipe's job


def test_the_plan_section_says_the_work() -> None:
    found = workload_of(
        recipe("plan.seq_len=8192", "plan.batch_tokens=4194304", "plan.tokens=1e12")
    )
    assert (found.seq_len, found.batch_size, found.tokens) == (8192, 512, 1e12)
    assert found.name.endswith("/cloud")


def test_the_training_section_says_it_otherwise() -> None:
    plain = recipe("plan={}")
    train = plain.family["cloud"].train
    found = workload_of(plain)
    assert found.seq_len == train.seq_len
    assert found.batch_size == train.batch_size
    assert found.tokens == train.steps * train.batch_size * train.seq_len


def test_a_network_without_vocabulary_takes_the_tokenizers() -> None:
    pocket = load_recipe(RECIPES / "pocket.toml")
    found = workload_of(pocket)
    tier = next(iter(pocket.family.values()))
    assert tier.shape.vocab_size == 0
    assert found.shape.vocab_size == pocket.tokenizer.vocab_size


def test_a_tier_is_named_or_the_first() -> None:
    family = load_recipe(RECIPES / "family-7-70-180.toml", ["plan.tier='turbo'"])
    assert workload_of(family).name.endswith("/turbo")
    assert workload_of(family, "titan").name.endswith("/titan")
    without = load_recipe(RECIPES / "family-7-70-180.toml", ["plan={}"])
    assert workload_of(without).name.endswith("/" + next(iter(without.family)))
    with pytest.raises(PlanError, match="no tier 'phone'; it has"):
        workload_of(family, "phone")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (("plan.precision='fp8'",), "fp8"),
        (("plan={}", "family.cloud.train.precision='fp32'"), "fp32"),
        (("plan={}", "family.cloud.train.precision='bf16'"), "bf16"),
    ],
)
def test_precision_of_the_matmuls(changes: tuple[str, ...], expected: str) -> None:
    assert workload_of(recipe(*changes)).precision == expected


def test_less_than_a_step_is_refused() -> None:
    with pytest.raises(PlanError, match="less than one step; the least is"):
        workload_of(recipe("plan.tokens=1"))
    step = workload_of(recipe()).step_tokens
    assert workload_of(recipe(f"plan.tokens={step}")).tokens == step


@pytest.mark.parametrize(
    ("batch", "seq", "expected"),
    [
        (4096 * 7, 4096, 7),  # a number is exact
        (1_000_000, 4096, 244),
        ("4M", 4096, 960),  # 976.6, rounded to four significant bits: 15 x 64
        ("60k", 4096, 15),  # below sixteen sequences there is nothing to round
        ("66k", 4096, 16),
        ("70k", 4096, 16),  # 17.1: half-way steps of two, to the even one
        ("80k", 4096, 20),
        ("140k", 4096, 32),
        ("16M", 8192, 1920),
    ],
)
def test_sequences_of_a_step(batch: int | str, seq: int, expected: int) -> None:
    """A text such as 4M is a size, not a count: it is rounded so that meshes divide it."""
    found = sequences(batch, seq)
    assert found == expected
    if isinstance(batch, str) and found >= 16:
        assert len(f"{found:b}".rstrip("0")) <= 4


def test_a_step_has_a_sequence() -> None:
    with pytest.raises(PlanError, match="less than one sequence; the least is 4096"):
        sequences(100, 4096)


# ---------------------------------------------------------------------- scenarios


def test_a_case_holds_what_the_layout_says() -> None:
    layout = Layout(
        tp=2, pp=3, vpp=2, dp=4, ep=1, cp=1, micro_batch=2, schedule="interleaved",
        sequence_parallel=True, recompute="norm,act",
    )  # fmt: skip
    scenario = scenario_of(workload(dense(12), batch_size=48), layout, cards()["h100"])
    assert (scenario.tp, scenario.pp, scenario.vpp, scenario.dp, scenario.micro_batch_size) == (
        2,
        3,
        2,
        4,
        2,
    )
    assert scenario.world_size == layout.world_size == 24
    assert (scenario.zero, scenario.shard, scenario.sequence_parallel, scenario.schedule) == (
        1,
        4,
        1,
        1,
    )
    assert (scenario.redo_matmul, scenario.redo_rest, scenario.dropped) == (0.0, 0.5, 0.33)
    assert scenario.tokens == 2 * 2048
    assert scenario.micro_batches == 6
    assert scenario.stage_layers == 4


def test_sharding_is_over_data_and_context_ranks() -> None:
    shape, card = dense(12), cards()["h100"]
    assert scenario_of(workload(shape), Layout(dp=4, cp=2), card).shard == 8
    assert scenario_of(workload(shape), Layout(dp=4, zero=0), card).shard == 1


def test_a_base_case_is_the_layout_of_data_parallelism_alone() -> None:
    """A search fills a table from it: nothing but the layout's own fields may differ."""
    asked, card = workload(dense(12)), cards()["h100"]
    base, single = base_scenario(asked, card, 8), scenario_of(asked, Layout(dp=8), card)
    assert all(getattr(base, f.name) == getattr(single, f.name) for f in fields(Scenario))


def test_short_batches_are_rounded_up_to_whole_micro_batches() -> None:
    scenario = scenario_of(workload(batch_size=10), Layout(dp=4), cards()["h100"])
    assert scenario.micro_batches == 3


def test_rows_of_a_table() -> None:
    scenarios = stack([scenario_of(workload(), Layout(dp=n), cards()["a100"]) for n in (1, 2, 3)])
    taken = scenarios.take(np.array([2, 0]))
    assert list(taken.dp) == [3.0, 1.0]
    scalar = scenarios.changed(tp=5.0).take(np.array([1]))
    assert scalar.tp == 5.0


def test_the_networks_fields_of_a_case() -> None:
    found = network(mixture(9))
    assert found["down_columns"] == 64 + 16 + 96
    assert found["up_rows"] == 96
    assert found["up_columns"] == 4 * 48
    assert found["kv_up_rows"] == 64
    assert found["kv_up_columns"] == 4 * (32 + 32)
    assert found["kv_elements"] == 4 * (48 + 32)
    assert (
        found["n_routed_experts"],
        found["num_experts_per_tok"],
        found["moe_intermediate_size"],
    ) == (8, 2, 128)
    assert (found["shared_intermediate_size"], found["moe_layers"], found["matrices"]) == (
        128,
        8,
        3,
    )
    grouped = network(dense())
    assert grouped["up_columns"] == (8 + 2 * 2) * 64
    assert grouped["kv_elements"] == 2 * 2 * 64
    assert grouped["kv_up_rows"] == grouped["kv_up_columns"] == grouped["down_columns"] == 0
    assert (
        grouped["n_routed_experts"]
        == grouped["shared_intermediate_size"]
        == grouped["moe_layers"]
        == 0
    )


@pytest.mark.parametrize(
    ("precision", "code", "peak"),
    [
        ("bf16", 0, "bf16"),
        ("fp8", 1, "fp8"),
        ("fp4", 2, "fp4"),
        ("fp8-row", 3, "fp8"),
        ("fp32", 0, "bf16"),
    ],
)
def test_the_cards_fields_of_a_case(precision: str, code: int, peak: str) -> None:
    card = cards()["b200"]
    found = accelerator_fields(card, precision)
    assert found["matmul_format"] == code
    assert found["matmul_flops"] == getattr(card, f"{peak}_flops")
    assert found["bf16_flops"] == card.bf16_flops
    assert found["generation"] == 2


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (Layout(tp=5, dp=2), "tp 5 does not divide 96 heads; the nearest that does is 4"),
        (Layout(tp=40), "the nearest that does is 32"),
        (Layout(pp=97), "pp 97 is more than 96 layers; the most is 96"),
        (Layout(ep=2, dp=2), "no experts; ep is 1"),
        (Layout(cp=3), "cp 3 does not divide 2048 tokens; the nearest is 2"),
        (Layout(dp=4096), "smaller than the mesh.*use 4096"),
        (Layout(dp=1024, micro_batch=2), "micro-batch 2 x dp 1024; use 2048"),
        (Layout(tp=0), "tp 0 is below 1; the least is 1"),
        (Layout(micro_batch=0), "micro_batch 0 is below 1"),
        (Layout(pp=48, vpp=4), "vpp can be 2"),
        (Layout(pp=96, vpp=2), "vpp can be 1"),
        (Layout(recompute="sometimes"), "recompute 'sometimes' is unknown; known: none"),
    ],
)
def test_illegal_layouts_name_the_nearest_legal_value(
    gpt3_workload: Workload, layout: Layout, says: str
) -> None:
    with pytest.raises(PlanError, match=says):
        scenario_of(gpt3_workload, layout, cards()["a100"])


@pytest.mark.parametrize("name", ["tp", "pp", "vpp", "dp", "ep", "cp", "micro_batch"])
def test_every_size_is_at_least_one(name: str) -> None:
    with pytest.raises(PlanError, match=f"{name} -1 is below 1"):
        scenario_of(workload(), replace(Layout(), **{name: -1}), cards()["a100"])


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (
            Layout(dp=4, ep=3),
            "ep 3 does not divide 8 experts and the ranks of a stage; nearest is 2",
        ),
        (Layout(dp=2, ep=8), "nearest is 2"),
        (Layout(tp=2, dp=3, ep=4), "nearest is 2"),
    ],
)
def test_experts_divide_both_their_number_and_the_ranks(layout: Layout, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        scenario_of(workload(mixture(9)), layout, cards()["a100"])


@pytest.mark.parametrize(
    "layout",
    [
        Layout(tp=96),
        Layout(pp=96),
        Layout(pp=48, vpp=2),
        Layout(cp=2048),
        Layout(dp=1536),
        Layout(dp=768, micro_batch=2),
    ],
    ids=str,
)
def test_the_largest_legal_values_are_legal(gpt3_workload: Workload, layout: Layout) -> None:
    scenario_of(gpt3_workload, layout, cards()["a100"])


def test_expert_groups_may_span_tensor_and_context_ranks() -> None:
    for layout in (Layout(tp=2, dp=2, ep=4), Layout(cp=2, dp=2, ep=4), Layout(dp=8, ep=8)):
        scenario_of(workload(mixture(9)), layout, cards()["a100"])


# ---------------------------------------------------------------------- small tools


@pytest.mark.parametrize(
    ("wanted", "found"), [(1, 1), (3, 2), (5, 4), (6, 4), (7, 8), (100, 12), (0, 1)]
)
def test_the_nearest_legal_value_is_the_smaller_of_two(wanted: int, found: int) -> None:
    assert nearest([1, 2, 4, 8, 12], wanted) == found


def test_divisors_are_all_of_them() -> None:
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    assert divisors(1) == [1]
    assert divisors(13) == [1, 13]


def test_recompute_policies() -> None:
    """Full recompute keeps and repeats everything; selective repeats the attention core alone."""
    assert recompute_fields("full") == {
        "recompute": 2, "redo_matmul": 1.0, "redo_rest": 1.0, "dropped": 1.0
    }  # fmt: skip
    assert recompute_fields("none") == {
        "recompute": 0, "redo_matmul": 0.0, "redo_rest": 0.0, "dropped": 0.0
    }  # fmt: skip
    assert recompute_fields("selective")["recompute"] == 1
    with pytest.raises(PlanError, match="unknown"):
        recompute_fields("often")


def test_one_group_of_a_fleet() -> None:
    assert one_kind(fleet_of("h800:8,h800:16")).count == 24
    with pytest.raises(PlanError, match="--compare h800:8, ?a100:8"):
        one_kind(fleet_of("h800:8,a100:8"))


def test_a_job_has_todays_software_by_default() -> None:
    assert Workload(dense(), 2048, 8, 1e9).software == software()

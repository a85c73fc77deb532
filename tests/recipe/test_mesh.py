"""The mesh: what divides, what a plan becomes, and one line for what does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tumen.core.errors import PlanError
from tumen.core.shape import Shape
from tumen.recipe import Mesh, read_plan

GQA = {"kind": "gqa", "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8}
MLA = {"kind": "mla", "num_attention_heads": 4, "kv_lora_rank": 8}
EXPERTS = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
V_SHAPED = {"pp": 2, "virtual_stages": 2, "schedule": "dualpipe", "micro_batch_size": 1}
PLAN: dict[str, Any] = {
    "batch_sequences": 8,
    "sequence_tokens": 16,
    "choices": [
        {
            "layout": {
                "dp": 2,
                "ep": 1,
                "cp": 1,
                "tp": 2,
                "zero": 1,
                "pp": 2,
                "vpp": 3,
                "schedule": "interleaved",
                "micro_batch": 1,
                "recompute": "selective",
            }
        }
    ],
}


def shape(**changes: Any) -> Shape:
    """Return a small network of 4 layers with a head of its own."""
    fields = {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "intermediate_size": 48,
        "attention": GQA,
        "tie_word_embeddings": False,
    }
    return Shape.model_validate(fields | changes)


def fault(mesh: dict[str, Any], network: Shape, rows: int = 8, tokens: int = 16) -> str:
    """Return why a network cannot be split; "" if it can."""
    made = Mesh.model_validate(mesh)
    try:
        made.check_split(network, rows, tokens, made.ranks)
    except PlanError as error:
        return str(error)
    return ""


def test_ranks_and_stages() -> None:
    mesh = Mesh(dp=8, replicate=2, ep=2, cp=2, tp=2, pp=2, schedule="dualpipe", virtual_stages=2)
    assert mesh.ranks == 64
    assert mesh.shard == 2
    assert mesh.stages == 4
    assert mesh.rows_of(32) == 4
    assert mesh.model_copy(update={"micro_batch_size": 1}).rows_of(32) == 1


@pytest.mark.parametrize(
    ("mesh", "says"),
    [
        ({"dp": 4, "replicate": 3}, "replicate 3 x ep 1 must divide dp 4"),
        ({"dp": 4, "replicate": 2, "ep": 4}, "replicate 2 x ep 4 must divide dp 4"),
        ({"virtual_stages": 2}, "virtual_stages 2 needs a pipeline: pp is 1"),
        (V_SHAPED | {"virtual_stages": 3}, "schedule dualpipe has 2 stages a rank"),
        ({"pp": 2, "virtual_stages": 2}, "1f1b has one stage a rank"),
        ({"pp": 2, "schedule": "zero-bubble"}, "1f1b has one stage a rank, the others more"),
    ],
)
def test_dimensions_that_do_not_fit_together(mesh: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Mesh.model_validate(mesh)


@pytest.mark.parametrize(("ranks", "dp"), [(4, 1), (8, 2), (16, 4), (32, 8)])
def test_another_number_of_ranks_changes_dp_alone(ranks: int, dp: int) -> None:
    mesh = Mesh(dp=2, tp=2, cp=2)
    assert mesh.over(ranks, rows=8) == mesh.model_copy(update={"dp": dp})


@pytest.mark.parametrize("ranks", [0, -4, 2, 6, 12, 64])
def test_ranks_that_do_not_divide_name_those_that_do(ranks: int) -> None:
    with pytest.raises(PlanError, match=r"it can have 4, 8, 16, 32$"):
        Mesh(dp=2, tp=2, cp=2).over(ranks, rows=8)


def test_legal_ranks_respect_experts_and_micro_batches() -> None:
    mesh = Mesh(dp=4, ep=2, micro_batch_size=2)
    assert mesh.over(8, rows=16).dp == 8
    with pytest.raises(PlanError, match=r"it can have 2, 4, 8$"):
        mesh.over(3, rows=16)
    with pytest.raises(PlanError, match=r"it can have 2, 4, 8$"):
        mesh.over(16, rows=16)


SPLITS = [
    ({"tp": 4}, shape(), ""),
    ({"tp": 8}, shape(), "tp 8 must divide 4 heads of keys"),
    ({"tp": 3}, shape(attention=MLA), "tp 3 must divide 4 heads"),
    ({"tp": 4}, shape(intermediate_size=50), "tp 4 must divide intermediate_size and moe"),
    ({"tp": 4}, shape(attention=MLA, experts=EXPERTS | {"moe_intermediate_size": 6}), "tp 4 must"),
    ({"dp": 2, "ep": 2}, shape(), "ep 2: the network has no experts; ep is 1"),
    ({"dp": 2, "ep": 2}, shape(attention=MLA, experts=EXPERTS), ""),
    ({"dp": 3, "ep": 3}, shape(attention=MLA, experts=EXPERTS), "ep 3 must divide 8 experts"),
    ({"cp": 8}, shape(), ""),
    ({"cp": 3}, shape(), "cp 3: rows of 16 tokens must divide by 2 cp"),
    ({"pp": 8, "micro_batch_size": 1}, shape(), "pp 8 x virtual_stages 1 is more than 4 layers"),
    ({"dp": 3}, shape(), "dp 3 x micro_batch_size 2 must divide 8 rows"),
    ({"dp": 16}, shape(), "dp 16 x micro_batch_size 0 must divide 8 rows"),
    ({"pp": 2, "micro_batch_size": 1}, shape(), ""),
    ({"pp": 2, "micro_batch_size": 1}, shape(tie_word_embeddings=True), "pp needs a head of its"),
    ({"pp": 2, "micro_batch_size": 1}, shape(num_nextn_predict_layers=1), "pp with shape.num_ne"),
    ({"cp": 2}, shape(num_nextn_predict_layers=1), "cp with shape.num_nextn_predict_layers"),
    ({"pp": 2}, shape(), "1f1b over pp 2 needs 2 micro-batches a step, there are 1"),
    (V_SHAPED, shape(), ""),
    (V_SHAPED | {"micro_batch_size": 4}, shape(), "dualpipe over pp 2 needs 4 micro-batches a"),
    (V_SHAPED | {"schedule": "interleaved", "micro_batch_size": 2}, shape(), ""),
]


@pytest.mark.parametrize(("mesh", "network", "says"), SPLITS)
def test_a_split_is_legal_or_one_line(mesh: dict[str, Any], network: Shape, says: str) -> None:
    found = fault(mesh, network)
    assert says in found
    assert bool(says) == bool(found)
    assert "\n" not in found


def test_virtual_stages_need_whole_rounds_of_micro_batches() -> None:
    mesh = V_SHAPED | {"schedule": "interleaved", "micro_batch_size": 3}
    assert "3 micro-batches must be a multiple of pp 2" in fault(mesh, shape(), rows=9)


def test_the_number_of_started_ranks_is_checked_first() -> None:
    with pytest.raises(PlanError, match="the mesh needs 4 ranks, 3 were started; start 4"):
        Mesh(dp=4).check_split(shape(), 1, 16, 3)


def changed_plan(**layout: Any) -> dict[str, Any]:
    """Return the plan with another layout."""
    return PLAN | {"choices": [{"layout": PLAN["choices"][0]["layout"] | layout}]}


def test_a_plan_becomes_a_mesh() -> None:
    assert Mesh.of_plan(PLAN, "plan.json", 8, 16) == Mesh(
        dp=2,
        tp=2,
        zero=1,
        pp=2,
        virtual_stages=3,
        schedule="interleaved",
        micro_batch_size=1,
        recompute="selective",
    )


@pytest.mark.parametrize(
    ("layout", "schedule", "stages"),
    [
        ({"pp": 1, "schedule": "dualpipe"}, "1f1b", 1),
        ({"schedule": "1f1b"}, "1f1b", 1),
        ({"schedule": "dualpipe"}, "dualpipe", 2),
        ({"schedule": "zero-bubble", "vpp": 1}, "zero-bubble", 2),
    ],
)
def test_each_schedule_has_its_stages(layout: dict[str, Any], schedule: str, stages: int) -> None:
    mesh = Mesh.of_plan(changed_plan(**layout), "plan.json", 8, 16)
    assert (mesh.schedule, mesh.virtual_stages) == (schedule, stages)


def test_finer_kinds_of_recomputation_are_full() -> None:
    assert Mesh.of_plan(changed_plan(recompute="layers"), "plan.json", 8, 16).recompute == "full"
    assert Mesh.of_plan(changed_plan(recompute="none"), "plan.json", 8, 16).recompute == "none"


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({}, "plan.json: no plan; `tumen plan RECIPE --out plan.json` writes one"),
        (PLAN | {"choices": []}, "plan.json: no plan"),
        (PLAN | {"batch_sequences": "many"}, "plan.json: no plan"),
        (PLAN | {"batch_sequences": 9}, "planned for 9 sequences of 16 tokens a step"),
        (PLAN | {"sequence_tokens": 32}, "the tier trains on 8 of 16; set train.batch_size"),
        (changed_plan(ep=3), "this layout is not built .replicate 1 x ep 3 must divide dp 2."),
    ],
)
def test_a_plan_that_is_none_or_for_something_else(plan: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        Mesh.of_plan(plan, "plan.json", 8, 16)


def test_plans_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with pytest.raises(PlanError, match=r"no plan \(.*No such file"):
        read_plan(path)
    path.write_text("{")
    with pytest.raises(PlanError, match=r"no plan \(.*`tumen plan RECIPE --out "):
        read_plan(path)
    path.write_text("[1]")
    assert read_plan(path) == {}
    path.write_text(json.dumps(PLAN))
    assert Mesh.of_plan(read_plan(path), str(path), 8, 16).ranks == 8

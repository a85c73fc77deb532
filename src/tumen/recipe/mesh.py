"""The mesh: how one training step is split over ranks. A recipe writes it, or a plan.json says it; training reads it.

    ranks = pp x dp x cp x tp, and ep of the dp ranks share the experts of one copy

What is split never changes what is learnt: a step sees the same rows on every mesh.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from tumen.core.errors import PlanError
from tumen.core.shape import Frozen, Mla, Positive, Shape

Schedule = Literal["1f1b", "interleaved", "zero-bubble", "dualpipe"]


class Mesh(Frozen):
    """Ranks by dimension. Everything 1: one process."""

    dp: Positive = Field(1, description="ranks that see different rows")
    replicate: Positive = Field(
        1, description="of the dp ranks: copies of the weights (HSDP); 1: one copy over all (FSDP)"
    )
    ep: Positive = Field(1, description="of the dp ranks: how many share the experts")
    cp: Positive = Field(1, description="ranks that share the tokens of a row")
    tp: Positive = Field(1, description="ranks that share the heads and the inner features")
    pp: Positive = Field(1, description="pipeline ranks that share the layers")
    virtual_stages: Positive = Field(
        1, description="stages of one pipeline rank (interleaved; zero-bubble and dualpipe: 2)"
    )
    schedule: Schedule = "1f1b"
    zero: Literal[0, 1, 2, 3] = Field(
        3, description="3: weights are gathered for each use; below: once a step"
    )
    micro_batch_size: int = Field(
        0,
        ge=0,
        description="rows of one micro-batch on one rank; 0: all of the rank's rows at once",
    )
    recompute: Literal["none", "selective", "full"] = "none"

    @property
    def ranks(self) -> int:
        """Processes the mesh needs."""
        return self.pp * self.dp * self.cp * self.tp

    @property
    def shard(self) -> int:
        """Of the dp ranks: those that neither copy the weights nor share experts."""
        return self.dp // (self.replicate * self.ep)

    @property
    def stages(self) -> int:
        """Pipeline stages."""
        return self.pp * self.virtual_stages

    @model_validator(mode="after")
    def _divides(self) -> Mesh:
        if self.dp % (self.replicate * self.ep):
            raise ValueError(f"replicate {self.replicate} x ep {self.ep} must divide dp {self.dp}")
        if self.pp == 1 and self.virtual_stages > 1:
            raise ValueError(f"virtual_stages {self.virtual_stages} needs a pipeline: pp is 1")
        if self.pp > 1 and self.schedule == "dualpipe" and self.virtual_stages != 2:
            raise ValueError(
                f"schedule dualpipe has 2 stages a rank (a V), virtual_stages is {self.virtual_stages}"
            )
        if self.pp > 1 and (self.schedule == "1f1b") != (self.virtual_stages == 1):
            raise ValueError(
                f"schedule {self.schedule} and virtual_stages {self.virtual_stages}: 1f1b has one stage a rank, the others more"
            )
        return self

    def over(self, ranks: int, rows: int) -> Mesh:
        """The same mesh over another number of ranks: more or fewer of them see different rows of a step of `rows`.

        Raises:
            PlanError: they do not divide; says what does.
        """
        each, together = self.pp * self.cp * self.tp, self.replicate * self.ep
        dp = ranks // each
        wrong = (
            ranks < 1 or ranks % each or dp % together or rows % (dp * (self.micro_batch_size or 1))
        )
        if wrong:
            steps = range(together, rows // (self.micro_batch_size or 1) + 1, together)
            legal = [
                str(each * one) for one in steps if rows % (one * (self.micro_batch_size or 1)) == 0
            ]
            raise PlanError(
                f"{ranks} ranks do not share {rows} rows a step on this mesh; it can have {', '.join(legal[:12])}"
            )
        return self.model_copy(update={"dp": dp})

    def rows_of(self, rows: int) -> int:
        """Rows of one micro-batch, when a step has `rows` in all."""
        return self.micro_batch_size or rows // self.dp


def mesh_of_plan(plan: Mapping[str, Any], where: str, rows: int, row_tokens: int) -> Mesh:
    """The mesh of a plan.json's first choice, for a step of `rows` x `row_tokens`.

    Raises:
        PlanError: no plan of `tumen plan --out`, or one that was made for another batch.
    """
    try:
        layout, batch, sequence = (
            plan["choices"][0]["layout"],
            int(plan["batch_sequences"]),
            int(plan["sequence_tokens"]),
        )
    except (KeyError, IndexError, TypeError, ValueError):
        raise PlanError(f"{where}: no plan; `tumen plan RECIPE --out {where}` writes one") from None
    if (batch, sequence) != (rows, row_tokens):
        raise PlanError(
            f"{where}: planned for {batch} sequences of {sequence} tokens a step, the tier trains on {rows} of {row_tokens}; "
            "set train.batch_size and train.seq_len, or plan again"
        )
    schedule, pp = layout["schedule"], int(layout["pp"])
    chunks = (
        1
        if pp == 1 or schedule == "1f1b"
        else 2
        if schedule == "dualpipe"
        else max(2, int(layout["vpp"]))
    )
    asked = {name: layout[name] for name in ("dp", "ep", "cp", "tp", "zero")}
    asked |= {
        "pp": pp,
        "virtual_stages": chunks,
        "schedule": schedule if pp > 1 else "1f1b",
        "micro_batch_size": layout["micro_batch"],
    }
    asked["recompute"] = (
        layout["recompute"] if layout["recompute"] in ("none", "selective") else "full"
    )
    try:
        return Mesh.model_validate(asked)
    except ValidationError as error:
        why = "; ".join(detail["msg"].removeprefix("Value error, ") for detail in error.errors())
        raise PlanError(
            f"{where}: this layout is not built ({why}); plan with [plan] pin or schedules"
        ) from None


def read_plan(path: Path) -> dict[str, Any]:
    """What a plan.json holds.

    Raises:
        PlanError: missing, or no JSON object.
    """
    try:
        plan = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(
            f"{path}: no plan ({str(error).splitlines()[0]}); `tumen plan RECIPE --out {path}` writes one"
        ) from None
    return plan if isinstance(plan, dict) else {}


def refuse_mesh(mesh: Mesh, shape: Shape, rows: int, row_tokens: int, world: int) -> None:
    """Refuse what cannot be split, before anything is built.

    Raises:
        PlanError: the field, why, and what would be legal.
    """
    if world != mesh.ranks:
        raise PlanError(
            f"the mesh needs {mesh.ranks} ranks, {world} were started; start {mesh.ranks}, or plan for {world}"
        )
    attention, experts = shape.attention, shape.experts
    heads = (
        attention.num_attention_heads
        if isinstance(attention, Mla)
        else attention.num_key_value_heads
    )
    inner = experts.moe_intermediate_size if experts else shape.intermediate_size
    each = mesh.rows_of(rows)
    faults = [
        (
            heads % mesh.tp,
            f"tp {mesh.tp} must divide {heads} heads"
            + ("" if isinstance(attention, Mla) else " of keys"),
        ),
        (
            shape.intermediate_size % mesh.tp or inner % mesh.tp,
            f"tp {mesh.tp} must divide intermediate_size and moe_intermediate_size",
        ),
        (mesh.ep > 1 and not experts, f"ep {mesh.ep}: the network has no experts; ep is 1"),
        (
            experts and experts.n_routed_experts % mesh.ep,
            f"ep {mesh.ep} must divide {experts.n_routed_experts if experts else 0} experts",
        ),
        (
            row_tokens % (2 * mesh.cp) if mesh.cp > 1 else 0,
            f"cp {mesh.cp}: rows of {row_tokens} tokens must divide by 2 cp",
        ),
        (
            mesh.stages > shape.num_hidden_layers,
            f"pp {mesh.pp} x virtual_stages {mesh.virtual_stages} is more than {shape.num_hidden_layers} layers",
        ),
        (
            rows % (mesh.dp * each) if each else 1,
            f"dp {mesh.dp} x micro_batch_size {each} must divide {rows} rows",
        ),
        (
            mesh.pp > 1 and shape.tie_word_embeddings,
            "pp needs a head of its own: tied weights would live on two stages; set shape.tie_word_embeddings = false",
        ),
        (
            mesh.pp > 1 and shape.num_nextn_predict_layers,
            "pp with shape.num_nextn_predict_layers is not built: leave one of them out",
        ),
        (
            mesh.cp > 1 and shape.num_nextn_predict_layers,
            "cp with shape.num_nextn_predict_layers is not built: leave one of them out",
        ),
    ]
    micro = rows // (mesh.dp * each) if each else 0
    if mesh.pp > 1:
        least = mesh.stages if mesh.schedule == "dualpipe" else mesh.pp
        faults.append(
            (
                micro < least,
                f"{mesh.schedule} over pp {mesh.pp} needs {least} micro-batches a step, there are {micro}",
            )
        )
        faults.append(
            (
                mesh.virtual_stages > 1 and micro % mesh.pp,
                f"{micro} micro-batches must be a multiple of pp {mesh.pp}",
            )
        )
    for wrong, why in faults:
        if wrong:
            raise PlanError(f"mesh: {why}")

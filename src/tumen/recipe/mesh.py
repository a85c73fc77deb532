"""The mesh: how one training step is split over ranks. A recipe or a plan.json sets it.

    ranks = pp x dp x cp x tp, and ep of the dp ranks share the experts of one copy

The mesh does not change what is learned: a step sees the same rows on every mesh.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from tumen.core.errors import PlanError
from tumen.core.shape import Frozen, Mla, Positive, Shape

Schedule = Literal["1f1b", "interleaved", "zero-bubble", "dualpipe"]


class Mesh(Frozen):
    """Ranks by dimension. Everything 1: one process."""

    # Data, expert, context, tensor and pipeline parallel.
    dp: Positive = Field(1, description="ranks that see different rows")
    replicate: Positive = Field(
        1, description="of the dp ranks: copies of the weights (HSDP); 1: one copy over all (FSDP)"
    )
    ep: Positive = Field(1, description="of the dp ranks: how many share the experts")
    cp: Positive = Field(1, description="ranks that share the tokens of a row")
    tp: Positive = Field(1, description="ranks that share the heads and the inner features")
    pp: Positive = Field(1, description="pipeline ranks that share the layers")
    # Of the pipeline and the optimizer.
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
        fault = next(self._faults(), None)
        if fault:
            raise ValueError(fault)
        return self

    def _faults(self) -> Iterator[str]:
        """Dimensions that do not fit together, most basic first."""
        if self.dp % (self.replicate * self.ep):
            yield f"replicate {self.replicate} x ep {self.ep} must divide dp {self.dp}"
        if self.pp == 1:
            if self.virtual_stages > 1:
                yield f"virtual_stages {self.virtual_stages} needs a pipeline: pp is 1"
            return
        if self.schedule == "dualpipe" and self.virtual_stages != 2:
            yield (
                "schedule dualpipe has 2 stages a rank (a V), "
                f"virtual_stages is {self.virtual_stages}"
            )
        # Only 1f1b runs one stage a rank.
        if (self.schedule == "1f1b") != (self.virtual_stages == 1):
            yield (
                f"schedule {self.schedule} and virtual_stages {self.virtual_stages}: "
                "1f1b has one stage a rank, the others more"
            )

    def over(self, ranks: int, rows: int) -> Mesh:
        """Return this mesh with as many data-parallel ranks as `ranks` in all allow.

        Args:
            ranks: processes there are.
            rows: sequences of a training step, over all ranks.

        Raises:
            PlanError: `ranks` or `rows` does not divide; lists rank counts that do.
        """
        ranks_per_dp = self.pp * self.cp * self.tp
        dp = ranks // ranks_per_dp
        # Pipeline, context and tensor ranks come in whole groups.
        whole = ranks >= 1 and ranks % ranks_per_dp == 0
        if whole and self._shares(dp, rows):
            return self.model_copy(update={"dp": dp})
        group = self.replicate * self.ep  # dp is a multiple of it
        most = rows // (self.micro_batch_size or 1)
        legal = [
            str(ranks_per_dp * dp) for dp in range(group, most + 1, group) if self._shares(dp, rows)
        ]
        raise PlanError(
            f"{ranks} ranks do not share {rows} rows a step on this mesh; "
            f"it can have {', '.join(legal[:12])}"
        )

    def _shares(self, dp: int, rows: int) -> bool:
        """Whether `dp` ranks can share `rows` rows evenly, in whole micro-batches."""
        if dp % (self.replicate * self.ep):
            return False
        return rows % (dp * (self.micro_batch_size or 1)) == 0

    def rows_of(self, rows: int) -> int:
        """Rows of one micro-batch, when a step has `rows` in all."""
        return self.micro_batch_size or rows // self.dp

    @staticmethod
    def of_plan(plan: Mapping[str, Any], where: str, rows: int, row_tokens: int) -> Mesh:
        """Return the mesh of a plan.json's first choice, for a step of `rows` x `row_tokens`.

        Args:
            plan: what `read_plan` returned.
            where: path of the plan, for errors.
            rows: sequences of a step, over all ranks.
            row_tokens: tokens of a sequence.

        Raises:
            PlanError: not a plan of `tumen plan --out`, or one that was made for another batch.
        """
        return _mesh_of_plan(plan, where, rows, row_tokens)

    def check_split(self, shape: Shape, rows: int, row_tokens: int, world: int) -> None:
        """Check that a network and a batch can be split like this, before anything is built.

        Args:
            shape: the network.
            rows: sequences of a step, over all ranks.
            row_tokens: tokens of a sequence.
            world: ranks that were started.

        Raises:
            PlanError: the field, why, and what would be legal.
        """
        if world != self.ranks:
            raise PlanError(
                f"the mesh needs {self.ranks} ranks, {world} were started; "
                f"start {self.ranks}, or plan for {world}"
            )
        faults = [
            *_width_faults(self, shape),
            *_batch_faults(self, shape, rows, row_tokens),
            *_pipeline_faults(self, shape, rows),
        ]
        if faults:
            raise PlanError(f"mesh: {faults[0]}")


def read_plan(path: Path) -> dict[str, Any]:
    """Read a plan.json.

    Raises:
        PlanError: missing, or not JSON.
    """
    try:
        plan = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(
            f"{path}: no plan ({str(error).splitlines()[0]}); "
            f"`tumen plan RECIPE --out {path}` writes one"
        ) from None
    # JSON that is not an object has no choices; of_plan says so.
    return plan if isinstance(plan, dict) else {}


def _mesh_of_plan(plan: Mapping[str, Any], where: str, rows: int, row_tokens: int) -> Mesh:
    try:
        layout = plan["choices"][0]["layout"]
        batch = int(plan["batch_sequences"])
        sequence = int(plan["sequence_tokens"])
    except (KeyError, IndexError, TypeError, ValueError):
        raise PlanError(f"{where}: no plan; `tumen plan RECIPE --out {where}` writes one") from None
    # A layout is legal and fast for one batch only.
    if (batch, sequence) != (rows, row_tokens):
        raise PlanError(
            f"{where}: planned for {batch} sequences of {sequence} tokens a step, "
            f"the tier trains on {rows} of {row_tokens}; "
            "set train.batch_size and train.seq_len, or plan again"
        )
    try:
        return Mesh.model_validate(_fields_of_layout(layout))
    except ValidationError as error:
        why = "; ".join(detail["msg"].removeprefix("Value error, ") for detail in error.errors())
        raise PlanError(
            f"{where}: this layout is not built ({why}); plan with [plan] pin or schedules"
        ) from None


def _fields_of_layout(layout: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a mesh for a layout as the planner writes it."""
    # The planner's names, most of them the same.
    fields = {name: layout[name] for name in ("dp", "ep", "cp", "tp", "zero")}
    pp = int(layout["pp"])
    schedule = layout["schedule"] if pp > 1 else "1f1b"
    fields["pp"] = pp
    fields["schedule"] = schedule
    fields["virtual_stages"] = _virtual_stages(schedule, layout)
    fields["micro_batch_size"] = layout["micro_batch"]
    recompute = layout["recompute"]
    # The planner knows finer kinds of recomputation; training has these three.
    fields["recompute"] = recompute if recompute in ("none", "selective") else "full"
    return fields


def _virtual_stages(schedule: str, layout: Mapping[str, Any]) -> int:
    """Return the stages of a pipeline rank."""
    if schedule == "1f1b":
        return 1
    if schedule == "dualpipe":
        return 2
    return max(2, int(layout["vpp"]))


def _width_faults(mesh: Mesh, shape: Shape) -> Iterator[str]:
    """Faults of tp and ep: heads, inner features and experts that do not divide."""
    attention = shape.attention
    experts = shape.experts
    # Grouped queries share keys, so each tensor rank needs whole groups.
    if isinstance(attention, Mla):
        heads = attention.num_attention_heads
        kind = "heads"
    else:
        heads = attention.num_key_value_heads
        kind = "heads of keys"
    if heads % mesh.tp:
        yield f"tp {mesh.tp} must divide {heads} {kind}"
    # Routed experts are split like the dense feed-forward.
    inner = experts.moe_intermediate_size if experts else shape.intermediate_size
    if shape.intermediate_size % mesh.tp or inner % mesh.tp:
        yield f"tp {mesh.tp} must divide intermediate_size and moe_intermediate_size"
    if mesh.ep > 1 and not experts:
        yield f"ep {mesh.ep}: the network has no experts; ep is 1"
    if experts and experts.n_routed_experts % mesh.ep:
        yield f"ep {mesh.ep} must divide {experts.n_routed_experts} experts"


def _batch_faults(mesh: Mesh, shape: Shape, rows: int, row_tokens: int) -> Iterator[str]:
    """Faults of cp, pp and dp: tokens, layers and rows that do not divide."""
    # Each cp rank takes one block from the front and one from the back, for equal causal work.
    if mesh.cp > 1 and row_tokens % (2 * mesh.cp):
        yield f"cp {mesh.cp}: rows of {row_tokens} tokens must divide by 2 cp"
    if mesh.stages > shape.num_hidden_layers:
        yield (
            f"pp {mesh.pp} x virtual_stages {mesh.virtual_stages} "
            f"is more than {shape.num_hidden_layers} layers"
        )
    each = mesh.rows_of(rows)
    if each == 0 or rows % (mesh.dp * each):
        yield f"dp {mesh.dp} x micro_batch_size {each} must divide {rows} rows"


def _pipeline_faults(mesh: Mesh, shape: Shape, rows: int) -> Iterator[str]:
    """What a pipeline or a split context cannot do, and too few micro-batches."""
    if mesh.pp > 1 and shape.tie_word_embeddings:
        yield (
            "pp needs a head of its own: tied weights would live on two stages; "
            "set shape.tie_word_embeddings = false"
        )
    # Multi-token prediction needs an embedding and next tokens that other ranks hold.
    not_built = "with shape.num_nextn_predict_layers is not built: leave one of them out"
    if shape.num_nextn_predict_layers and mesh.pp > 1:
        yield f"pp {not_built}"
    if shape.num_nextn_predict_layers and mesh.cp > 1:
        yield f"cp {not_built}"
    yield from _micro_batch_faults(mesh, rows)


def _micro_batch_faults(mesh: Mesh, rows: int) -> Iterator[str]:
    """Too few micro-batches to keep a pipeline's schedule, or a rest of them."""
    each = mesh.rows_of(rows)
    if mesh.pp == 1 or each == 0:
        return
    micro = rows // (mesh.dp * each)  # of one dp rank and step
    # A V starts from both ends, so it needs twice as many micro-batches.
    least = mesh.stages if mesh.schedule == "dualpipe" else mesh.pp
    if micro < least:
        yield (
            f"{mesh.schedule} over pp {mesh.pp} needs {least} micro-batches a step, "
            f"there are {micro}"
        )
    if mesh.virtual_stages > 1 and micro % mesh.pp:
        yield f"{micro} micro-batches must be a multiple of pp {mesh.pp}"

"""Rows of published runs: units read right, gaps refused with a reason."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from tests.plan.rows import ROW, changed, write

from tumen.core.errors import InputError
from tumen.core.shape import Gqa, Mla
from tumen.plan.accuracy.published import (
    Published,
    Refused,
    chunks_of,
    least_recompute,
    published,
    read,
    scenarios_of,
)
from tumen.plan.accuracy.row_facts import (
    links_of,
    number,
    precision_of,
    shape_of,
    software_of,
    whole,
    zero_of,
)
from tumen.plan.facts import cards
from tumen.plan.model import memory


def taken(**fields: str) -> Published:
    """A row that is read."""
    found = published(changed(**fields))
    assert isinstance(found, Published), found
    return found


# ---------------------------------------------------------------------- network and links


@pytest.mark.parametrize(
    ("text", "gigabytes"),
    [
        ("NVLink3 + 8x200Gb/s HDR IB", 25.0),
        ("NVLink3 + 4x100Gb/s OmniPath per node", 6.25),
        ("NVLink3 + 1600Gb/s RoCE", 25.0),
        ("NVLink4 + 800Gb/s per node", 12.5),
        ("NVL72 NVLink5 + 800Gb/s per GPU", 100.0),
        ("NVLink4 + 8x50GB/s IB", 50.0),
        ("NVLink 400GB/s(bidir) + 8x400Gb/s IB", 50.0),
        ("NVLink 400GB/s(bidir)", 25.0),
        ("NVLink3 + IB (not printed)", 25.0),
        ("NVLink3 + 12.5GB/s", 1.5625),
        ("", 25.0),
    ],
)
def test_network_rate_is_per_card(text: str, gigabytes: float) -> None:
    """The usual trap: a figure of a node read as one of a card."""
    found = links_of(changed(interconnect=text), cards()["a100"])
    assert found.nic_rate == pytest.approx(gigabytes * 1e9)


def test_wide_domains_come_from_the_row() -> None:
    wide = changed(interconnect="NVL72 NVLink5 + 400Gb/s per GPU", gpus_per_node="4")
    found = links_of(wide, cards()["gb200"])
    assert (found.domain, found.node) == (72, 4)
    assert links_of(wide, cards()["a100"]).domain == 72


def test_a_node_is_the_domain_of_cards_without_a_wider_one() -> None:
    narrow = changed(gpus_per_node="4")
    assert links_of(narrow, cards()["a100"]).domain == 4
    assert links_of(narrow, cards()["gb200"]).domain == 72
    assert links_of(changed(gpus_per_node=""), cards()["a100"]).node == 8


# ---------------------------------------------------------------------- shapes


def test_a_dense_network() -> None:
    shape = shape_of(ROW)
    assert shape.parameters() == pytest.approx(1.3e9, rel=0.02)
    assert isinstance(shape.attention, Gqa)
    assert (shape.attention.num_key_value_heads, shape.attention.head_dim) == (16, 128)
    # a plain feed-forward is taken as GPT: tied table, biases, learned positions
    assert (shape.tie_word_embeddings, shape.biases, shape.n_positions) == (True, True, 2048)
    gated = shape_of(changed(ffn_gated="1", kv_heads="4", head_dim="64"))
    assert (gated.tie_word_embeddings, gated.biases, gated.n_positions) == (False, False, 0)
    assert (gated.attention.num_key_value_heads, gated.attention.head_dim) == (4, 64)


def test_a_feed_forward_that_is_not_printed_is_four_times_the_width() -> None:
    assert shape_of(changed(ffn="")).intermediate_size == 8192


def test_a_mixture() -> None:
    row = changed(
        model="DeepSeek-V3", attention="mla", head_dim="128", n_experts="256", topk="8",
        moe_ffn="2048", n_shared_ffn="4096", dense_layers="3", ffn_gated="1",
    )  # fmt: skip
    shape = shape_of(row)
    assert isinstance(shape.attention, Mla)
    assert (shape.attention.kv_lora_rank, shape.attention.q_lora_rank) == (512, 1536)
    assert (shape.experts.n_routed_experts, shape.experts.num_experts_per_tok) == (256, 8)
    assert (shape.experts.moe_intermediate_size, shape.experts.n_shared_experts) == (2048, 2)
    assert (shape.experts.first_k_dense_replace, shape.experts.topk_group) == (3, 4)
    assert shape.num_nextn_predict_layers == 1
    other = shape_of(row | {"model": "Mixtral"})
    assert (other.experts.topk_group, other.num_nextn_predict_layers) == (0, 0)


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        ("DeepSeek-V3", 1),
        ("DeepSeekV3 671B", 1),
        ("DeepSeek-V3 w/o MTP", 0),
        ("DeepSeek-V3 cut to 8 layers", 0),
        ("DeepSeek-V2", 0),
    ],
)
def test_prediction_layers_by_name(model: str, layers: int) -> None:
    assert shape_of(changed(model=model)).num_nextn_predict_layers == layers


def test_not_every_layer_can_be_dense() -> None:
    shape = shape_of(changed(n_experts="8", topk="2", dense_layers="24"))
    assert shape.experts.first_k_dense_replace == 23


# ---------------------------------------------------------------------- cells


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", (0, 0)),
        ("zero1", (1, 0)),
        ("zero1-in-node(8)", (1, 8)),
        ("zero2", (2, 0)),
        ("fsdp", (3, 0)),
        ("fsdp-64", (3, 64)),
        ("hsdp", (3, 8)),
        ("zero3", (3, 0)),
        ("", (0, 0)),
    ],
)
def test_sharding(text: str, expected: tuple[int, int]) -> None:
    assert zero_of(changed(zero_fsdp=text)) == expected


def test_fsdp_in_a_pipeline_keeps_its_weights_for_a_step() -> None:
    assert zero_of(changed(zero_fsdp="fsdp", pp="4")) == (2, 0)
    assert zero_of(changed(zero_fsdp="zero3", pp="4")) == (3, 0)
    assert zero_of(changed(zero_fsdp="hsdp", gpus_per_node="4")) == (3, 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bf16", "bf16"),
        ("fp16", "bf16"),
        ("fp8-cs (fp8-mx)", "fp8"),
        ("FP8 CS default", "fp8"),
        ("fp8 rowwise", "fp8-row"),
        ("nvfp4", "fp4"),
        ("mxfp8", "fp8"),
    ],
)
def test_precision(text: str, expected: str) -> None:
    assert precision_of(changed(precision=text)) == expected


def test_numbers_of_cells() -> None:
    row = {"a": "3", "b": "", "c": "2.5"}
    assert (number(row, "a"), number(row, "b"), number(row, "none")) == (3.0, None, None)
    assert (whole(row, "a", 7), whole(row, "b", 7), whole(row, "c", 7)) == (3, 7, 2)


# ---------------------------------------------------------------------- software


def test_software_of_sources() -> None:
    found = software_of(changed(source="megatron-sc21", published="2021-04"))
    assert found.name == "megatron-lm 2021-04"
    assert software_of(changed(source="own")).framework == "default"


@pytest.mark.parametrize(
    ("fields", "framework"),
    [
        ({"model": "GPT-175B (MegaScale)", "source": "megascale"}, "megascale"),
        ({"model": "GPT-175B", "source": "megascale"}, "megatron-lm-2024"),
        ({"model": "GPT-175B (ZeRO-3)", "source": "megatron-sc21-t2"}, "deepspeed-zero"),
        ({"model": "GPT-175B", "source": "megatron-sc21-t2"}, "megatron-lm"),
    ],
)
def test_tables_of_two_frameworks(fields: dict[str, str], framework: str) -> None:
    assert software_of(changed(**fields)).framework == framework


def test_notes_of_a_row_change_facts() -> None:
    assert software_of(changed(attention="mha-unfused")).kernel == "unfused"
    titan = {"source": "torchtitan", "published": "2024-12"}
    plain, eager = (software_of(changed(**titan, notes=n)) for n in ("compiled", "eager, AsyncTP"))
    assert (plain.fusion, plain.tp_overlap, plain.loss_bytes) == ("compiled", False, 8)
    assert (eager.fusion, eager.tp_overlap, eager.loss_bytes) == ("eager", True, 10)
    bloom = {"source": "bloom-prequel", "published": "2022-02"}
    half, brain = (software_of(changed(**bloom, precision=p)) for p in ("fp16", "bf16"))
    assert (half.reduce_bytes, half.gradient_bytes) == (2, 2)
    assert (brain.reduce_bytes, brain.gradient_bytes) == (4, 4)


# ---------------------------------------------------------------------- whole rows


def test_a_row_is_read() -> None:
    found = taken()
    (scenario,) = found.scenarios
    assert found.dense
    assert found.plan_published
    assert not found.sharded
    assert not found.out_of_memory
    assert found.seconds == 3.0
    assert found.memory_bytes is None
    assert (
        scenario.world_size,
        scenario.tp,
        scenario.dp,
        scenario.micro_batch_size,
        scenario.batch_size,
    ) == (16, 2, 8, 4, 256)
    assert (scenario.zero, scenario.shard, scenario.vpp, scenario.schedule) == (1, 8, 1, 0)
    assert scenario.sequence_parallel == 1  # what the software does when the row does not say
    assert scenario.nic_rate == 25e9


def test_a_printed_step_time_yields_to_the_derived_one() -> None:
    assert taken(step_time_s="9.0").seconds == 3.0
    assert taken(step_time_s="9.0", target_step_s="").seconds == 9.0


@pytest.mark.parametrize(
    ("source", "notes", "kind", "gigabyte"),
    [
        ("own", "read from nvidia-smi", "driver", 2.0**30),
        ("torchtitan", "", "reserved", 1e9),
        ("own", "", "allocated", 1e9),
    ],
)
def test_who_measured_the_memory(source: str, notes: str, kind: str, gigabyte: float) -> None:
    found = taken(source=source, notes=notes, memory_GB_per_gpu="40", published="2025-01")
    assert found.memory_kind == kind
    assert found.memory_bytes == 40 * gigabyte


def test_sequence_parallelism_of_a_row() -> None:
    assert taken(seq_parallel="0").scenarios[0].sequence_parallel == 0
    assert taken(seq_parallel="1").scenarios[0].sequence_parallel == 1
    assert taken(tp="1", dp="16").scenarios[0].sequence_parallel == 0
    assert taken(source="opt-175b").scenarios[0].sequence_parallel == 0  # metaseq had none


def test_data_parallelism_is_what_is_left() -> None:
    assert taken(dp="", pp="2").scenarios[0].dp == 4
    assert not taken(dp="").plan_published


def test_sharding_of_a_case() -> None:
    assert taken(zero_fsdp="none").scenarios[0].shard == 1
    assert taken(zero_fsdp="fsdp-4").scenarios[0].shard == 4
    assert taken(zero_fsdp="fsdp", cp="2", dp="4").scenarios[0].shard == 8
    assert taken(zero_fsdp="fsdp").sharded


def test_schedules_of_rows() -> None:
    assert taken(pp="2", dp="4", vpp="3").scenarios[0].schedule == 1
    assert taken(pp="2", dp="4", vpp="1").scenarios[0].schedule == 0
    assert taken(source="deepseek", pp="2", dp="4", vpp="1").scenarios[0].schedule == 3


def test_an_unfused_softmax_is_slower_still() -> None:
    assert taken(notes="unfused softmax").scenarios[0].kernel == 4
    assert taken(attention="mha-unfused").scenarios[0].kernel == 0


def test_a_missing_micro_batch_becomes_every_legal_one() -> None:
    found = taken(micro_batch="")
    assert [scenario.micro_batch_size for scenario in found.scenarios] == [1, 2, 4, 8]
    assert not found.plan_published
    assert [
        scenario.micro_batch_size for scenario in taken(micro_batch="", global_batch="16").scenarios
    ] == [1, 2]


def test_choices_that_do_not_fit_are_left_out_unless_none_does() -> None:
    """A micro-batch of eight would not have run; where nothing fits, everything is kept."""
    wide = {"micro_batch": "", "seq": "8192", "hidden": "4096", "heads": "32", "ffn": "16384"}
    found = taken(**wide, layers="40", zero_fsdp="fsdp", recompute="none")
    assert 0 < len(found.scenarios) < 4
    assert all(bool(memory.fits(scenario)) for scenario in found.scenarios)
    crowded = taken(**wide, layers="400", recompute="none")
    assert len(crowded.scenarios) == 4


@pytest.mark.parametrize(
    ("layers", "pp", "expected"),
    [
        (24, 1, [1]),
        (24, 4, [1, 2, 3, 6]),
        (32, 2, [1, 2, 4, 8]),
        (26, 4, [1, 2, 3, 4, 5, 6, 7]),  # uneven: up to the layers of the fullest stage
    ],
)
def test_missing_chunks(layers: int, pp: int, expected: list[int]) -> None:
    assert chunks_of(changed(pp=str(pp), vpp=""), layers) == expected


def test_out_of_memory_rows_are_not_interleaved() -> None:
    assert chunks_of(changed(source="bloom-oom", pp="4", vpp=""), 24) == [1]


def test_missing_recompute_is_the_cheapest_that_fits() -> None:
    """Ten percent of the memory stay free: an operator leaves room for fragments."""
    small = taken(recompute="")
    assert small.scenarios[0].dropped == 0.0
    crowded = taken(recompute="", layers="64", seq="8192")
    assert crowded.scenarios[0].dropped > 0.0
    hopeless = taken(recompute="", layers="400", seq="65536")
    assert hopeless.scenarios[0].recompute == 2


def test_the_head_room_of_a_missing_recompute() -> None:
    _, (none,) = scenarios_of(changed(recompute="none"))
    _, (full,) = scenarios_of(changed(recompute="full"))
    need = float(memory.peak(none).total) + 1e9
    roomy = [replace(scenario, memory_bytes=need / 0.89) for scenario in (none, full)]
    tight = [replace(scenario, memory_bytes=need / 0.91) for scenario in (none, full)]
    assert least_recompute(roomy) is roomy[0]
    assert least_recompute(tight) is tight[1]
    empty = [replace(scenario, memory_bytes=1.0) for scenario in (none, full)]
    assert least_recompute(empty) is empty[1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layers": ""}, "network is not published: layers"),
        ({"layers": "", "vocab": ""}, "network is not published: layers, vocab"),
        ({"tp": ""}, "plan is not published: tp"),
        ({"gpu": "Z80"}, "unknown card"),
        ({"dp": "5"}, "not the 16 GPUs"),
        ({"recompute": "sometimes"}, "recompute 'sometimes' is unknown"),
        ({"target_step_s": ""}, "neither a step time nor a memory figure"),
        ({"hidden": "wide"}, "wide"),
        ({"global_batch": "4"}, "smaller than the mesh"),
        ({"global_batch": "31"}, "the least is 32"),
    ],
)
def test_gaps_are_refused_with_a_reason(change: dict[str, str], says: str) -> None:
    found = published(changed(**change))
    assert isinstance(found, Refused)
    assert says in found.reason
    assert (found.id, found.source) == ("own-1", "own")


def test_a_row_that_ran_out_of_memory_needs_no_time() -> None:
    assert taken(target_step_s="", notes="OOM").out_of_memory
    assert taken(target_step_s="", source="bloom-oom").out_of_memory
    assert taken(target_step_s="", memory_GB_per_gpu="40").seconds is None


# ---------------------------------------------------------------------- files


def test_a_file_of_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "runs.csv", [ROW, changed(id="own-2", layers=""), changed(id="own-3")])
    rows, refused = read(path)
    assert [row.id for row in rows] == ["own-1", "own-3"]
    assert [row.id for row in refused] == ["own-2"]


def write_without(column: str, path: Path) -> Path:
    """A CSV file of one row that lacks a column."""
    cells = {name: cell for name, cell in ROW.items() if name != column}
    with open(path, "w", newline="") as lines:
        writer = csv.DictWriter(lines, list(cells))
        writer.writeheader()
        writer.writerow(cells)
    return path


@pytest.mark.parametrize("column", ["model", "attention", "notes"])
def test_a_file_without_a_needed_column_is_one_line(column: str, tmp_path: Path) -> None:
    path = write_without(column, tmp_path / "runs.csv")
    with pytest.raises(InputError, match=f"runs.csv: lacks the columns {column}; give a CSV"):
        read(path)


def test_a_file_without_recompute_tries_every_policy(tmp_path: Path) -> None:
    (row,), _ = read(write_without("recompute", tmp_path / "lacking.csv"))
    (empty,), _ = read(write(tmp_path / "empty.csv", [changed(recompute="")]))
    assert row == empty


def test_a_short_row_has_empty_cells(tmp_path: Path) -> None:
    path = write(tmp_path / "runs.csv", [ROW])
    with open(path, "a") as lines:
        lines.write("own-2,own\n")
    rows, refused = read(path)
    assert [row.id for row in rows] == ["own-1"]
    assert [row.id for row in refused] == ["own-2"]


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="file not found"):
        read(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="lacks the columns"):
        read(tmp_path / "other.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read(tmp_path / "binary.csv")
    with pytest.raises(InputError, match="has no rows"):
        read(write(tmp_path / "empty.csv", []))

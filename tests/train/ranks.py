"""What test_parallel.py runs on 2 or 4 gloo ranks: each mesh learns a step of the real MLA + MoE network beside one process.

python -m tests.train.ranks WORLD OUT    starts the ranks and writes what they found as JSON
"""

from __future__ import annotations

import functools
import json
import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing

from tumen.core.shape import Experts, Gqa, Mla, Shape
from tumen.data import Batch, StepTotals
from tumen.recipe import Train

ROWS, TOKENS = 8, 16
MLA = Mla(
    num_attention_heads=4,
    kv_lora_rank=16,
    q_lora_rank=12,
    qk_nope_head_dim=8,
    qk_rope_head_dim=4,
    v_head_dim=8,
)
# A shape of DeepSeek-V2: first layer dense, shared and routed experts, devices, all three balance losses.
EXPERTS = Experts(
    n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, n_shared_experts=1, n_group=4, topk_group=2, routed_scaling_factor=2.0, capacity_factor=8.0,
    aux_loss_alpha=0.3, balance_devices=0.5, balance_communication=0.2,
)  # fmt: skip
V2 = Shape(
    hidden_size=32,
    num_hidden_layers=4,
    intermediate_size=48,
    vocab_size=60,
    tie_word_embeddings=False,
    attention=MLA,
    experts=EXPERTS,
)
TIED = V2.model_copy(update={"tie_word_embeddings": True, "num_hidden_layers": 2})
LITE = V2.model_copy(
    update={"attention": MLA.model_copy(update={"q_lora_rank": None}), "num_hidden_layers": 2}
)
V3 = Shape(
    hidden_size=32, num_hidden_layers=2, intermediate_size=48, vocab_size=60, tie_word_embeddings=False, attention=MLA, num_nextn_predict_layers=1,
    experts=Experts(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, scoring_func="sigmoid", norm_topk_prob=True, bias_rate=0.01, capacity_factor=8.0),
)  # fmt: skip
LLAMA = Shape(
    hidden_size=32,
    num_hidden_layers=2,
    intermediate_size=48,
    vocab_size=60,
    attention=Gqa(num_attention_heads=4, num_key_value_heads=4, head_dim=8),
)
SHAPES = {"v2": V2, "tied": TIED, "lite": LITE, "v3": V3, "llama": LLAMA}

# name -> shape, mesh. Every dimension alone and what is combined on clusters.
MESHES: dict[int, dict[str, tuple[str, dict[str, Any]]]] = {
    2: {
        "fsdp": ("v2", {"dp": 2}),
        "fsdp, tied": ("tied", {"dp": 2}),
        "fsdp, micro-batches": ("v2", {"dp": 2, "micro_batch_size": 2}),
        "zero 1, micro-batches": ("v2", {"dp": 2, "micro_batch_size": 2, "zero": 1}),
        "fsdp, recompute": ("v2", {"dp": 2, "recompute": "full"}),
        "fsdp, selective": ("v2", {"dp": 2, "recompute": "selective"}),
        "copies": ("v2", {"dp": 2, "replicate": 2}),
        "tp": ("v2", {"tp": 2}),
        "tp, lite": ("lite", {"tp": 2}),
        "tp, llama": ("llama", {"tp": 2}),
        "ep": ("v2", {"dp": 2, "ep": 2}),
        "ep, v3": ("v3", {"dp": 2, "ep": 2}),
        "cp": ("v2", {"cp": 2}),
        "cp, llama": ("llama", {"cp": 2}),
        "pp 1f1b": ("v2", {"pp": 2, "micro_batch_size": 2}),
        "pp interleaved": (
            "v2",
            {"pp": 2, "virtual_stages": 2, "schedule": "interleaved", "micro_batch_size": 2},
        ),
        "pp zero-bubble": (
            "v2",
            {"pp": 2, "virtual_stages": 2, "schedule": "zero-bubble", "micro_batch_size": 2},
        ),
        "pp dualpipe": (
            "v2",
            {"pp": 2, "virtual_stages": 2, "schedule": "dualpipe", "micro_batch_size": 2},
        ),
    },
    4: {
        "fsdp": ("v2", {"dp": 4}),
        "hsdp": ("v2", {"dp": 4, "replicate": 2}),
        "tp": ("v2", {"tp": 4}),
        "ep": ("v2", {"dp": 4, "ep": 4}),
        "cp": ("v2", {"cp": 4, "micro_batch_size": 4}),
        "pp": ("v2", {"pp": 4, "micro_batch_size": 2}),
        "fsdp x tp": ("v2", {"dp": 2, "tp": 2}),
        "fsdp x tp, v3": ("v3", {"dp": 2, "tp": 2}),
        "fsdp x ep": ("v2", {"dp": 4, "ep": 2}),
        "hsdp x ep": ("v2", {"dp": 4, "ep": 2, "replicate": 2}),
        "fsdp x cp": ("v2", {"dp": 2, "cp": 2}),
        "ep x tp": ("v2", {"dp": 2, "ep": 2, "tp": 2}),
        "ep x cp": ("v2", {"dp": 2, "ep": 2, "cp": 2}),
        "tp x cp": ("v2", {"tp": 2, "cp": 2}),
        "pp x fsdp": ("v2", {"pp": 2, "dp": 2, "micro_batch_size": 2}),
        "pp x tp": ("v2", {"pp": 2, "tp": 2, "micro_batch_size": 2}),
        "pp x cp": ("v2", {"pp": 2, "cp": 2, "micro_batch_size": 2}),
        "dualpipe x ep": (
            "v2",
            {
                "pp": 2,
                "virtual_stages": 2,
                "schedule": "dualpipe",
                "dp": 2,
                "ep": 2,
                "micro_batch_size": 1,
            },
        ),
    },
}


def section_of(mesh: dict[str, Any], **fields: Any) -> Train:
    """Fp32, so that what differs is the mesh and not the rounding."""
    fields = {
        "steps": 4,
        "batch_size": ROWS,
        "seq_len": TOKENS,
        "precision": "fp32",
        "compile": False,
        "threads": 1,
    } | fields
    return Train.model_validate(fields | {"mesh": mesh})


def batch_of(seed: int, rank: int = 0, ranks: int = 1) -> Batch:
    """Packed rows of two documents and some padding; a rank's rows of them."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 60, (ROWS, TOKENS))
    cut, stop = rng.integers(4, 8, ROWS), rng.integers(12, TOKENS + 1, ROWS)
    at = np.arange(TOKENS)
    documents = np.where(at >= stop[:, None], 0, np.where(at < cut[:, None], 1, 2))
    positions = np.where(documents == 2, at - cut[:, None], at) * (documents > 0)
    last = np.roll(documents, -1, 1) != documents
    last[:, -1] = True
    targets = np.where(last | (documents == 0), -1, np.roll(ids, -1, 1))
    answers = ((positions > 1) & (targets >= 0)).astype(np.int64)
    whole = StepTotals(ROWS, int(answers.sum()), int(((targets >= 0) & (answers == 0)).sum()))
    mine = slice(rank, None, ranks)
    parts = [
        part.astype(np.int64)[mine]
        for part in (ids * (documents > 0), documents, positions, targets, answers, targets * 0)
    ]
    return Batch(*parts, samples=np.arange(ROWS), totals=whole)


def lively(name: str, whole: torch.Tensor) -> torch.Tensor:
    """Weights under which every layer matters, by name, so that all ranks agree."""
    generator = torch.Generator().manual_seed(sum(name.encode()))
    if whole.dim() < 2:
        return torch.empty(whole.shape).uniform_(0.5, 1.5, generator=generator)
    return torch.empty(whole.shape).normal_(0, whole.shape[-1] ** -0.5, generator=generator)


@functools.cache
def one_process(name: str) -> dict[str, Any]:
    """Loss, gradients, norm, and the loss of the next step without a mesh."""
    from tumen.train.single_process import SingleProcessTrainer
    from tumen.train.world import World

    section = section_of({})
    alone = SingleProcessTrainer(section, SHAPES[name], World(0, 1, torch.device("cpu")), 0)
    with torch.no_grad():
        for name, tensor in alone.optimizer.named_master().items():
            tensor.copy_(lively(name, tensor))
    alone.restored(0)
    loss = alone.learn(batch_of(5))
    gradients = {name: weight.grad.clone() for name, weight in alone.network.named_parameters()}
    norm = alone.step(1e-2)
    section = section.model_copy(update={"sentence_weight": 0.0})
    return {
        "loss": loss,
        "gradients": gradients,
        "norm": norm,
        "next": alone.learn(batch_of(6)),
        "eval": alone.evaluate([batch_of(7)], section),
    }


def beside(name: str, section: Train, world: int) -> dict[str, float]:
    """The same on this rank's mesh; the largest differences."""
    from tumen.train.optimizer import put
    from tumen.train.parallel.trainer import DistributedTrainer
    from tumen.train.world import World

    world = World(dist.get_rank(), world, torch.device("cpu"))
    reference = one_process(name)
    trainer = DistributedTrainer(section, SHAPES[name], world, 0)
    with torch.no_grad():
        for name, tensor in trainer.optimizer.named_master().items():
            put(tensor, lively(name, torch.empty(tensor.shape)))
    rank, ranks = trainer.data_rank, trainer.data_ranks
    loss = trainer.learn(batch_of(5, rank, ranks))
    worst = 0.0
    for name, weight in trainer.optimizer.named.items():
        gradient = weight.grad.full_tensor()
        wanted = reference["gradients"][name]
        worst = max(
            worst, float((gradient - wanted).abs().max() / wanted.abs().max().clamp(min=1e-3))
        )
    norm = trainer.step(1e-2)
    after = trainer.learn(batch_of(6, rank, ranks))
    evaluated = trainer.evaluate(
        [batch_of(7, rank, ranks)], section.model_copy(update={"sentence_weight": 0.0})
    )
    return {
        "loss": abs(loss - reference["loss"]),
        "gradient": worst,
        "norm": abs(norm / reference["norm"] - 1),
        "next": abs(after - reference["next"]),
        "eval": abs(evaluated - reference["eval"]),
    }


def work(rank: int, world: int, out: str, only: str) -> None:
    """One rank: all meshes of its world, one after the other."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=os.environ["TUMEN_TEST_PORT"],
        RANK=str(rank),
        WORLD_SIZE=str(world),
    )
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    found: dict[str, Any] = {}
    for name, (shape, mesh) in MESHES[world].items():
        if only and only != name:
            continue
        try:
            found[name] = beside(shape, section_of(mesh), world)
        except Exception:
            found[name] = traceback.format_exc()
            raise
        finally:
            Path(f"{out}.{rank}").write_text(json.dumps(found))
    dist.destroy_process_group()


def main() -> None:
    """Start the ranks."""
    world, out, only = int(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""
    import tumen.train.parallel.trainer  # noqa: F401  # once, and not in every rank

    torch.multiprocessing.start_processes(
        work, args=(world, out, only), nprocs=world, start_method="fork"
    )


if __name__ == "__main__":
    main()

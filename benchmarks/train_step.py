"""How fast a training step is, beside transformers and nanoGPT at equal size.

And what share of the machine's peak it uses.

    python benchmarks/train_step.py [--steps 24] [--block 3] [--threads 1 2]
        [--precision bf16 fp32] [--no-mfu] [--quick] [--json]

`moe`: MLA + DeepSeekMoE, 30.8M weights, 9.1M of them active. Ours, as `fit` runs it, against
`DeepseekV2ForCausalLM` of transformers made from our own exported config: the same network weight
for weight. `dense`: grouped queries against `LlamaForCausalLM` and a GPT as in karpathy/nanoGPT. 2
rows of 512 random tokens a step, every token learned, AdamW.

Equal: sizes (asserted), tokens, loss, optimiser class, clipping. Not equal, in the peers' favour:
at bf16 their weights and moments are bf16 alone, ours have fp32 beside them; ours computes the
balance loss and is deterministic. In ours' favour: an expert that is asked for by more tokens than
its capacity drops some, as DeepSeek-V2 did in training. Looped and grouped experts drop the same;
the loop is not compiled, for its shapes change at every step.

Contestants are processes that take turns in blocks of a few steps (benchmarks/contest.py); tokens
a second are wall time, the CPU seconds are those of all threads and stay true on a busy machine.
"as shipped" has an untouched environment, the others have that of our local engine
(cluster/engines/local.py). Model FLOPs utilisation: 6 x active weights x tokens plus attention
(PaLM, arXiv 2204.02311, appendix B) over the best matmul this machine does. Start it on a quiet
machine; `--quick` only shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from contest import (
    Contestant,
    Heat,
    circumstances,
    headline,
    noise_of,
    said,
    serve,
    table,
    take_turns,
    write,
)

from tumen.core.shape import Experts, Gqa, Mla, Shape
from tumen.recipe import Train

ENGINE = {
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "20000",
    "GOMP_SPINCOUNT": "10000",
}  # tumen.cluster.engines.local.DEFAULTS
ROWS, ROW_TOKENS, VOCAB = 2, 512, 8192
MOE = Shape(
    hidden_size=256,
    num_hidden_layers=10,
    intermediate_size=768,
    attention=Mla(
        num_attention_heads=4,
        kv_lora_rank=64,
        qk_nope_head_dim=48,
        qk_rope_head_dim=16,
        v_head_dim=64,
    ),
    experts=Experts(
        n_routed_experts=16, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=224
    ),
    vocab_size=VOCAB,
    rms_norm_eps=1e-6,
)
DENSE = Shape(
    hidden_size=256,
    num_hidden_layers=10,
    intermediate_size=768,
    attention=Gqa(num_attention_heads=4, num_key_value_heads=2, head_dim=64),
    vocab_size=VOCAB,
    rms_norm_eps=1e-6,
)
HEATS: dict[
    str, list[tuple[str, dict[str, Any], bool]]
] = {  # name, what the child is asked for, our engine's environment
    "moe": [
        ("ours", {"kind": "ours"}, True),
        ("ours again", {"kind": "ours"}, True),
        ("ours, grouped experts", {"kind": "ours", "expert_kernel": "grouped"}, True),
        ("ours, eager", {"kind": "ours", "compile": False}, True),
        (
            "ours, eager, grouped experts",
            {"kind": "ours", "compile": False, "expert_kernel": "grouped"},
            True,
        ),
        (
            "ours, eager, looped experts",
            {"kind": "ours", "compile": False, "expert_kernel": "loop"},
            True,
        ),
        ("transformers, as shipped", {"kind": "transformers"}, False),
        ("transformers", {"kind": "transformers"}, True),
        ("transformers, looped experts", {"kind": "transformers", "experts": "eager"}, True),
        ("transformers, compiled", {"kind": "transformers", "compile": True}, True),
    ],
    "dense": [
        ("ours", {"kind": "ours"}, True),
        ("ours again", {"kind": "ours"}, True),
        ("ours, eager", {"kind": "ours", "compile": False}, True),
        ("nanoGPT, eager", {"kind": "gpt"}, True),
        ("nanoGPT, compiled", {"kind": "gpt", "compile": True}, True),
        ("transformers Llama", {"kind": "transformers"}, True),
        ("transformers Llama, compiled", {"kind": "transformers", "compile": True}, True),
    ],
}
QUICK = ("ours", "ours again", "transformers, as shipped", "nanoGPT, eager", "transformers Llama")
WARM = 4  # steps before the first that counts: compilation, oneDNN's kernels, allocation
FILL = [(512, 8), (1024, 4), (2048, 2)]  # width and layers whose share of the peak is looked for
Step = Callable[[int], object]


def shape_named(name: str, quick: bool) -> Shape:
    """The contest's shape; a quick one has two layers."""
    shape = MOE if name == "moe" else DENSE
    return shape.model_copy(update={"num_hidden_layers": 2}) if quick else shape


def section_of(asked: dict[str, Any], rows: int, row_tokens: int) -> Train:
    """The training section of our contestants: AdamW, one process."""
    chosen = {name: asked[name] for name in ("compile", "expert_kernel") if name in asked}
    fixed = {
        "steps": 1000,
        "batch_size": rows,
        "seq_len": row_tokens,
        "optimizer": "adamw",
        "sentence_weight": 1.0,
    }
    return Train(**fixed, precision=asked["precision"], threads=asked["threads"], **chosen)


def ours(shape: Shape, section: Train) -> tuple[Step, int]:
    """One step as `fit` takes it, and how many weights there are."""
    import torch

    from tumen.train.calibrate import batch_of
    from tumen.train.loop import prepare_torch
    from tumen.train.single_process import SingleProcessTrainer
    from tumen.train.world import World

    prepare_torch(section)
    trainer = SingleProcessTrainer(section, shape, World(0, 1, torch.device("cpu")), 0)

    def step(number: int) -> None:
        trainer.learn(batch_of(shape, section, number))
        trainer.step(section.learning_rate)

    return step, sum(weight.numel() for weight in trainer.network.parameters())


def peer(
    network: Any, logits: Callable[[Any], Any], shape: Shape, asked: dict[str, Any]
) -> tuple[Step, int]:
    """A plain step of a torch module on the same tokens: cross-entropy in fp32, clipping, fused
    AdamW."""
    import torch
    import torch.nn.functional as F

    from tumen.train.calibrate import batch_of

    torch.set_num_threads(asked["threads"])
    section = section_of(
        {"precision": asked["precision"], "threads": asked["threads"]}, ROWS, ROW_TOKENS
    )
    network = network.to(torch.bfloat16 if asked["precision"] == "bf16" else torch.float32).train()
    weights = list(network.parameters())
    optimizer = torch.optim.AdamW(
        weights,
        lr=section.learning_rate,
        betas=section.betas,
        weight_decay=section.weight_decay,
        fused=True,
    )

    def step(number: int) -> None:
        batch = batch_of(shape, section, number)
        found = logits(torch.from_numpy(batch.ids)).float().flatten(0, 1)
        loss = F.cross_entropy(found, torch.from_numpy(batch.targets).flatten())
        loss.backward()
        float(torch.nn.utils.clip_grad_norm_(weights, section.grad_clip))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        float(loss)

    return step, sum(weight.numel() for weight in weights)


def transformers(shape: Shape, asked: dict[str, Any]) -> tuple[Step, int]:
    """The public architecture of our shape, from the config we export."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tumen.formats.hf_config import config_of

    config = AutoConfig.for_model(**config_of(shape))
    chosen = {"experts_implementation": asked["experts"]} if "experts" in asked else {}
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config, **chosen)
    called = torch.compile(network, dynamic=False) if asked.get("compile") else network
    return peer(network, lambda ids: called(input_ids=ids, use_cache=False).logits, shape, asked)


def gpt(shape: Shape, asked: dict[str, Any]) -> tuple[Step, int]:
    """nanoGPT's network of our width and depth."""
    import torch
    from gpt import Gpt

    torch.manual_seed(0)
    network = Gpt(
        VOCAB,
        shape.hidden_size,
        shape.num_hidden_layers,
        shape.attention.num_attention_heads,
        ROW_TOKENS,
    )
    called = torch.compile(network, dynamic=False) if asked.get("compile") else network
    return peer(network, called, shape, asked)


def child(asked: dict[str, Any]) -> None:
    """A contestant: warm up, then take as many steps as each line says and answer with (wall, CPU)
    seconds of each."""
    shape = shape_named(asked["heat"], asked["quick"])
    kinds: dict[str, Callable[[], tuple[Step, int]]] = {
        "ours": lambda: ours(shape, section_of(asked, ROWS, ROW_TOKENS)),
        "transformers": lambda: transformers(shape, asked),
        "gpt": lambda: gpt(shape, asked),
    }
    step, weights = kinds[asked["kind"]]()
    done = 0

    def steps(count: int) -> list[tuple[float, float]]:
        nonlocal done
        found = []
        for _ in range(count):
            wall, cpu = time.perf_counter(), time.process_time()
            step(done)
            found.append((time.perf_counter() - wall, time.process_time() - cpu))
            done += 1
        return found

    steps(WARM)
    serve({"weights": weights}, steps)


def contest(heat: str, precision: str, threads: int, given: argparse.Namespace) -> dict[str, Any]:
    """One table: medians of each contestant, the noise, and ratios against ours."""
    common = {"heat": heat, "precision": precision, "quick": given.quick} | (
        {"compile": False} if given.quick else {}
    )
    found = [
        Contestant(name, common | asked, ENGINE if engine else {})
        for name, asked, engine in HEATS[heat]
    ]
    if given.quick:
        found = [one for one in found if one.name in QUICK]
    turns = take_turns(
        found, Path(__file__), threads, [given.block] * max(1, given.steps // given.block)
    )
    check_sizes(shape_named(heat, given.quick), turns)
    steps = {
        name: [tuple(step) for block in blocks for step in block]
        for name, blocks in turns.rounds.items()
    }
    tokens = ROWS * ROW_TOKENS
    wall, cpu = ({name: [step[i] for step in row] for name, row in steps.items()} for i in (0, 1))
    middle = {name: (statistics.median(wall[name]), statistics.median(cpu[name])) for name in steps}
    rows = {
        name: {
            "weights": turns.about[name]["weights"],
            "steps": len(steps[name]),
            "tokens_per_second": round(tokens / seconds),
            "cpu_microseconds_per_token": round(1e6 * busy / tokens, 1),
            "times_ours": middle["ours"][0] / seconds,
            "times_ours_cpu": middle["ours"][1] / busy,
        }
        for name, (seconds, busy) in middle.items()
    }
    noise = {
        "wall": noise_of(wall["ours"], wall["ours again"]),
        "cpu": noise_of(cpu["ours"], cpu["ours again"]),
    }
    return {
        "heat": heat,
        "precision": precision,
        "threads": threads,
        "noise": noise,
        "rows": rows,
        "failed": turns.failed,
    }


def check_sizes(shape: Shape, turns: Heat) -> None:
    """Refuse a contest of unequal networks: transformers equals ours to the weight, nanoGPT but
    for its learned positions."""
    for name, about in turns.about.items():
        slack = ROW_TOKENS * shape.hidden_size if "nanoGPT" in name else 0
        if not 0 <= about["weights"] - shape.parameters() <= slack:
            raise SystemExit(
                f"{name} has {about['weights']} weights, ours {shape.parameters()}: "
                "not the same size"
            )


def show(result: dict[str, Any]) -> Iterator[str]:
    """A contest as Markdown."""
    shape = shape_named(result["heat"], result["quick"])
    size = f"{shape.parameters() / 1e6:.1f}M weights, {shape.active_parameters() / 1e6:.1f}M active"
    noise = result["noise"]
    equals = f"two equals differ {noise['wall']:.3f}x (CPU {noise['cpu']:.3f}x)"
    conditions = f"{result['precision']}, threads {result['threads']}"
    yield f"\n{result['heat']}, {size}, {conditions}; {equals}\n"
    yield table(
        ("contestant", "tokens/s", "CPU us/token", "speed over ours", "by CPU time"),
        [
            (
                name,
                f"{row['tokens_per_second']:,}",
                row["cpu_microseconds_per_token"],
                said(row["times_ours"], noise["wall"]),
                said(row["times_ours_cpu"], noise["cpu"]),
            )
            for name, row in result["rows"].items()
        ],
    )
    for name, why in result["failed"].items():
        yield f"- {name} did not run: {why}"


def filling(kind: str, width: int, layers: int) -> Shape:
    """A shape with matrices large enough to fill the machine."""
    heads = width // 64
    if kind == "dense":
        attention = Gqa(num_attention_heads=heads, num_key_value_heads=heads // 2, head_dim=64)
        return Shape(
            hidden_size=width,
            num_hidden_layers=layers,
            intermediate_size=3 * width,
            attention=attention,
            vocab_size=VOCAB,
        )
    latent = Mla(
        num_attention_heads=heads,
        kv_lora_rank=width // 4,
        qk_nope_head_dim=48,
        qk_rope_head_dim=16,
        v_head_dim=64,
    )
    experts = Experts(
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_shared_experts=1,
        moe_intermediate_size=width,
        first_k_dense_replace=1,
    )
    return Shape(
        hidden_size=width,
        num_hidden_layers=layers,
        intermediate_size=3 * width,
        attention=latent,
        experts=experts,
        vocab_size=VOCAB,
    )


def peak(threads: int, precision: str, quick: bool) -> dict[str, Any]:
    """FLOP/s of the best `F.linear` of several sizes, best of some calls: what this machine can do
    at all."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    found: dict[str, Any] = {"flops_per_second": 0.0}
    for rows, inner, outer in [
        (1024, 512, 512),
        (2048, 1024, 1024),
        (2048, 2048, 2048),
        (4096, 1024, 4096),
    ][: 2 if quick else 4]:
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        x, weight = torch.randn(rows, inner).to(kind), torch.randn(outer, inner).to(kind)
        for _ in range(3 if quick else 12):
            start = time.perf_counter()
            F.linear(x, weight)
            rate = 2 * rows * inner * outer / (time.perf_counter() - start)
            if rate > found["flops_per_second"]:
                found = {"flops_per_second": rate, "rows": rows, "inner": inner, "outer": outer}
    return found


def fill(asked: dict[str, Any]) -> None:
    """The other kind of child: peak, then our own step at one shape, then the peak again; prints
    one line."""
    threads, precision, quick = asked["threads"], asked["precision"], asked["quick"]
    shape = filling(asked["kind"], asked["width"], asked["layers"])
    before = peak(threads, precision, quick)
    section = section_of(asked, asked["rows"], asked["row_tokens"])
    step, _ = ours(shape, section)
    seconds = []
    for number in range(2 + asked["steps"]):
        start = time.perf_counter()
        step(number)
        seconds.append(time.perf_counter() - start)
    after = peak(threads, precision, quick)
    best = max(before, after, key=lambda one: one["flops_per_second"])
    tokens = section.batch_size * section.seq_len
    per_token = 3 * shape.flops_per_token(section.seq_len)  # backward is twice the forward
    spent = statistics.median(seconds[2:])
    about = {
        name: asked[name]
        for name in ("kind", "width", "layers", "rows", "row_tokens", "precision", "threads")
    }
    serve(
        about
        | {
            "active": shape.active_parameters(),
            "tokens_per_second": tokens / spent,
            "model_flops_per_token": per_token,
            "peak": best,
            "peak_before_over_after": before["flops_per_second"] / after["flops_per_second"],
            "mfu": per_token * tokens / spent / best["flops_per_second"],
        },
        lambda _: None,
    )


def utilisation(precision: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Our step at shapes that fill the machine, one process each."""
    found = []
    sizes = [(256, 2)] if given.quick else [size for size in FILL if size[0] in given.fill]
    cells = [
        (kind, *size, *rows)
        for kind in ("dense", "moe")
        for size in sizes
        for rows in ([(1, 512)] if given.quick else [(4, 512)])
    ]
    for kind, width, layers, rows, row_tokens in cells:
        asked = {
            "fill": True,
            "kind": kind,
            "width": width,
            "layers": layers,
            "rows": rows,
            "row_tokens": row_tokens,
        }
        asked |= {
            "precision": precision,
            "quick": given.quick,
            "steps": 2 if given.quick else 5,
            "compile": not given.quick,
        }
        heat = take_turns(
            [Contestant(f"{kind} {width}x{layers}, {rows}x{row_tokens}", asked, ENGINE)],
            Path(__file__),
            max(given.threads),
            [],
        )
        found += list(heat.about.values()) or [asked | {"failed": next(iter(heat.failed.values()))}]
    return found


def show_utilisation(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The shares of the peak as Markdown, the best first."""
    good = sorted((row for row in rows if "mfu" in row), key=lambda row: -row["mfu"])
    if not good:
        return
    conditions = f"{good[0]['precision']}, threads {good[0]['threads']}"
    yield f"\nshare of the matmul peak ({conditions}), best first\n"
    yield table(
        ("ours", "rows x tokens", "active", "tokens/s", "peak GFLOP/s", "MFU"),
        [
            (
                f"{row['kind']} {row['width']} x {row['layers']}",
                f"{row['rows']} x {row['row_tokens']}",
                f"{row['active'] / 1e6:.1f}M",
                f"{row['tokens_per_second']:,.0f}",
                f"{row['peak']['flops_per_second'] / 1e9:.0f}",
                f"{row['mfu']:.0%}",
            )
            for row in good
        ],
    )


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=24, help="steps of each contestant that count")
    parser.add_argument("--block", type=int, default=3, help="steps before the next one's turn")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=sorted({1, len(os.sched_getaffinity(0))})
    )
    parser.add_argument(
        "--precision", nargs="+", choices=("bf16", "fp32"), default=["bf16", "fp32"]
    )
    parser.add_argument("--heat", nargs="+", choices=tuple(HEATS), default=list(HEATS))
    parser.add_argument("--no-mfu", action="store_true")
    parser.add_argument(
        "--fill",
        type=int,
        nargs="+",
        default=[512, 1024],
        help="widths that are to fill the machine, of 512, 1024, 2048",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two layers, few steps, one thread: nothing compiled: does it run?",
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        asked = json.loads(given.child)
        return fill(asked) if asked.get("fill") else child(asked)
    if given.quick:
        given.steps, given.block, given.threads, given.precision = 4, 2, [1], given.precision[-1:]
    about = circumstances(("tumen", "torch", "transformers", "numpy"))
    cells = [
        (heat, precision, threads)
        for precision in given.precision
        for threads in given.threads
        for heat in given.heat
    ]
    contests = [contest(*cell, given) | {"quick": given.quick} for cell in cells]
    shares = (
        []
        if given.no_mfu
        else [row for precision in given.precision for row in utilisation(precision, given)]
    )
    result = about | {"environment": ENGINE, "contests": contests, "utilisation": shares}
    if given.json:
        print(json.dumps(result))
    else:
        print(headline(about))
        for one in contests:
            print("\n".join(show(one)))
        for precision in given.precision:
            print(
                "\n".join(
                    show_utilisation([row for row in shares if row["precision"] == precision])
                )
            )
    if not given.quick or given.out:
        write("train_step", result, given.out)
    return None


if __name__ == "__main__":
    main()

"""How the ways of running experts compare, forward and backward.

Few shapes, changing shapes, small and large oneDNN cache.

    python benchmarks/expert_kernels.py [--steps 40] [--precision bf16 fp32] [--quick] [--json]

One mixture of experts, 16 of width 224, 2 a token, 1,024 tokens of width 256, one thread.
`padded`, `grouped` and `loop` are ours (model/kernels.py), `transformers` are its own experts by
grouped matmul (its default) and by its loop. "still" routes every step alike, "moving"
differently, as training does: then every expert has another number of tokens at every step.
oneDNN, which runs bf16 (and fp32 where MKL does not), compiles a kernel for each new shape and
keeps 1,024 of them unless told otherwise before torch is loaded: hence processes of their own,
which take turns. CPU time; `padded again` is the A/A pair.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from contest import (
    Contestant,
    circumstances,
    headline,
    noise_of,
    said,
    serve,
    table,
    take_turns,
    write,
)

TOKENS, WIDTH, INNER, EXPERTS, TOP_K = 1024, 256, 224, 16, 2
CACHES = {"default": {}, "large": {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "200000"}}
WAYS = (
    "padded",
    "padded again",
    "grouped",
    "loop",
    "transformers grouped_mm",
    "transformers eager",
)
WARM, BLOCK = 5, 5
Run = Callable[[Any, Any, Any], Any]  # tokens (N, D), experts (N, K), weights (N, K) -> (N, D)


def ours(name: str, kind: Any) -> tuple[Run, list[Any]]:
    """A kernel of ours, with the queue that comes before it, and its weights."""
    import torch

    from tumen.model.kernels import KERNELS, TokenDispatcher, queue_of, rounded

    sizes = [(EXPERTS, WIDTH, INNER)] * 2 + [(EXPERTS, INNER, WIDTH)]
    weights = [(torch.randn(size) * size[1] ** -0.5).to(kind).requires_grad_() for size in sizes]
    kernel = KERNELS[name.split()[0]]
    room = rounded(TOKENS * TOP_K * 3 // 2 // EXPERTS)  # capacity 1.5, as the default of a recipe

    def run(x: Any, expert: Any, weight: Any) -> Any:
        queue = queue_of(expert.flatten(), EXPERTS, weight.flatten())
        out = kernel(x, queue, room, tuple(weights), TokenDispatcher())
        return (out.view(TOKENS, TOP_K, WIDTH) * weight.to(kind).unsqueeze(-1)).sum(dim=1)

    return run, weights


def theirs(name: str, kind: Any) -> tuple[Run, list[Any]]:
    """The experts of transformers' DeepSeek-V2."""
    import torch
    from transformers import DeepseekV2Config
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Experts

    config = DeepseekV2Config(
        hidden_size=WIDTH,
        moe_intermediate_size=INNER,
        n_routed_experts=EXPERTS,
        num_experts_per_tok=TOP_K,
    )
    config._experts_implementation = name.split()[1]
    experts = DeepseekV2Experts(config)
    with torch.no_grad():
        for weight in experts.parameters():
            weight.normal_(0, weight.shape[-1] ** -0.5)
    experts = experts.to(kind)
    return lambda x, expert, weight: experts(x, expert, weight.to(kind)), list(experts.parameters())


def routing(moving: bool, number: int) -> tuple[Any, Any]:
    """Experts (N, K), all different in a row, and their weights; some experts are liked more than
    others."""
    import torch

    generator = torch.Generator().manual_seed(number if moving else 0)
    liked = torch.randn(1, EXPERTS, generator=generator) * 0.3
    affinity = (torch.randn(TOKENS, EXPERTS, generator=generator) + liked).softmax(dim=-1)
    weight, expert = affinity.topk(TOP_K, dim=-1)
    return expert, weight


def child(asked: dict[str, Any]) -> None:
    """A contestant: answers each line with the CPU seconds of a block of steps."""
    import torch

    torch.set_num_threads(asked["threads"])
    torch.manual_seed(0)
    kind = torch.bfloat16 if asked["precision"] == "bf16" else torch.float32
    run, weights = (theirs if asked["way"].startswith("transformers") else ours)(asked["way"], kind)
    seen = SimpleNamespace(step=0)

    def step() -> float:
        expert, weight = routing(asked["moving"], seen.step)
        x = torch.randn(TOKENS, WIDTH).to(kind).requires_grad_()
        start = time.process_time()
        run(x, expert, weight).float().square().mean().backward()
        spent = time.process_time() - start
        for tensor in weights:
            tensor.grad = None
        seen.step += 1
        return spent

    def block(count: int) -> list[float]:
        return [step() for _ in range(count)]

    block(WARM)
    serve({"weights": sum(tensor.numel() for tensor in weights)}, block)


def contest(precision: str, cache: str, moving: bool, steps: int) -> dict[str, Any]:
    """One column: CPU milliseconds a step of each way."""
    asked = {"precision": precision, "moving": moving}
    found = [Contestant(way, asked | {"way": way}, CACHES[cache]) for way in WAYS]
    heat = take_turns(found, Path(__file__), 1, [BLOCK] * max(1, steps // BLOCK))
    if len({about["weights"] for about in heat.about.values()}) > 1:
        raise SystemExit(f"the ways have different weights: {heat.about}")
    flat = {
        name: [step for block in blocks for step in block] for name, blocks in heat.rounds.items()
    }
    return {
        "precision": precision,
        "cache": cache,
        "routing": "moving" if moving else "still",
        "noise": noise_of(flat["padded"], flat["padded again"]),
        "milliseconds": {
            name: round(1e3 * statistics.median(row), 3) for name, row in flat.items()
        },
        "failed": heat.failed,
    }


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument(
        "--precision", nargs="+", choices=("bf16", "fp32"), default=["bf16", "fp32"]
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few steps with moving shapes: does it run?"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return child(json.loads(given.child))
    cells = [
        (precision, cache, moving)
        for precision in given.precision
        for cache in CACHES
        for moving in (False, True)
    ]
    if given.quick:
        given.steps, cells = BLOCK, [("fp32", "large", True)]
    about = circumstances(("tumen", "torch", "transformers"))
    columns = [contest(*cell, given.steps) for cell in cells]
    result = about | {
        "threads": 1,
        "tokens": TOKENS,
        "experts": EXPERTS,
        "top_k": TOP_K,
        "columns": columns,
    }
    if given.json:
        print(json.dumps(result))
    else:
        print(
            headline(about),
            "\n\nCPU milliseconds a step, forward and backward; in brackets over padded\n",
        )
        print(
            table(
                ("precision, oneDNN cache, routing", *WAYS, "two equals"),
                [row_of(column) for column in columns],
            )
        )
        for why in {
            f"- {name}: {why}" for column in columns for name, why in column["failed"].items()
        }:
            print(why)
    if not given.quick or given.out:
        write("expert_kernels", result, given.out)
    return None


def row_of(column: dict[str, Any]) -> list[str]:
    """One column of the measurement is a row on paper."""
    spent, noise = column["milliseconds"], column["noise"]
    cells = [
        f"{spent[way]:.1f} ({said(spent[way] / spent['padded'], noise)})" if way in spent else "-"
        for way in WAYS
    ]
    return [
        f"{column['precision']}, {column['cache']}, {column['routing']}",
        *cells,
        f"{noise:.3f}x",
    ]


if __name__ == "__main__":
    main()

"""Where latent attention pays when decoding, and where it does not.

Bytes of the cache and time a token, one layer.

    python benchmarks/mla_pays.py [--rounds 15] [--contexts 512 2048 8192 32768]
        [--precision bf16 fp32] [--quick] [--json]

One attention block at DeepSeek-V2-Lite's sizes (width 2048), batch 1, one thread, random weights.
All kinds have the same budget of weights within 2 % (printed): heads and head width of the others
are solved for. Caches are filled once to the context and have room for one token more, which each
timed step overwrites, so that no copy grows with the context (our own `Cache` copies everything it
holds for each token: that cost is the same per byte for all, and left out here). Kinds take turns
within a round; `MLA again` is the same module a second time and says how much of a difference is
noise. CPU time, so that other work on the machine counts less.

    MLA           our `LatentAttention` with a cache: absorbed, attention inside the latent
    MLA expanded  the same cache, keys and values of the whole context made again for each token
    MHA, GQA      queries of a group as the rows of one matmul, no keys copied; also our
                  `GroupedAttention`, the faster one is shown
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded

import torch
from contest import circumstances, headline, noise_of, said, table, write

from tumen.core.shape import Gqa, Mla
from tumen.model import Cache
from tumen.model.attention import Context, GroupedAttention, LatentAttention, attend
from tumen.model.rope import rotate

WIDTH = 2048
LATENT = Mla(
    num_attention_heads=16,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
)  # DeepSeek-V2-Lite
SLACK = 0.02
# published: arXiv 2405.04434 (60 layers; 512 + 64), arXiv 2401.02954 (95 layers, 8 groups of 128)
V2, DENSE_67B = (
    Mla(num_attention_heads=128, kv_lora_rank=512, q_lora_rank=1536),
    Gqa(num_attention_heads=64, num_key_value_heads=8, head_dim=128),
)
V2_LAYERS, DENSE_67B_LAYERS, KV_BITS = 60, 95, 6
Decode = Callable[[], object]


class Filled(Cache):
    """A cache of a fixed length whose last token is written again and again."""

    def __init__(self, first: torch.Tensor, second: torch.Tensor) -> None:
        self.first, self.second = first, second

    def extend(
        self, first: torch.Tensor, second: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.first is not None
        assert self.second is not None
        self.first[:, :, -1:], self.second[:, :, -1:] = first, second
        return self.first, self.second


def solved(kv_heads: int) -> Gqa:
    """Grouped queries with the latent kind's budget, their heads as wide as comes near to 128; 0
    groups: one for each head."""
    budget = LATENT.parameters(WIDTH)
    found = []
    for groups in range(1, 33):
        heads = groups if kv_heads == 0 else groups * kv_heads
        for head_dim in range(64, 193, 8):
            kind = Gqa(
                num_attention_heads=heads, num_key_value_heads=kv_heads or heads, head_dim=head_dim
            )
            if abs(kind.parameters(WIDTH) / budget - 1) <= SLACK:
                found.append((abs(head_dim - 128), kind))
    return min(found, key=lambda pair: pair[0])[1]


def kinds() -> dict[str, Mla | Gqa]:
    """The contestants by name."""
    return {"MLA": LATENT, "MHA": solved(0), "GQA-8": solved(8), "GQA-4": solved(4)}


def grouped(
    module: GroupedAttention, x: torch.Tensor, context: Context, cache: Cache
) -> torch.Tensor:
    """One token of `GroupedAttention` without copying keys: a group's queries are the rows of one
    matmul."""
    kind = module.shape
    q, k, v = (
        part(x).view(1, 1, -1, kind.head_dim).transpose(1, 2)
        for part in (module.q, module.k, module.v)
    )
    q, k = rotate(q, context.cos, context.sin), rotate(k, context.cos, context.sin)
    k, v = cache.extend(k, v)
    out = attend(
        q.view(1, kind.num_key_value_heads, -1, kind.head_dim),
        k,
        v,
        context.mask,
        kind.head_dim**-0.5,
    )  # (1, group, kv_heads * d)
    return module.out(
        out.view(1, -1, kind.num_key_value_heads, kind.head_dim).transpose(1, 2).reshape(1, 1, -1)
    )


def expanded(
    module: LatentAttention, x: torch.Tensor, context: Context, cache: Cache
) -> torch.Tensor:
    """One token of `LatentAttention` with keys and values of the whole context made again."""
    kind = module.shape
    q_nope, q_rope = (
        module.q_up(x)
        .view(1, 1, -1, kind.query_dim)
        .transpose(1, 2)
        .split((kind.qk_nope_head_dim, kind.qk_rope_head_dim), dim=-1)
    )
    latent, k_rope = module.kv_down(x).split((kind.kv_lora_rank, kind.qk_rope_head_dim), dim=-1)
    k_rope = rotate(k_rope.unsqueeze(1), context.cos, context.sin)
    latents, k_rope = cache.extend(module.kv_norm(latent).unsqueeze(1), k_rope)
    kv = (
        module.kv_up(latents.squeeze(1))
        .view(1, latents.shape[2], -1, kind.qk_nope_head_dim + kind.v_head_dim)
        .transpose(1, 2)
    )
    k_nope, v = kv.split((kind.qk_nope_head_dim, kind.v_head_dim), dim=-1)
    k = torch.cat((k_nope, k_rope.expand(-1, kind.num_attention_heads, -1, -1)), dim=-1)
    q = torch.cat((q_nope, rotate(q_rope, context.cos, context.sin)), dim=-1)
    return module.out(attend(q, k, v, context.mask, kind.score_scale))


def decoders(length: int, kind: torch.dtype) -> dict[str, Decode]:
    """One timed step of each contestant at a context of `length`."""
    x = torch.randn(1, 1, WIDTH).to(kind)
    found: dict[str, Decode] = {}
    for name, shape in kinds().items():
        turned = shape.qk_rope_head_dim if isinstance(shape, Mla) else shape.head_dim
        angle = torch.rand(1, 1, 1, turned // 2)
        context = Context(
            angle.cos().to(kind), angle.sin().to(kind), torch.zeros(1, 1, 1, length).to(kind)
        )
        if isinstance(shape, Mla):
            latent = LatentAttention(WIDTH, shape, 1e-6).to(kind)
            cache = Filled(
                torch.randn(1, 1, length, shape.kv_lora_rank).to(kind),
                torch.randn(1, 1, length, shape.qk_rope_head_dim).to(kind),
            )
            found[name] = found["MLA again"] = lambda m=latent, c=context, k=cache: m(x, c, k)
            found["MLA expanded"] = lambda m=latent, c=context, k=cache: expanded(m, x, c, k)
        else:
            module = GroupedAttention(WIDTH, shape).to(kind)
            size = (1, shape.num_key_value_heads, length, shape.head_dim)
            cache = Filled(torch.randn(size).to(kind), torch.randn(size).to(kind))
            found[name] = lambda m=module, c=context, k=cache: grouped(m, x, c, k)
            found[f"{name}, ours"] = lambda m=module, c=context, k=cache: m(x, c, k)
    return found


def check_equal(doors: dict[str, Decode], kind: torch.dtype) -> None:
    """Refuse to time two ways of the same attention that do not agree."""
    close = 1e-4 if kind == torch.float32 else 5e-2
    for one, other in [
        ("MLA", "MLA expanded"),
        *((name, f"{name}, ours") for name in kinds() if name != "MLA"),
    ]:
        a, b = doors[one](), doors[other]()
        assert isinstance(a, torch.Tensor)
        assert isinstance(b, torch.Tensor)
        if (a - b).norm() > close * b.norm():
            raise SystemExit(
                f"{one} and {other} do not agree: {float((a - b).norm() / b.norm()):.3g}"
            )


@torch.no_grad()
def measure(length: int, precision: str, rounds: int) -> dict[str, Any]:
    """CPU milliseconds a token of each contestant at one context."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    doors = decoders(length, kind)
    check_equal(doors, kind)
    times: dict[str, list[float]] = {name: [] for name in doors}
    for number in range(rounds):
        for name in doors if number % 2 == 0 else reversed(doors):
            if name == "MLA expanded" and number >= 3:  # tens of times slower, three are enough
                continue
            start = time.process_time()
            doors[name]()
            times[name].append(1e3 * (time.process_time() - start))
    middle = {name: statistics.median(row) for name, row in times.items()}
    noise = noise_of(times["MLA"], times["MLA again"])
    best = {name: min(middle[name], middle.get(f"{name}, ours", float("inf"))) for name in kinds()}
    best["MLA expanded"] = middle["MLA expanded"]
    return {
        "context": length,
        "precision": precision,
        "noise": noise,
        "all": middle,
        "milliseconds": best,
    }


def weights_and_bytes() -> list[dict[str, Any]]:
    """What each kind holds: weights, and bytes of the cache for a token and layer at 16 bits."""
    budget = LATENT.parameters(WIDTH)
    return [
        {
            "kind": name,
            "heads": f"{shape.num_attention_heads} x {shape.query_dim}"
            + ("" if isinstance(shape, Mla) else f", {shape.num_key_value_heads} groups"),
            "weights": shape.parameters(WIDTH),
            "of_budget": round(shape.parameters(WIDTH) / budget, 4),
            "cache_bytes": 2 * shape.cache_elements(),
        }
        for name, shape in kinds().items()
    ]


def saving() -> dict[str, Any]:
    """The 93.3 % of the DeepSeek-V2 report (arXiv 2405.04434, abstract and section 3.2.3) in its
    two parts."""
    dense, latent = (
        2 * DENSE_67B_LAYERS * DENSE_67B.cache_elements(),
        2 * V2_LAYERS * V2.cache_elements(),
    )
    return {
        "dense_67b_bytes": dense,
        "v2_bytes": latent,
        "from_mla": round(1 - latent / dense, 4),
        "from_mla_and_6_bits": round(1 - latent * KV_BITS / 16 / dense, 4),
    }


def verdict(result: dict[str, Any]) -> str:
    """Against whom MLA pays at a context, in words; nothing finer than the noise."""
    spent, noise = result["milliseconds"], result["noise"]
    ratios = {name: spent[name] / spent["MLA"] for name in ("MHA", "GQA-8", "GQA-4")}
    slower = [name for name, ratio in ratios.items() if ratio < 1 / noise]
    return f"slower than {', '.join(slower)}" if slower else "not slower than any"


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--contexts", type=int, nargs="+", default=[512, 2048, 8192, 32768])
    parser.add_argument(
        "--precision", nargs="+", choices=("bf16", "fp32"), default=["bf16", "fp32"]
    )
    parser.add_argument(
        "--quick", action="store_true", help="two short contexts, few rounds: does it run?"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.contexts, given.precision = 4, [64, 512], ["fp32"]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    about = circumstances(("tumen", "torch", "numpy"))
    rows = [
        measure(length, precision, given.rounds)
        for precision in given.precision
        for length in given.contexts
    ]
    result = about | {
        "threads": 1,
        "width": WIDTH,
        "kinds": weights_and_bytes(),
        "saving": saving(),
        "rows": rows,
    }
    if given.json:
        print(json.dumps(result))
    else:
        show(result)
    if not given.quick or given.out:
        write("mla_pays", result, given.out)


def show(result: dict[str, Any]) -> None:
    """The result as Markdown."""
    print(headline(result), "\n")
    head = ("kind", "heads", "weights", "of the budget", "cache bytes a token and layer, 16 bits")
    held = result["kinds"]
    print(
        table(
            head,
            [
                (
                    k["kind"],
                    k["heads"],
                    f"{k['weights']:,}",
                    f"{k['of_budget']:.1%}",
                    f"{k['cache_bytes']:,}",
                )
                for k in held
            ],
        )
    )
    names = ("MLA", "MLA expanded", "MHA", "GQA-8", "GQA-4")
    print("\nCPU milliseconds a token, one layer, one thread; what of the others over MLA\n")
    print(
        table(
            ("context", "precision", *names, "two equals", "MHA", "GQA-8", "GQA-4", "MLA is"),
            [
                (
                    f"{row['context']:,}",
                    row["precision"],
                    *(f"{row['milliseconds'][name]:.2f}" for name in names),
                    f"{row['noise']:.3f}x",
                    *(
                        said(row["milliseconds"][name] / row["milliseconds"]["MLA"], row["noise"])
                        for name in names[2:]
                    ),
                    verdict(row),
                )
                for row in result["rows"]
            ],
        )
    )
    part = result["saving"]
    print(
        "\nThe 93.3 % of the DeepSeek-V2 report has two parts: "
        f"{part['v2_bytes']:,} bytes a token against "
        f"{part['dense_67b_bytes']:,} of DeepSeek 67B is "
        f"{part['from_mla']:.1%}, from MLA (and fewer layers); "
        "6 bits an element instead of 16 make it "
        f"{part['from_mla_and_6_bits']:.1%}."
    )


if __name__ == "__main__":
    main()

"""How long a full search takes.

And what the best known analytical peer needs for the same question.

    python benchmarks/plan_search.py [--calculon FOLDER --python PYTHON] [--limit SECONDS]
        [--out FILE]

FOLDER is a checkout of calculon (github.com/calculon-ai/calculon), PYTHON an interpreter with
psutil and pandas. It is asked for the best execution of GPT-3 175B on 1,024 A100s; a question not
finished within the limit is reported as such.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tumen.core.shape import Experts, Gqa, Mla, Shape
from tumen.plan import Workload
from tumen.plan.facts import cards
from tumen.plan.search import search

GPT3 = Shape(
    hidden_size=12288,
    num_hidden_layers=96,
    intermediate_size=49152,
    attention=Gqa(num_attention_heads=96, num_key_value_heads=96, head_dim=128),
    vocab_size=51200,
    gated=False,
    biases=True,
    n_positions=2048,
)
V3 = Shape(
    hidden_size=7168,
    num_hidden_layers=61,
    intermediate_size=18432,
    attention=Mla(num_attention_heads=128, kv_lora_rank=512, q_lora_rank=1536),
    experts=Experts(
        n_routed_experts=256,
        num_experts_per_tok=8,
        moe_intermediate_size=2048,
        n_shared_experts=1,
        first_k_dense_replace=3,
        topk_group=4,
    ),
    vocab_size=129280,
    tie_word_embeddings=False,
    num_nextn_predict_layers=1,
)
LIMITS_SECONDS = {1024: 2.0, 4096: 5.0, 16384: 10.0}


def ours(rounds: int = 3) -> list[dict[str, object]]:
    """The median of a few full searches of each question."""
    found = []
    for name, shape, seq, batch, card in (
        ("175B dense", GPT3, 2048, 4096, "a100"),
        ("671B MoE", V3, 4096, 15360, "h800"),
    ):
        for count, limit in LIMITS_SECONDS.items():
            times = []
            for _ in range(rounds):
                start = time.perf_counter()
                best = search(Workload(shape, seq, batch, 1e12, name=name), cards()[card], count)
                times.append(time.perf_counter() - start)
            seconds = sorted(times)[len(times) // 2]
            facts = {
                "question": name,
                "cards": count,
                "seconds": round(seconds, 3),
                "limit_seconds": limit,
            }
            found.append(
                facts | {"layouts": best.considered, "step_seconds": round(best.seconds[0], 3)}
            )
            print(
                f"{name:12s} {count:6d} x {card}: {seconds:6.3f} s of {limit:g} s allowed, "
                f"{best.considered:,} layouts",
                flush=True,
            )
    return found


def calculon(folder: Path, python: str, limit: float) -> dict[str, object]:
    """Calculon's full search of the first question, stopped at the limit."""
    with tempfile.TemporaryDirectory() as work:
        command = [
            python,
            str(folder / "bin/calculon"),
            "llm-optimal-execution",
            str(folder / "models/gpt3-175B.json"),
        ]
        command += [
            "1024",
            "4096",
            "float16",
            str(folder / "systems/a100_80g.json"),
            str(Path(work) / "out.json"),
        ]
        command += ["-c", "2", "-m"]
        start = time.perf_counter()
        child = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": str(folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _, errors = child.communicate(timeout=limit)
            last = (errors.strip().splitlines() or ["?"])[-1]
            state = "finished" if child.returncode == 0 else f"failed: {last}"
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # its workers as well
            child.communicate()
            state = "not finished"
        seconds = time.perf_counter() - start
    print(f"calculon, 175B dense on 1,024: {state} after {seconds:.0f} s")
    return {"question": "175B dense", "cards": 1024, "state": state, "seconds": round(seconds, 1)}


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calculon", type=Path)
    parser.add_argument(
        "--python", default=sys.executable, help="an interpreter with psutil and pandas"
    )
    parser.add_argument("--limit", type=float, default=120.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, object] = {
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "ours": ours(),
    }
    if options.calculon:
        result["calculon"] = calculon(options.calculon, options.python, options.limit)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

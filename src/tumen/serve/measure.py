"""Trials of this machine: small synthetic models, each measured through the runner itself, in its child process.

Two thirds of a minute a thread count: tiny models tell overheads apart, a cached and a large one of every kind the rates.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tumen.core.events import Events
from tumen.core.shape import Experts, Gqa, Mla, Shape
from tumen.fit import Footprint, Trial, cache_size
from tumen.fit import of_shape as footprint_of_shape
from tumen.language import HOME
from tumen.serve.runners.child_process import ChildProcess
from tumen.serve.runners.device_runner import DeviceRunner
from tumen.serve.synthetic import BEGIN, write_synthetic_gguf

KINDS = (
    "Q8_0",
    "Q4_0",
    "BF16",
    "Q4_1",
    "Q4_K",
    "Q6_K",
)  # ours, and the commonest of files from elsewhere
PROMPT, TOKENS = 24, 32
ROUNDS, SECONDS = (
    6,
    1.0,
)  # of a trial, at least: the best round counts, and other work on the machine comes in bursts
FAR_CACHES = 3  # a model is far when it is this many times larger than the cache
LEAST_FAR_BYTES, MOST_FAR_BYTES = 48e6, 400e6
WORD = 300  # an ordinary token of a synthetic vocabulary


def shape_of(
    width: int,
    layers: int,
    inner: int,
    vocab: int = 1024,
    experts: Experts | None = None,
    mla: bool = False,
) -> Shape:
    """A shape of the family, heads of 64."""
    heads = max(1, width // 64)
    latent = Mla(
        num_attention_heads=heads,
        kv_lora_rank=64,
        q_lora_rank=128,
        qk_nope_head_dim=48,
        qk_rope_head_dim=16,
        v_head_dim=64,
    )
    attention = (
        latent
        if mla
        else Gqa(num_attention_heads=heads, num_key_value_heads=max(1, heads // 2), head_dim=64)
    )
    return Shape(
        hidden_size=width,
        num_hidden_layers=layers,
        intermediate_size=inner,
        vocab_size=vocab,
        attention=attention,
        experts=experts,
    )


def plan_of_trials(kinds: tuple[str, ...] = KINDS) -> Iterator[tuple[Shape, str, int]]:
    """(shape, kind, context) of every trial."""
    mixture = Experts(
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_shared_experts=1,
        moe_intermediate_size=128,
        first_k_dense_replace=1,
    )
    yield shape_of(64, 2, 128), "int8", 512
    yield shape_of(64, 24, 128), "int8", 512
    yield shape_of(64, 2, 128, vocab=65_536), "int8", 512
    yield shape_of(512, 2, 512), "int8", 2048
    yield shape_of(128, 12, 256, mla=True), "int8", 512
    for top_k in (1, 6):
        yield (
            shape_of(
                128,
                8,
                256,
                experts=mixture.model_copy(update={"num_experts_per_tok": top_k}),
                mla=True,
            ),
            "int8",
            512,
        )
    for kind in kinds:
        yield shape_of(256, 4, 768), kind, 512
        yield shape_of(512, 3, 1536), kind, 512
        yield far_shape(kind), kind, 512


def far_shape(kind: str) -> Shape:
    """A shape whose weights of a kind are too many for this machine's cache."""
    wanted = min(max(FAR_CACHES * cache_size(), LEAST_FAR_BYTES), MOST_FAR_BYTES)
    one = footprint_of_shape(shape_of(1024, 1, 3072), kind, "one layer").read_bytes
    return shape_of(1024, max(2, round(wanted / one)), 3072)


def measure_machine(threads: tuple[int, ...], kinds: tuple[str, ...] = KINDS) -> Iterator[Trial]:
    """Measure this machine.

    Raises:
        RunnerError: the runner does not start, or the package `gguf` is missing.
    """
    with tempfile.TemporaryDirectory(prefix="tumen-trial-") as folder:
        for number, (shape, kind, context) in enumerate(plan_of_trials(kinds)):
            path = write_synthetic_gguf(Path(folder) / f"{number}.gguf", shape, kind)
            model = footprint_of_shape(
                shape, kind, f"{kind}, width {shape.hidden_size}, {shape.num_hidden_layers} layers"
            )
            for count in threads:
                yield measure_model(path, model, count, context)
            path.unlink()


def measure_model(
    path: Path,
    model: Footprint,
    threads: int,
    context: int,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> Trial:
    """Measure one model file; the fastest round counts, as other work on the machine only ever adds.

    Raises:
        RunnerError: the runner does not start or dies.
    """
    process = ChildProcess(model.name, path, threads, context)
    process.start()
    with DeviceRunner(process, HOME, Events(None)) as runner:
        pid, prompt = runner.pid or 0, [BEGIN, *(WORD + n for n in range(PROMPT - 1))]
        spent, tokens, prompts, wall = cpu_seconds(pid), list[float](), list[float](), 0.0
        while len(tokens) < rounds or wall < seconds:
            done = runner.complete(prompt, max_tokens=TOKENS, logprobs=False)
            tokens.append(done.seconds.generation / done.completion_tokens)
            prompts.append(done.seconds.prompt)
            wall += done.seconds.total
        spent = cpu_seconds(pid) - spent
        longest = [BEGIN, *[WORD] * (context - TOKENS)]
        runner.complete(longest, max_tokens=4, logprobs=False)
        peak = peak_bytes(pid)
    return Trial(
        model, threads, context, PROMPT, min(tokens), min(prompts), peak, spent / wall / threads
    )


def cpu_seconds(pid: int) -> float:
    """Processor seconds a process has used, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> float:
    """Most memory a process has had at once."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(1024.0 * int(row.split()[1]) for row in rows if row.startswith("VmHWM"))

"""Trials of this machine: small synthetic models, each measured through the runner itself.

Takes two thirds of a minute for each number of threads. Tiny models tell overheads apart; a cached
and a large model of every kind give the rates.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tumen.core.events import Events
from tumen.core.shape import Experts, Gqa, Mla, Shape
from tumen.fit import Footprint, Trial, cache_size
from tumen.fit import of_shape as footprint_of_shape
from tumen.language import HOME
from tumen.serve.runners.child_process import ChildProcess
from tumen.serve.runners.device_runner import DeviceRunner
from tumen.serve.synthetic import BEGIN, write_synthetic_gguf

# What `tumen run` writes, and the commonest kinds of files from elsewhere.
KINDS = ("Q8_0", "Q4_0", "BF16", "Q4_1", "Q4_K", "Q6_K")
PROMPT = 24  # tokens of a prompt
TOKENS = 32  # that are written after it
# Of a trial, at least: the best round counts, and other work on the machine comes in bursts.
ROUNDS = 6
SECONDS = 1.0
FAR_CACHES = 3  # a model is far when it is this many times larger than the cache
LEAST_FAR_BYTES = 48e6
MOST_FAR_BYTES = 400e6
WORD = 300  # an ordinary token of a synthetic vocabulary
CONTEXT = 512  # tokens, of most trials


@dataclass(frozen=True)
class Rounds:
    """What the rounds of a trial measured, in seconds.

    Attributes:
        token: of one written token, in the fastest round.
        prompt: of the prompt, in the fastest round.
        total: of all rounds together.
        cpu: of the processor, all threads and rounds together.
    """

    token: float
    prompt: float
    total: float
    cpu: float


def shape_of(
    width: int,
    layers: int,
    inner: int,
    vocab: int = 1024,
    experts: Experts | None = None,
    mla: bool = False,
) -> Shape:
    """Return a shape of the family, with heads of 64.

    Args:
        width: hidden size.
        layers: number of layers.
        inner: intermediate size of a dense layer.
        vocab: number of tokens.
        experts: None for dense layers.
        mla: whether attention is latent, else with grouped queries.
    """
    # Narrower than a head would leave none.
    heads = max(1, width // 64)
    attention: Mla | Gqa
    if mla:
        attention = Mla(
            num_attention_heads=heads,
            kv_lora_rank=64,
            q_lora_rank=128,
            qk_nope_head_dim=48,
            qk_rope_head_dim=16,
            v_head_dim=64,
        )
    else:
        key_heads = max(1, heads // 2)
        attention = Gqa(num_attention_heads=heads, num_key_value_heads=key_heads, head_dim=64)
    return Shape(
        hidden_size=width,
        num_hidden_layers=layers,
        intermediate_size=inner,
        vocab_size=vocab,
        attention=attention,
        experts=experts,
    )


def plan_of_trials(kinds: tuple[str, ...] = KINDS) -> Iterator[tuple[Shape, str, int]]:
    """Yield (shape, kind, context) of every trial.

    Args:
        kinds: of matrices whose rates are measured.
    """
    # One property after the other: layers, vocabulary, context, latent attention, experts.
    yield shape_of(64, 2, 128), "int8", CONTEXT
    yield shape_of(64, 24, 128), "int8", CONTEXT
    yield shape_of(64, 2, 128, vocab=65_536), "int8", CONTEXT
    yield shape_of(512, 2, 512), "int8", 2048
    yield shape_of(128, 12, 256, mla=True), "int8", CONTEXT
    for top_k in (1, 6):
        experts = Experts(
            n_routed_experts=8,
            num_experts_per_tok=top_k,
            n_shared_experts=1,
            moe_intermediate_size=128,
            first_k_dense_replace=1,
        )
        yield shape_of(128, 8, 256, experts=experts, mla=True), "int8", CONTEXT
    # The rates of a kind: from the cache, and from memory.
    for kind in kinds:
        yield shape_of(256, 4, 768), kind, CONTEXT
        yield shape_of(512, 3, 1536), kind, CONTEXT
        yield far_shape(kind), kind, CONTEXT


def far_shape(kind: str) -> Shape:
    """Return a shape whose weights of a kind are too many for this machine's cache."""
    wanted = max(FAR_CACHES * cache_size(), LEAST_FAR_BYTES)
    wanted = min(wanted, MOST_FAR_BYTES)
    one_layer = shape_of(1024, 1, 3072)
    layer_bytes = footprint_of_shape(one_layer, kind, "one layer").read_bytes
    layers = max(2, round(wanted / layer_bytes))
    return shape_of(1024, layers, 3072)


def measure_machine(threads: tuple[int, ...], kinds: tuple[str, ...] = KINDS) -> Iterator[Trial]:
    """Yield the trials of this machine, as they are measured.

    Args:
        threads: numbers of threads; each model is measured with each.
        kinds: see `plan_of_trials`.

    Raises:
        RunnerError: the runner does not start, or the package `gguf` is missing.
    """
    with tempfile.TemporaryDirectory(prefix="tumen-trial-") as folder:
        for number, (shape, kind, context) in enumerate(plan_of_trials(kinds)):
            path = write_synthetic_gguf(Path(folder) / f"{number}.gguf", shape, kind)
            name = f"{kind}, width {shape.hidden_size}, {shape.num_hidden_layers} layers"
            model = footprint_of_shape(shape, kind, name)
            for count in threads:
                yield measure_model(path, model, count, context)
            # One file at a time: all of them would fill a small disk.
            path.unlink()


def measure_model(
    path: Path,
    model: Footprint,
    threads: int,
    context: int,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> Trial:
    """Measure one model file.

    The fastest round counts, as other work on the machine only ever adds.

    Args:
        path: of the file.
        model: what is in it.
        threads: of the runner.
        context: tokens that the runner has room for.
        rounds: at least so many.
        seconds: at least so long, all rounds together.

    Raises:
        RunnerError: the runner does not start or dies.
    """
    process = ChildProcess(model.name, path, threads, context)
    process.start()
    with DeviceRunner(process, HOME, Events(None)) as runner:
        pid = runner.pid or 0
        measured = _measure_rounds(runner, pid, rounds, seconds)
        # Memory peaks where the context is full.
        longest = [BEGIN, *[WORD] * (context - TOKENS)]
        runner.complete(longest, max_tokens=4, logprobs=False)
        peak = peak_bytes(pid)
    busy = measured.cpu / measured.total / threads
    return Trial(model, threads, context, PROMPT, measured.token, measured.prompt, peak, busy)


def _measure_rounds(runner: DeviceRunner, pid: int, rounds: int, seconds: float) -> Rounds:
    """Let a runner answer the same prompt again and again."""
    words = [WORD + number for number in range(PROMPT - 1)]
    prompt = [BEGIN, *words]
    tokens: list[float] = []
    prompts: list[float] = []
    total = 0.0
    before = cpu_seconds(pid)
    while len(tokens) < rounds or total < seconds:
        done = runner.complete(prompt, max_tokens=TOKENS, logprobs=False)
        tokens.append(done.seconds.generation / done.completion_tokens)
        prompts.append(done.seconds.prompt)
        total += done.seconds.total
    return Rounds(min(tokens), min(prompts), total, cpu_seconds(pid) - before)


def cpu_seconds(pid: int) -> float:
    """Return the processor seconds that a process has used, of all its threads (proc(5))."""
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text.rpartition(")")[2].split()  # a name in brackets may hold spaces
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> float:
    """Return the most memory that a process has had at once (proc(5), VmHWM)."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    kibibytes = next(int(row.split()[1]) for row in rows if row.startswith("VmHWM"))
    return 1024.0 * kibibytes

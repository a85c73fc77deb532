"""Profile a few steps with torch's profiler: a trace for a browser and a page for people.

In the forward pass an operator belongs to the innermost scope around it (hooks on the modules, only
while profiling). In the backward pass it belongs where the forward operator with autograd's same
sequence number was. Time without an operator belongs to the host: Python, waiting, the profiler.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

from tumen.core import units
from tumen.core.artifact import write_text
from tumen.core.errors import disk
from tumen.core.shape import Shape
from tumen.data import Loader, read_shards
from tumen.model import FeedForward, MixtureOfExperts, Transformer
from tumen.recipe import Train
from tumen.train.loop import check_vocab, prepare_torch, trainer_of
from tumen.train.metrics import measured_peak, real_tokens, step_flops
from tumen.train.optimizer import rate_at
from tumen.train.single_process import Trainer
from tumen.train.world import World, join, name_of, type_of

WARM = 2  # steps that are not counted
STEPS = 3  # steps that are
TOP = 12  # operators on the page
SCOPE = "tumen: "
GROUPS = {
    "attention": "scores, softmax, rotary turns, norms of latents",
    "experts": "router, queues, routed experts",
    "dense matmuls": "attention's projections, dense and shared feed-forwards",
    "head and loss": "logits and cross-entropy of what is learned",
    "norms and elementwise": "norms, residuals, activations, embedding, masks",
    "optimizer": "update, clipping, sums of gradients",
    "communication": "between ranks",
    "data loading": "packing the next rows",
    "other": "backward, of a forward operator that is not known",
    "host": "Python, waiting, the profiler itself",
}
SENT = ("c10d", "gloo:", "nccl:", "record_param_comms", "_c10d_functional", "FSDP::")
ROOT = SCOPE + "step"
LEARN = SCOPE + "head and loss"  # in `learn`, operators outside of all modules belong to the loss
BACKWARD = "autograd::engine::evaluate_function"


@dataclass(frozen=True)
class Op:
    """One operator of one group over all profiled steps."""

    name: str
    group: str
    seconds: float
    calls: int


def profile_steps(
    section: Train, shape: Shape, dataset: Path, out: Path, *, seed: int = 0, tier: str = "tier"
) -> str:
    """Profile a few steps with fresh weights.

    Writes `trace.json` (Chrome's format, which Perfetto reads) and `profile.md` into `out`. No
    checkpoint of a run is read or written. Speed and utilisation are measured first, on steps as in
    training; then the same steps are profiled with uncompiled blocks, as a compiled block has no
    parts to tell apart.

    Args:
        section: as `fit`.
        shape: as `fit`.
        dataset: as `fit`.
        out: a folder; made if missing.
        seed: of weights and order.
        tier: name for the page's title.

    Returns:
        The page, on every rank; rank 0 alone writes.

    Raises:
        PlanError, TrainError, ArtifactError, DiskError: as `fit`.
    """
    world = join(section.mesh.ranks)
    prepare_torch(section)
    shards = read_shards(dataset / "train")
    check_vocab(int(shards.tokens.max()), shape)

    trainer = trainer_of(section, shape, world, seed)
    rank = trainer.data_rank
    ranks = trainer.data_ranks
    loader = Loader(shards, section.batch_size, section.seq_len, seed, rank, ranks)
    _steps(trainer, loader, section, WARM)
    seconds, real = _timed(trainer, loader, section)
    peak = sum(world.gather(measured_peak(section, world.device)))
    # Scopes are inside blocks, so the profiled blocks must not be compiled.
    if section.compile:
        del trainer
        uncompiled = section.model_copy(update={"compile": False})
        trainer = trainer_of(uncompiled, shape, world, seed)
        _steps(trainer, loader, section, WARM)
    with scopes(networks_of(trainer)), profiler(activities=_activities(world.device)) as seen:
        _steps(trainer, loader, section, STEPS)
        _wait(world.device)
    step, ops = attributed(seen.events() or [], world.device)
    speed = Speed(seconds, real, step_flops(section, shape), peak)
    page = page_of(tier, section, world, speed, step, ops)
    with world.rank_zero() as mine:
        if mine:
            _write(out, page, seen)
    return page


def _write(out: Path, page: str, seen: profiler) -> None:
    with disk(out):
        out.mkdir(parents=True, exist_ok=True)
        seen.export_chrome_trace(str(out / "trace.json"))
    write_text(out / "profile.md", page)


@dataclass(frozen=True)
class Speed:
    """A step as in training.

    Attributes:
        seconds: of one step.
        real_tokens: of one step, without padding.
        flops: model FLOPs of one step.
        peak: measured FLOPs a second of all ranks together.
    """

    seconds: float
    real_tokens: float
    flops: int
    peak: float


def _timed(trainer: Trainer, loader: Loader, section: Train) -> tuple[float, float]:
    """Mean seconds and real tokens of a step, without the profiler."""
    start = time.perf_counter()
    real = _steps(trainer, loader, section, STEPS)
    return (time.perf_counter() - start) / STEPS, real / STEPS


def _steps(trainer: Trainer, loader: Loader, section: Train, count: int) -> int:
    """Train `count` steps inside scopes, which cost nothing unprofiled; return real tokens."""
    real = 0
    for _ in range(count):
        with record_function(ROOT):
            with record_function(SCOPE + "data loading"):
                batch = next(loader)
            with record_function(LEARN):
                trainer.learn(batch)
            with record_function(SCOPE + "optimizer"):
                trainer.step(rate_at(section, 0))
            real += real_tokens(batch)
    return real


def _activities(device: torch.device) -> list[ProfilerActivity]:
    gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []  # not run here
    return [ProfilerActivity.CPU, *gpu]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":  # not run here
        torch.cuda.synchronize()


def networks_of(trainer: Any) -> list[Transformer]:
    """The networks of a trainer: one, or one for each pipeline stage."""
    found: list[Transformer] = getattr(trainer, "networks", None) or [trainer.network]
    return found


def scoped(network: Transformer) -> Iterator[tuple[nn.Module, str]]:
    """Modules and the group of the operators in them, but for operators in inner modules."""
    yield network, "norms and elementwise"
    for block in network.every_block():
        yield block.attention, "attention"
    for name, module in network.named_modules():
        if isinstance(module, MixtureOfExperts):
            yield module, "experts"
        elif isinstance(module, FeedForward):
            yield module, "norms and elementwise"
        elif isinstance(module, nn.Linear) and not name.endswith(".router"):
            yield module, "dense matmuls"


@contextmanager
def scopes(networks: Iterable[Transformer]) -> Iterator[None]:
    """Run the modules' forward passes in named scopes inside this context."""
    hooks = []
    entered = list[record_function]()

    def enter(group: str) -> Any:
        def hook(*_: Any) -> None:
            entered.append(record_function(SCOPE + group))
            entered[-1].__enter__()

        return hook

    def leave(*_: Any) -> None:
        entered.pop().__exit__(None, None, None)

    for network in networks:
        for module, group in scoped(network):
            hooks.append(module.register_forward_pre_hook(enter(group)))
            hooks.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def attributed(events: Iterable[Any], device: torch.device) -> tuple[float, list[Op]]:
    """Attribute the time of the profiled steps to operators.

    Returns:
        Seconds of one step, and the operators of all profiled steps, the longest first. Their sum
        is that of the steps.
    """
    events = list(events)
    roots = [event for event in events if event.name == ROOT]
    threads = {event.thread for event in roots}
    ours = [event for event in events if event.thread in threads and _root(event)]
    on_device = device.type == "cuda"
    ops = _ops(ours, "self_device_time_total" if on_device else "self_cpu_time_total")
    whole = sum(event.time_range.elapsed_us() for event in roots) / 1e6
    idle = max(0.0, whole - sum(op.seconds for op in ops))
    if on_device and idle:
        ops.append(Op("(nothing on the device)", "host", idle, 0))
    ops.sort(key=lambda op: -op.seconds)
    return whole / max(1, len(roots)), ops


def _ops(events: list[Any], clock: str) -> list[Op]:
    """Sum the time of events by operator and group; `clock` is the profiler's field to sum."""
    forward = _forward_groups(events)
    seconds = defaultdict[tuple[str, str], float](float)
    calls = Counter[tuple[str, str]]()
    for event in events:
        key = (_name(event), _group(event, forward))
        seconds[key] += getattr(event, clock) / 1e6
        calls[key] += 1
    ops = []
    for (name, group), taken in seconds.items():
        if taken:
            ops.append(Op(name, group, taken, calls[name, group]))
    return ops


def _forward_groups(events: list[Any]) -> dict[int, str]:
    """Groups of forward operators by autograd's sequence number."""
    found = {}
    for event in events:
        group = _scope(event) if event.sequence_nr >= 0 else None
        if group:
            found[event.sequence_nr] = group
    return found


def _chain(event: Any) -> Iterator[Any]:
    """An event and the events around it, the innermost first."""
    while event is not None:
        yield event
        event = event.cpu_parent


def _root(event: Any) -> bool:
    return any(one.name == ROOT for one in _chain(event))


def _is_backward(event: Any) -> bool:
    return any(one.name.startswith(BACKWARD) for one in _chain(event))


def _scope(event: Any) -> str | None:
    """The innermost group around a forward operator; None if backward or outside of groups."""
    for one in _chain(event):
        if one.name.startswith(BACKWARD):
            return None
        if one.name.startswith(SCOPE) and one.name != ROOT:
            return str(one.name.removeprefix(SCOPE))
    return None


def _group(event: Any, forward: dict[int, str]) -> str:
    """The group that an event's own time belongs to."""
    if event.name.startswith(SCOPE):
        # Data loading is numpy, which has no operators of its own.
        inside = event.name.removeprefix(SCOPE)
        return inside if inside == "data loading" else "host"
    if any(one.name.startswith(SENT) for one in _chain(event)):
        return "communication"
    group = _scope(event)
    if group or not _is_backward(event):
        return group or "host"
    if any("AccumulateGrad" in one.name for one in _chain(event)):
        return "optimizer"
    numbered = (forward[one.sequence_nr] for one in _chain(event) if one.sequence_nr in forward)
    return next(numbered, "other")


def _name(event: Any) -> str:
    """An operator's name.

    Autograd's bookkeeping has the name of the node it runs; a scope's own time is Python's.
    """
    if event.name.startswith(SCOPE):
        return "(Python)"
    return str(event.name.removeprefix(f"{BACKWARD}: "))


def page_of(
    tier: str, section: Train, world: World, speed: Speed, step: float, ops: list[Op]
) -> str:
    """One page of Markdown."""
    whole = sum(op.seconds for op in ops) or 1.0
    lines = [
        f"# Where a step of {tier} goes",
        "",
        _setting(section, world),
        "",
        _as_trained(section, speed),
        "",
        f"Profiled: {units.show_seconds(step)} a step, blocks not compiled; "
        "shares are of these steps.",
        "",
        "| group | share | ms a step | what |",
        "| --- | ---: | ---: | --- |",
        *_group_rows(ops, whole, step),
        "",
        "| operator | group | share | calls a step |",
        "| --- | --- | ---: | ---: |",
    ]
    for op in ops[:TOP]:
        share = f"{op.seconds / whole:.1%}"
        lines.append(f"| `{op.name}` | {op.group} | {share} | {op.calls / STEPS:,.0f} |")
    return "\n".join(lines) + "\n"


def _setting(section: Train, world: World) -> str:
    """Batch, precision, ranks and versions in one line."""
    precision = name_of(type_of(section, world.device))
    return (
        f"{section.batch_size} rows of {section.seq_len} tokens, {precision}, "
        f"{world.size} rank(s) on {world.device.type}, "
        f"{torch.get_num_threads()} thread(s) each, torch {torch.__version__}; "
        "fresh weights, no teacher; seen from rank 0."
    )


def _as_trained(section: Train, speed: Speed) -> str:
    """Speed and utilisation in one line."""
    tokens = section.batch_size * section.seq_len
    real = speed.real_tokens / tokens
    mfu = speed.flops / speed.seconds / speed.peak
    return (
        f"As trained: {units.show_seconds(speed.seconds)} a step, "
        f"{tokens / speed.seconds:,.0f} tokens/s ({real:.0%} of them real, the rest is padding), "
        f"MFU {mfu:.1%} of the measured {speed.peak / 1e9:,.1f} GFLOP/s."
    )


def _group_rows(ops: list[Op], whole: float, step: float) -> list[str]:
    """Table rows of the groups that took time, the longest first."""
    taken: dict[str, float] = dict.fromkeys(GROUPS, 0)
    for op in ops:
        if op.group in taken:
            taken[op.group] += op.seconds
    rows = []
    for name, seconds in sorted(taken.items(), key=lambda item: -item[1]):
        if seconds:
            share = seconds / whole
            rows.append(f"| {name} | {share:.1%} | {1000 * step * share:,.2f} | {GROUPS[name]} |")
    return rows

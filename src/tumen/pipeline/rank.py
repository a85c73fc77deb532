"""What `tumen train` does in each rank: find the tier, stand by, train, report a fault."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tumen.cluster.engines import die_with_parent
from tumen.core.artifact import write_text
from tumen.core.errors import DiskError, InputError, LossError, PeerError
from tumen.core.events import Events
from tumen.core.extras import needs
from tumen.heartbeat import sender
from tumen.pipeline.ablation import FOLDER, variant_stages
from tumen.pipeline.folder import read_run_recipe
from tumen.pipeline.stages import find_training, stages
from tumen.pipeline.training.learn import learn, profile
from tumen.pipeline.training.tier import TrainingStage

MAX_LINE_BYTES = 1 << 20  # of the environment that a standby process receives


def train_rank(
    run: Path, tier: str, plan: Path | None, profile_folder: Path | None, standby: bool
) -> str:
    """Train one tier of a run as one rank, under torchrun's variables.

    The process ends with the engine's.

    Args:
        run: folder of the run, with its recipe.json.
        tier: name of a training stage.
        plan: a plan.json whose mesh replaces the recipe's.
        profile_folder: profile a few steps into this folder instead of training.
        standby: load everything, then wait for the environment on stdin.

    Returns:
        the report of the profile, or "".
    """
    die_with_parent()
    stage = training_stage(run, tier)
    if stage.tier.train.compile:  # read when torch is imported; this run's own cache
        cache = run / ".compiled"
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache.resolve()))
    if standby:
        stand_by()
    sender.current()  # from here on heartbeats are sent
    with faults_written():
        if profile_folder:
            return profile(run, stage, plan, profile_folder)
        events = RankEvents((run / tier).with_name("events.jsonl"))
        learn(run, stage, plan, events)
    return ""


def training_stage(run: Path, tier: str) -> TrainingStage:
    """Return the training stage of a run by name.

    Raises:
        InputError: the run has no such tier.
    """
    recipe = read_run_recipe(run)
    in_ablation = tier.startswith(f"{FOLDER}/")
    if in_ablation:
        known = variant_stages(recipe, run)
    else:
        known = stages(recipe)
    return find_training(known, tier)


def stand_by() -> None:
    """Import what training needs, then read the environment from stdin.

    A rank that stands by starts without the time of imports.

    The process ends when stdin ends without a line.

    Raises:
        InputError: the line is not an environment.
    """
    with needs("training"):
        import tumen.shrink  # noqa: F401
        from tumen.train import warm
    warm()
    line = sys.stdin.readline(MAX_LINE_BYTES)
    if not line.strip():
        raise SystemExit(0)
    try:
        os.environ.update(json.loads(line))
    except (ValueError, TypeError, AttributeError):
        raise InputError(
            "standby: the line on stdin is not a JSON object of strings, an environment"
        ) from None


def end_rank() -> None:
    """End the process of a rank, without Python's own shutdown, if there are several.

    A thread of torch that asks for the interpreter during that shutdown is unwound by it, and C++
    then aborts the process ("terminate called without an active exception"): a finished training
    counted as failed, twice in our own tests.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class RankEvents(Events):
    """Events of a rank; a damaged checkpoint is also written as a fault, for the watcher."""

    def emit(self, event: str, **facts: Any) -> None:
        """Append one event."""
        super().emit(event, **facts)
        if event == "checkpoint_damaged":
            write_fault("checkpoint", facts["error"], None)


@contextmanager
def faults_written() -> Iterator[None]:
    """Write the error that ends this rank as a fault, for the watcher.

    The loss of another rank is not this rank's fault and is not written.
    """
    try:
        yield
    except PeerError:
        raise
    except LossError as error:
        write_fault(error.kind, str(error), error.step)
        raise
    except DiskError as error:
        write_fault("disk", str(error), None)
        raise
    except Exception as error:
        write_fault("other", str(error) or type(error).__name__, None)
        raise


def write_fault(kind: str, why: str, step: int | None) -> None:
    """Write faults/RANK-ATTEMPT.json into the job's folder, if an agent has named one.

    Nothing is written on a full disk.

    Args:
        kind: of the fault, as the watcher knows it.
        why: one line for people; further lines are left out.
        step: counted from 0; default: the rank's newest.
    """
    job = os.environ.get("TUMEN_JOB")
    if not job:
        return
    own = sender.current()
    fault = {
        "kind": kind,
        "why": why.splitlines()[0],
        "step": own.step if step is None else step,
        "rank": own.rank,
    }
    with suppress(DiskError):
        path = Path(job) / "faults" / f"{own.rank}-{own.attempt}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(fault, ensure_ascii=False))

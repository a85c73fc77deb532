"""`tumen train RUN TIER`: what an engine starts. People use `tumen run`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tumen.core import artifact
from tumen.core.artifact import manifest_of, write_text
from tumen.core.errors import DiskError, InputError, LossError, PeerError, PlanError, TrainError
from tumen.core.events import Events
from tumen.heartbeat import sender
from tumen.pipeline import stages as chain
from tumen.recipe import Recipe, Train, mesh_of_plan, read_plan

MOST_LINE_BYTES = 1 << 20  # of what a process that stands by is told


def end_at_once() -> None:
    """End a rank whose work is done, without Python's own end.

    A thread of torch that asks for the interpreter while that ends is unwound by it, and C++ then aborts the process ("terminate
    called without an active exception"): a training that was done counted as failed, twice in our own tests.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def learn(
    run: Path, recipe: Recipe, stage: chain.Stage, plan: Path | None, profile: Path | None
) -> str:
    """Train a tier, in the way its recipe says; nothing where it is done already. Returns the profile that was asked for, or ""."""
    try:
        from tumen.data import Codec, require_same_vocabulary
        from tumen.shrink import distil, pruned
        from tumen.shrink.quantize import learn_grid
        from tumen.train import Method, fit, leave, profile_steps, shares_loss
        from tumen.train.weights import Adapter, start_from
    except ModuleNotFoundError as error:
        raise TrainError(
            f"training needs {error.name}, which is in the extra: pip install 'tumen[train]'"
        ) from None
    assert stage.settings is not None
    tier = stage.name
    settings, codec = stage.settings, Codec.load(run / "tokenizer")
    section = grown(meshed(settings.train, plan), os.environ.get("TUMEN_WORLD", ""))
    shape = settings.shape.model_copy(update={"vocab_size": codec.vocab})
    if profile:
        return profile_steps(section, shape, run / "dataset", profile, seed=stage.seed, tier=tier)
    digests = {parent: manifest_of(run / parent).digest for parent in stage.parents}
    if artifact.done(run / tier, "checkpoint", stage.inputs(digests)):
        return ""
    common: dict[str, Any] = {
        "seed": stage.seed,
        "inputs": stage.inputs(digests),
        "made_from": list(digests.values()),
        "events": Told((run / tier).with_name("events.jsonl")),
    }
    if settings.init_from:
        digest = chain.start_digest(tier, settings.init_from.path)
        common["made_from"] += [digest]
        rows = None
        if codec.vocabulary:
            require_same_vocabulary(codec.vocabulary, Path(settings.init_from.path))
            rows = codec.vocabulary.rows
        common["start"] = start_from(
            Path(settings.init_from.path), shape, settings.init_from.layers, rows
        )
        if settings.init_from.tune == "lora":
            base = settings.init_from.model_copy(
                update={"path": str(Path(settings.init_from.path).resolve())}
            )
            common["adapter"] = Adapter(start=base, digest=digest, rows=rows)
    if settings.prune:
        common["start"] = pruned(run / settings.prune, shape, run / "dataset", section)
    if stage.name.endswith("-qat"):
        trained, grid = (run / parent for parent in stage.parents[:2])
        learn_grid(
            section, settings.quantize.teach, trained, grid, run / "dataset", run / tier, **common
        )
    elif settings.distil:
        teacher = run / settings.distil.teacher
        distil(section, shape, settings.distil, teacher, run / "dataset", run / tier, **common)
    else:
        method = Method(
            distil=shares_loss(run / "dataset", shape.vocab_size),
            start=common.pop("start", None),
            adapter=common.pop("adapter", None),
        )
        fit(section, shape, run / "dataset", run / tier, **common, method=method)
    leave()
    return ""


def meshed(section: Train, plan: Path | None) -> Train:
    """The section with the mesh of a plan, where there is one.

    Raises:
        PlanError: no plan, or one for another batch.
    """
    if plan is None:
        return section
    mesh = mesh_of_plan(read_plan(plan), str(plan), section.batch_size, section.seq_len)
    return section.model_copy(update={"mesh": mesh})


def grown(section: Train, world: str) -> Train:
    """The section with as many data-parallel ranks as `world` ranks allow; "" leaves it.

    Raises:
        PlanError: the mesh does not grow or shrink to that.
    """
    if not world:
        return section
    if not world.isdigit():
        raise PlanError(f"TUMEN_WORLD is {world[:40]!r}, no number of ranks")
    if int(world) == section.mesh.ranks:
        return section
    return section.model_copy(update={"mesh": section.mesh.over(int(world), section.batch_size)})


def stand_by() -> None:
    """Load what training needs, then wait to be told an environment: a start that costs no imports. No line: end.

    Raises:
        InputError: what came is no environment.
    """
    import tumen.shrink  # noqa: F401
    from tumen.train import warm

    warm()
    line = sys.stdin.readline(MOST_LINE_BYTES)
    if not line.strip():
        raise SystemExit(0)
    try:
        told = json.loads(line)
        os.environ.update(told)
    except (ValueError, TypeError, AttributeError):
        raise InputError(
            "standby: the line on stdin is no JSON object of texts, an environment"
        ) from None


class Told(Events):
    """Events; a damaged checkpoint that was passed over is also told to those who watch."""

    def emit(self, event: str, **facts: Any) -> None:
        super().emit(event, **facts)
        if event == "checkpoint_damaged":
            tell_fault("checkpoint", facts["error"], None)


@contextmanager
def told_why() -> Iterator[None]:
    """A rank that ends with an error leaves the reason for those who watch; that another one is gone is none."""
    try:
        yield
    except PeerError:
        raise
    except LossError as error:
        tell_fault(error.kind, str(error), error.step)
        raise
    except DiskError as error:
        tell_fault("disk", str(error), None)
        raise
    except Exception as error:
        tell_fault("other", str(error) or type(error).__name__, None)
        raise


def tell_fault(kind: str, why: str, step: int | None) -> None:
    """Write faults/RANK-ATTEMPT.json into the job's folder, where an agent says which that is; a full disk may keep it from us."""
    if job := os.environ.get("TUMEN_JOB"):
        own = sender.current()
        said = {
            "kind": kind,
            "why": why.splitlines()[0],
            "step": own.step if step is None else step,
            "rank": own.rank,
        }
        with suppress(DiskError):
            path = Path(job) / "faults" / f"{own.rank}-{own.attempt}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(said, ensure_ascii=False))

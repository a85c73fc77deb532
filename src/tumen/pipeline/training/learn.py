"""The training of one tier inside a rank: which loss, which weights to start from, over which mesh.

The rooms that need torch are imported inside the functions, so that the rest of pipeline works in a
light install.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumen.core.artifact import done, manifest_of
from tumen.core.errors import PlanError, TrainError
from tumen.core.events import Events
from tumen.core.extras import needs
from tumen.core.shape import EncoderShape, Shape
from tumen.data import Codec, require_same_vocabulary
from tumen.pipeline.preparation import DATASET, TOKENIZER
from tumen.pipeline.training.tier import QatStage, TrainingStage
from tumen.recipe import InitFrom, Mesh, Train, read_plan

if TYPE_CHECKING:
    from tumen.train import Making


def learn(run: Path, stage: TrainingStage, plan: Path | None, events: Events) -> None:
    """Train a tier in one rank; return at once if it is trained already.

    Args:
        run: folder of the run.
        stage: says what is trained.
        plan: a plan.json whose mesh replaces the recipe's.
        events: where steps are reported.

    Raises:
        MissingExtra: torch or safetensors is not installed.
        TumenError: see `tumen.train.fit`.
    """
    digests = {parent: manifest_of(run / parent).digest for parent in stage.parents}
    inputs = stage.inputs(digests)
    if done(run / stage.name, "checkpoint", inputs):
        return
    made_from = list(digests.values())
    if stage.start_digest:
        made_from.append(stage.start_digest)
    section = mesh_now(stage.tier.train, plan)
    with needs("training"):
        from tumen.train import Making, leave

        making = Making(stage.seed, inputs, made_from, events)
        if isinstance(stage, QatStage):
            _train_quantized(run, stage, section, making)
        else:
            _train(run, stage, section, making)
    leave()


def profile(run: Path, stage: TrainingStage, plan: Path | None, out: Path) -> str:
    """Profile a few steps of a tier into a folder; return the report."""
    section = mesh_now(stage.tier.train, plan)
    with needs("training"):
        from tumen.train import profile_steps
    shape = whole_shape(stage.tier.decoder, Codec.load(run / TOKENIZER))
    return profile_steps(section, shape, run / DATASET, out, seed=stage.seed, tier=stage.name)


def _train(run: Path, stage: TrainingStage, section: Train, making: Making) -> None:
    """Train a tier on the data, and on a teacher's distributions if the recipe names one."""
    from tumen.shrink import distil
    from tumen.train import Method, fit, shares_loss

    tier = stage.tier
    codec = Codec.load(run / TOKENIZER)
    dataset = run / DATASET
    if isinstance(tier.shape, EncoderShape):
        _train_encoder(run, stage, tier.shape, section, making)
        return
    shape = whole_shape(tier.shape, codec)
    out = run / stage.name
    initial = _initial_weights(run, stage, section, shape, codec)
    if tier.distil:
        teacher = run / tier.distil.teacher
        method = Method(**initial)
        distil(section, shape, tier.distil, teacher, dataset, out, making=making, method=method)
    else:
        method = Method(distil=shares_loss(dataset, shape.vocab_size), **initial)
        fit(section, shape, dataset, out, making=making, method=method)


def _train_encoder(
    run: Path, stage: TrainingStage, shape: EncoderShape, section: Train, making: Making
) -> None:
    """Train an encoder on the labels of the data."""
    from tumen.train import EncoderTask, Method, fit
    from tumen.train.weights import start_encoder_from

    codec = Codec.load(run / TOKENIZER)
    labels = codec.ontology.labels.counts
    whole = shape.model_copy(update={"vocab_size": codec.vocab, "labels": labels})
    start = stage.tier.init_from
    weights = None
    if start:
        path = Path(start.path)
        if codec.vocabulary is None or codec.vocabulary.rows is None:
            raise TrainError(
                f"{path}: an encoder starts with its own vocabulary: "
                "set tokenizer.init_from to it, or leave it out"
            )
        require_same_vocabulary(codec.vocabulary, path)
        rows = codec.vocabulary.rows
        weights = start_encoder_from(path, whole, start.layers, rows, stage.seed)
    task = EncoderTask(run / DATASET, codec, whole)
    method = Method(start=weights, encoder=task)
    fit(section, whole, run / DATASET, run / stage.name, making=making, method=method)


def _train_quantized(run: Path, stage: QatStage, section: Train, making: Making) -> None:
    """Train a trained tier on, with its weights rounded to their quantization types."""
    from tumen.shrink.quantize import train_quantized

    trained, types = stage.parents[:2]
    share = stage.tier.quantize.teach
    train_quantized(
        section, share, run / trained, run / types, run / DATASET, run / stage.name, making=making
    )


def whole_shape(shape: Shape, codec: Codec) -> Shape:
    """Return a tier's shape with the vocabulary of the run's tokenizer."""
    return shape.model_copy(update={"vocab_size": codec.vocab})


def _initial_weights(
    run: Path, stage: TrainingStage, section: Train, shape: Shape, codec: Codec
) -> dict[str, Any]:
    """Return the fields of `Method` about initial weights: pretrained, pruned or none."""
    tier = stage.tier
    if tier.init_from:
        return _pretrained(tier.init_from, stage.start_digest, shape, codec)
    if tier.prune:
        from tumen.shrink import pruned

        return {"start": pruned(run / tier.prune, shape, run / DATASET, section)}
    return {}


def _pretrained(start: InitFrom, digest: str, shape: Shape, codec: Codec) -> dict[str, Any]:
    """Return the weights of a pretrained model, and the adapter to train beside them if any."""
    from tumen.train.weights import Adapter, start_from

    path = Path(start.path)
    rows = None  # of the model's embedding; None: all
    if codec.vocabulary:
        require_same_vocabulary(codec.vocabulary, path)
        rows = codec.vocabulary.rows
    found: dict[str, Any] = {"start": start_from(path, shape, start.layers, rows)}
    if start.tune == "lora":
        base = start.model_copy(update={"path": str(path.resolve())})
        found["adapter"] = Adapter(start=base, digest=digest, rows=rows)
    return found


def mesh_now(section: Train, plan: Path | None) -> Train:
    """Return the train section with a plan's mesh, resized to the ranks that the watcher started.

    Raises:
        PlanError: see `with_plan_mesh` and `resized`.
    """
    return resized(with_plan_mesh(section, plan), os.environ.get("TUMEN_WORLD", ""))


def with_plan_mesh(section: Train, plan: Path | None) -> Train:
    """Return the train section with the mesh of a plan, if one is given.

    Raises:
        PlanError: the file is not a plan, or is one for another batch.
    """
    if plan is None:
        return section
    mesh = Mesh.of_plan(read_plan(plan), str(plan), section.batch_size, section.seq_len)
    return section.model_copy(update={"mesh": mesh})


def resized(section: Train, world: str) -> Train:
    """Return the train section resized to `world` ranks by its data-parallel ranks.

    "" changes nothing.

    Raises:
        PlanError: the mesh cannot be resized to that.
    """
    if not world:
        return section
    if not world.isdigit():
        raise PlanError(f"TUMEN_WORLD is {world[:40]!r}, which is not a number of ranks")
    if int(world) == section.mesh.ranks:
        return section
    return section.model_copy(update={"mesh": section.mesh.over(int(world), section.batch_size)})

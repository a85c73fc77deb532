"""Build: from a recipe to bundles, and weights in and out."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path

import typer

from tumen.cli.board import Board
from tumen.cli.options import CHANGES, JSON, NEW_RUN_FOLDER, PLAN, RECIPE
from tumen.core import units
from tumen.core.events import Events
from tumen.core.shape import EncoderShape, Shape
from tumen.eval import scorecard_text
from tumen.pipeline import (
    Link,
    Run,
    checkpoint_io,
    links,
    newest_run,
    rank,
    read_run_recipe,
    run_folder,
    with_plan,
)
from tumen.plan.accuracy import actual, load_profile, uncalibrated
from tumen.recipe import Recipe, Tier, load_recipe

PROFILE = Path("profile.json")  # written by `tumen plan calibrate`
NO_DIGEST = "-" * 16

recipe_app = typer.Typer(
    help="Show, check or describe recipes.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


def run(
    recipe: Path = RECIPE,
    folder: Path = NEW_RUN_FOLDER,
    changes: list[str] = CHANGES,
    until: str = typer.Option(None, help="Stop after this stage, such as dataset or cloud."),
    plan: Path = PLAN,
) -> None:
    """Build everything a recipe asks for, from sentences to an evaluated bundle.

    Interrupt it at any time; rerun the same command to resume.
    """
    loaded = load_recipe(recipe, changes)
    if plan:
        loaded = with_plan(loaded, plan)
    # `stages` reads the whole recipe; from there on only its sections travel.
    this = Run(loaded, run_folder(loaded, folder))
    made = this.build(Board(), until, plan)
    # Only a training that just ran has something to compare.
    planned = [name for name, tier in loaded.family.items() if not tier.is_encoder]
    if any(name in planned for name in made):
        print_predictions(this.folder, this.events())
    if not made:
        print(f"{this.folder}: everything in this recipe is made, nothing to do")
    scorecard = this.folder / f"bundle-{loaded.serve.device}" / "scorecard"
    if scorecard.exists():
        print(scorecard_text(scorecard))
        print(f'try: tumen talk "turn on the kitchen light"      ({this.folder})')


def print_predictions(folder: Path, events: Events, profile: Path = PROFILE) -> None:
    """Print the planner's step time and memory of each tier beside the measured ones.

    Args:
        folder: of the run.
        events: get the rows, too.
        profile: calibration of this machine; without it the prediction is a generic machine's.
    """
    if profile.exists():
        known = load_profile(profile)
    else:
        known = uncalibrated()
        hint = f"`tumen plan calibrate` writes a {profile} for this one"
        print(f"predicted for a generic machine; {hint}")
    for row in actual(folder, known):
        events.emit("plan_actual", **row.model_dump())
        print(row.line())


@recipe_app.command("show")
def show_recipe(path: Path = RECIPE, changes: list[str] = CHANGES) -> None:
    """Print a recipe with every default, as JSON."""
    print(load_recipe(path, changes).model_dump_json(indent=2))


@recipe_app.command("check")
def check_recipe(path: Path = RECIPE, changes: list[str] = CHANGES) -> None:
    """Check a recipe and print the size of its tiers; all faults are reported at once."""
    recipe = load_recipe(path, changes)
    print(f"{path}: a good recipe, {recipe.name}")
    for name, tier in recipe.family.items():
        print(_tier_line(name, tier, recipe.tokenizer.vocab_size))


def _tier_line(name: str, tier: Tier, vocab_size: int) -> str:
    """Return a line about a tier.

    Args:
        name: of the tier.
        tier: its section.
        vocab_size: of the recipe's tokenizer, for a shape that names none.
    """
    own_vocab_size = tier.shape.vocab_size or vocab_size
    shape: Shape | EncoderShape = tier.shape.model_copy(update={"vocab_size": own_vocab_size})
    train = tier.train
    tokens = train.steps * train.batch_size * train.seq_len
    parameters = units.show_count(shape.parameters())
    learns = f"trains on {units.show_count(tokens)} tokens"
    if isinstance(shape, EncoderShape):
        return f"  {name}: an encoder, {parameters} parameters and its label heads, {learns}"
    active = units.show_count(shape.active_parameters())
    cache = f"{shape.cache_bytes():.0f} bytes of cache a token"
    return f"  {name}: {parameters} parameters, {active} active, {cache}, {learns}"


@recipe_app.command("schema")
def print_schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    print(json.dumps(Recipe.model_json_schema(), indent=2))


def train(
    run: Path = typer.Argument(..., help="Folder of a run, with its recipe.json."),
    tier: str = typer.Argument(
        ..., help="Name of a tier of the recipe's family, or ablation/<variant>/seed-<n>."
    ),
    plan: Path = typer.Option(
        None, "--plan", help="A plan.json of `tumen plan --out`; default: the mesh of the recipe."
    ),
    profile: Path = typer.Option(
        None, help="Profile a few steps into this folder (trace.json, profile.md) and stop."
    ),
    standby: bool = typer.Option(
        False, "--standby", help="Load everything, then wait for one line of JSON: the environment."
    ),
) -> None:
    """Train one tier as one rank, under torchrun's variables; engines call this.

    To train a tier yourself, use `tumen run` or `tumen launch`.
    """
    report = rank.train_rank(run, tier, plan, profile, standby)
    if report:
        print(report)
    rank.end_rank()


def lineage(
    run: Path = typer.Argument(None, help="Folder of a run; default: the newest under runs/."),
    recipe: Path = typer.Option(
        None, help="Compare with this recipe instead of the one the run was started with."
    ),
    changes: list[str] = typer.Option(
        [], "--set", help="Compare as if a field were changed: family.cloud.train.steps=10."
    ),
    as_json: bool = JSON,
) -> None:
    """Show what each artifact of a run was made from, and which of them are stale."""
    run = run or newest_run()
    # Another recipe says which stages a change of it would make again.
    if recipe:
        loaded = load_recipe(recipe, changes)
    else:
        loaded = read_run_recipe(run, changes)
    found = list(links(loaded, run))
    if as_json:
        print(json.dumps([_link_facts(link) for link in found], indent=1))
        return
    print(f"{run}, recipe {loaded.name}")
    for link in found:
        print(_link_line(link, loaded.data.source))
    stale = [link.stage.name for link in found if link.state != "done"]
    if stale:
        print(f"stale: {', '.join(stale)}; `tumen run` makes them again")
    else:
        print("nothing is stale")


def _link_facts(link: Link) -> dict[str, object]:
    """Return a stage as JSON can hold it.

    Args:
        link: the stage and the state of its artifact; without one there is no digest.
    """
    manifest = link.manifest
    return {
        "name": link.stage.name,
        "kind": link.stage.kind,
        "state": link.state,
        "why": link.why,
        "digest": manifest.digest if manifest else None,
        "made_from": manifest.made_from if manifest else [],
    }


def _link_line(link: Link, source: str) -> str:
    """Return a line about a stage.

    Args:
        link: the stage.
        source: of the corpus, which has no parents.
    """
    digest = NO_DIGEST
    payload_bytes = 0
    if link.manifest:
        digest = link.manifest.digest
        payload_bytes = link.manifest.payload_bytes
    parents = " + ".join(link.stage.parents) or source
    state: str = link.state
    if link.why:  # of one that is stale or damaged
        state = f"{link.state}: {link.why}"
    size = units.show_bytes(payload_bytes)
    return f"  {digest}  {link.stage.name:<24} <- {parents:<40} {size:>8}  {state}"


class Precision(Enum):
    """Types that weights are written in."""

    fp32 = "fp32"
    bf16 = "bf16"


class Format(Enum):
    """Formats that a checkpoint is written in."""

    hf = "hf"
    adapter = "adapter"
    executorch = "executorch"


class Delegate(Enum):
    """Backends that compute an ExecuTorch program."""

    xnnpack = "xnnpack"
    qualcomm = "qualcomm"
    mediatek = "mediatek"


def export_checkpoint(  # noqa: PLR0913, PLR0917 - typer makes an option of each argument
    checkpoint: Path = typer.Argument(
        ..., help="A trained tier, such as runs/pocket/cloud, or the output of `tumen import`."
    ),
    out: Path = typer.Argument(..., help="A new folder; for an adapter, a new file."),
    to: Format = typer.Option(
        Format.hf,
        help="hf: config.json and safetensors (an adapter: with its base); "
        "adapter: a GGUF that is read beside its base; executorch: model.pte for phones.",
    ),
    precision: Precision = typer.Option(
        Precision.fp32, help="Of the written weights; bf16 rounds."
    ),
    shard: str = typer.Option("5GB", help="Most bytes of one file."),
    like: Path = typer.Option(
        None,
        help="A public folder of the same shape: its tokenizer files and token ids are copied.",
    ),
    delegate: Delegate = typer.Option(
        Delegate.xnnpack,
        help="executorch: the backend that computes; the vendors' backends need their SDK.",
    ),
    soc: str = typer.Option(
        "", help="executorch: the chip, such as SM8650 (qualcomm) or mt6989 (mediatek)."
    ),
    quantize: str = typer.Option(
        "int8", help="executorch: int8 (xnnpack only) or bf16, which quantizes nothing."
    ),
    context: int = typer.Option(
        512, min=8, help="executorch: tokens of sentence and action together."
    ),
    run: Path = typer.Option(
        None,
        help="executorch: the run whose eval suite compares the tokens with torch's; "
        "default: the checkpoint's.",
    ),
) -> None:
    """Write a checkpoint for transformers, for llama.cpp (an adapter) or for ExecuTorch.

    For transformers: DeepseekV2ForCausalLM (MLA) or LlamaForCausalLM (GQA without experts).
    """
    if to is Format.executorch:
        # What belongs to ExecuTorch alone travels as one object.
        program = checkpoint_io.Program(quantize, context, delegate.value, soc)
        suite_run = run or checkpoint.parent
        print(checkpoint_io.export_executorch(checkpoint, out, program, suite_run))
    elif to is Format.adapter:
        print(checkpoint_io.export_adapter_gguf(checkpoint, out))
    else:
        shard_bytes = int(units.size_bytes(shard))
        print(checkpoint_io.export_hf(checkpoint, out, shard_bytes, precision.value, like))


def import_checkpoint(
    model: Path = typer.Argument(
        ..., help="A GGUF file, or a folder with config.json and safetensors."
    ),
    out: Path = typer.Argument(..., help="A new folder for the checkpoint."),
) -> None:
    """Read a pretrained model as a checkpoint that a tier can start from.

    Formats: GGUF (llama, deepseek2), DeepseekV2ForCausalLM, LlamaForCausalLM.
    """
    shape = checkpoint_io.import_checkpoint(model, out)
    parameters = units.show_count(shape.parameters())
    print(f"{out}: {parameters} parameters. In a recipe of the same vocabulary:")
    print("\n".join(checkpoint_io.recipe_section(shape, out)))

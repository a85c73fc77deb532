"""`tumen arms RECIPE`: named variants of a tier at one budget and several seeds, and one table with error bars.

    corpus -> tokenizer -> dataset -> <teachers>       shared with `tumen run` of the same folder
        -> ablation/<arm>/seed-<n>                         checkpoints (and ablation/<arm>/bundle-<n> when there is an exam)
        -> ablation/table                                  table.json
With a budget in seconds, `ablation/<arm>/pace` keeps what a step was measured to take here, so that a run that goes on asks for the
same steps.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tumen.core.artifact import Manifest, manifest_of, verify, writing
from tumen.core.errors import InputError, PlanError, TrainError
from tumen.core.shape import Shape
from tumen.pipeline import stages as chain
from tumen.recipe import Ablation, Recipe, Tier

FOLDER = "ablation"
TABLE = f"{FOLDER}/table"
PACE_STEPS = 8
PACKAGES = ("tumen", "torch", "numpy")


def arms_of(recipe: Recipe) -> Ablation:
    """The recipe's arms.

    Raises:
        InputError: it has none.
    """
    if recipe.ablation is None:
        raise InputError(f"{recipe.name} has no [ablation]; see recipes/ablation-pocket.toml")
    return recipe.ablation


def plan_of(recipe: Recipe, where: Path) -> dict[str, Any]:
    """What every arm would spend; with the recipe's vocabulary while there is no tokeniser yet."""
    vocab = _vocab(where) if (where / "tokenizer").exists() else recipe.tokenizer.vocab_size
    tiers = {name: budgeted(recipe, where, name, vocab) for name in arms_of(recipe).each()}
    rows = [{"name": name, **spending(recipe, where, tier, vocab)} for name, tier in tiers.items()]
    return {**_heading(recipe), "arms": rows}


def _heading(recipe: Recipe) -> dict[str, Any]:
    section = arms_of(recipe)
    budget = (
        {"budget_seconds": section.seconds}
        if section.seconds
        else {"budget_flops": section.flops()}
    )
    return {"recipe": recipe.name, **budget, "seeds": list(section.seeds)}


def _vocab(where: Path) -> int:
    from tumen.data import Codec

    return Codec.load(where / "tokenizer").vocab


def stages(recipe: Recipe, where: Path) -> Iterator[chain.Stage]:
    """What the arms need of the recipe's chain, then the arms."""
    teachers = {
        teacher
        for name in arms_of(recipe).each()
        for teacher in teachers_of(recipe, recipe.variant(name))
    }
    for stage in chain.stages(recipe):
        if stage.kind in ("corpus", "tokenizer", "dataset") or stage.name in teachers:
            yield stage
    yield from arm_stages(recipe, where)


def teachers_of(recipe: Recipe, tier: Tier) -> list[str]:
    """The tiers a tier is made from, those that they are made from, and so on."""
    found = list(tier.made_from())
    for name in found:
        found += [other for other in recipe.family[name].made_from() if other not in found]
    return found


def arm_stages(recipe: Recipe, where: Path) -> Iterator[chain.Stage]:
    """Seed after seed, each arm once, so that a run cut short has compared something; the table comes last.

    Stages are taken one by one: the steps of an arm are known when the tokeniser (and the paces) before it are made.
    """
    section, vocab = arms_of(recipe), _vocab(where)
    for name in section.each() if section.seconds else ():
        yield _pace_stage(name, recipe.variant(name), vocab)
    tiers = {name: budgeted(recipe, where, name, vocab) for name in section.each()}
    made: list[str] = []
    for seed in section.seeds:
        for name, tier in tiers.items():
            trained = chain.learning(f"{FOLDER}/{name}/seed-{seed}", tier, seed)
            yield trained
            made.append(trained.name)
            if section.eval:
                yield from chain.packing(
                    f"{FOLDER}/{name}/bundle-{seed}", trained.name, tier, recipe, seed
                )
                made.append(f"{FOLDER}/{name}/bundle-{seed}")
    spends = [spending(recipe, where, tier, vocab) for tier in tiers.values()]
    yield chain.Stage(TABLE, "ablation", tuple(made), {"ablation": section, "spent": spends})


def whole_shape(tier: Tier, vocab: int) -> Shape:
    """A tier's shape with its vocabulary."""
    return tier.shape.model_copy(update={"vocab_size": vocab})


def budgeted(recipe: Recipe, where: Path, name: str, vocab: int) -> Tier:
    """An arm with the steps its budget pays for.

    Raises:
        PlanError: not even one.
    """
    from tumen.plan import steps_within

    section, tier = arms_of(recipe), recipe.variant(name)
    if section.seconds:
        pace = json.loads((where / FOLDER / name / "pace" / "pace.json").read_text("utf-8"))[
            "step_seconds"
        ]
        steps = int(section.seconds // pace)
        if not steps:
            raise PlanError(
                f"ablation.{name}: one step takes {pace:.3g} s here, the budget is {section.seconds:g} s; raise ablation.seconds"
            )
    else:
        steps = steps_within(
            section.flops(), whole_shape(tier, vocab), tier.train, f"ablation.{name}"
        )
    return tier.model_copy(update={"train": tier.train.model_copy(update={"steps": steps})})


def spending(recipe: Recipe, where: Path, tier: Tier, vocab: int) -> dict[str, Any]:
    """What one seed of an arm spends, and what is spent apart from it: its teachers, and (when the dataset is there) asking one."""
    from tumen.plan import training_compute

    row = {
        **training_compute(whole_shape(tier, vocab), tier.train).model_dump(),
        "teacher": None,
        "teacher_flops": 0,
        "start": tier.init_from and tier.init_from.path,
    }
    teachers = teachers_of(recipe, tier)
    if teachers:
        shapes = [whole_shape(recipe.family[name], vocab) for name in teachers]
        trained = sum(
            training_compute(shape, recipe.family[name].train).flops
            for name, shape in zip(teachers, shapes, strict=True)
        )
        dataset = where / "dataset"
        tokens = manifest_of(dataset).facts["train_tokens"] if dataset.exists() else 0
        asked = tokens * shapes[0].flops_per_token(tier.train.seq_len)
        row |= {"teacher": teachers[0], "teacher_flops": trained + asked}
    return row


def _pace_stage(name: str, tier: Tier, vocab: int) -> chain.Stage:
    asked = {
        "shape": whole_shape(tier, vocab),
        "train": tier.train.model_copy(update={"steps": PACE_STEPS}),
    }
    return chain.Stage(f"{FOLDER}/{name}/pace", "calibration", (), asked)


def write_pace(recipe: Recipe, stage: chain.Stage, where: Path, inputs: str) -> Manifest:
    """Measure the step of an arm by a short training of random tokens, started as the real one will be."""
    from tumen.cluster.engines import JobSpec, connect

    engine, folder = connect(recipe.fleet.engine, recipe.fleet), where / "jobs" / stage.name
    question = json.dumps(
        {name: part.model_dump() for name, part in stage.asked.items()} | {"steps": PACE_STEPS}
    )
    command = (sys.executable, "-m", "tumen.train.calibrate", question)
    shutil.rmtree(folder, ignore_errors=True)
    job = engine.submit(JobSpec(f"{recipe.name}-{stage.name.replace('/', '-')}", command, folder))
    try:
        while not (status := engine.status(job)).ended:
            time.sleep(0.1)
    finally:
        engine.cancel(job)
    said = engine.logs(job).strip().splitlines() or [status.reason]
    if status.state != "done":
        raise TrainError(f"{stage.name}: {said[-1]} (log: {folder / 'log'})")
    found = json.loads(said[-1])
    with writing(
        where / stage.name, "calibration", inputs, [], {"step_seconds": found["step_seconds"]}
    ) as out:
        (out / "pace.json").write_text(json.dumps(found, indent=1), "utf-8")
    return verify(where / stage.name, "calibration")


def write_table(recipe: Recipe, where: Path, inputs: str) -> Manifest:
    """Write the artifact `ablation/table` from the arms' checkpoints: losses in its payload, speeds and machine in its facts."""
    section, vocab = arms_of(recipe), _vocab(where)
    rows, speeds, parents = [], {}, []
    first: list[float] = []
    for name in section.each():
        made = [
            manifest_of(where / FOLDER / name / f"seed-{seed}", "checkpoint")
            for seed in section.seeds
        ]
        losses = [float(one.facts["validation_loss"]) for one in made]
        first = first or losses
        row = {"name": name, **spending(recipe, where, budgeted(recipe, where, name, vocab), vocab)}
        row |= {
            "epochs": made[0].facts["epochs"],
            "losses": losses,
            **compared(losses, first if losses is not first else None),
        }
        if section.eval:
            row["exam"] = exam_of(recipe, where, name)
        rows.append(row)
        speeds[name] = round(sum(one.facts["tokens_per_second"] for one in made) / len(made))
        parents += [one.digest for one in made]
    facts = {"tokens_per_second": speeds, **_circumstances()}
    with writing(where / TABLE, "ablation", inputs, parents, facts) as out:
        (out / "table.json").write_text(
            json.dumps({**_heading(recipe), "arms": rows}, indent=1), "utf-8"
        )
    return verify(where / TABLE, "ablation")


def compared(values: Sequence[float], first: Sequence[float] | None) -> dict[str, Any]:
    """Mean over seeds, and the difference to the first arm seed by seed (None for itself), as {mean, low, high}."""
    from tumen.eval.statistics import mean_over_seeds, paired_seed_difference

    against = paired_seed_difference(values, first)._asdict() if first else None
    return {"loss": mean_over_seeds(values)._asdict(), "against_first": against}


def exam_of(recipe: Recipe, where: Path, name: str) -> dict[str, Any]:
    """Exact actions of an arm's bundles in the recipe's exam: share by seed and {mean, low, high}."""
    from tumen.assistant.values import Values
    from tumen.eval.statistics import mean_over_seeds
    from tumen.eval.suites import held_out_cases
    from tumen.pipeline.evaluate import examine_bundle

    cases, shares = list(held_out_cases(where / "corpus")), []
    for seed in arms_of(recipe).seeds:
        bundle = where / FOLDER / name / f"bundle-{seed}"
        rows, _ = examine_bundle(
            bundle, cases, Values.load(bundle / "values.json"), recipe.serve.threads, "own"
        )
        shares.append(rows["all"]["exact"])
    return {"n": len(cases), "shares": shares, **mean_over_seeds(shares)._asdict()}


def _circumstances() -> dict[str, Any]:
    """Machine, its load, versions and command of a measurement."""
    cores = len(os.sched_getaffinity(0))
    return {
        "machine": f"{_processor()}, {cores} cores, {platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 2),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "command": " ".join(["tumen", *sys.argv[1:]]),
    }


def _processor() -> str:
    """The processor's name, or its kind where Linux does not say."""
    cpuinfo = Path("/proc/cpuinfo")
    named = (
        [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    return named[0].partition(": ")[2] if named else platform.machine()


def result(where: Path) -> dict[str, Any]:
    """The table of a run with its facts, for programs."""
    facts = manifest_of(where / TABLE, "ablation").facts
    return {**json.loads((where / TABLE / "table.json").read_text("utf-8")), **facts}

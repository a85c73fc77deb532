"""What is to be trained: a network, the work of the run, and the software it runs on."""

from __future__ import annotations

from dataclasses import dataclass, field

from tumen.core import units
from tumen.core.errors import PlanError
from tumen.core.shape import Shape
from tumen.plan.facts import Software, software
from tumen.recipe import Planning, Recipe, Train


@dataclass(frozen=True)
class Workload:
    """One training run to plan."""

    shape: Shape
    seq_len: int  # tokens of a sequence
    batch_size: int  # sequences of a step
    tokens: float  # of the whole run
    precision: str = "bf16"  # of the matmuls
    software: Software = field(default_factory=software)
    name: str = "run"

    @property
    def step_tokens(self) -> int:
        """Tokens of one step."""
        return self.batch_size * self.seq_len


def workload_of(recipe: Recipe, tier: str | None = None) -> Workload:
    """Return the workload of a recipe's tier.

    `[plan]` states the work; where it does not, the tier's own training section does.

    Args:
        recipe: a checked recipe.
        tier: a name of its family; default: `plan.tier`, or the first tier.

    Raises:
        PlanError: the recipe does not have the tier, or the work is less than one step.
    """
    plan: Planning = recipe.plan
    name = tier or plan.tier or next(iter(recipe.family))
    if name not in recipe.family:
        raise PlanError(f"{recipe.name} has no tier {name!r}; it has {', '.join(recipe.family)}")
    chosen = recipe.family[name]
    train = chosen.train
    seq_len = plan.seq_len or train.seq_len
    batch_size = train.batch_size
    if plan.batch_tokens is not None:
        batch_size = sequences(plan.batch_tokens, seq_len)
    tokens = tokens_of(plan, train)
    if tokens < batch_size * seq_len:
        raise PlanError(
            f"plan.tokens {plan.tokens} is less than one step; the least is {batch_size * seq_len}"
        )
    return Workload(
        shape=with_vocabulary(chosen.decoder, recipe.tokenizer.vocab_size),
        seq_len=seq_len,
        batch_size=batch_size,
        tokens=tokens,
        precision=precision_of_run(plan, train),
        software=software(plan.framework, plan.release),
        name=f"{recipe.name}/{name}",
    )


def with_vocabulary(shape: Shape, vocab_size: int) -> Shape:
    """Return a shape with the tokenizer's vocabulary, where it names none of its own."""
    if shape.vocab_size:
        return shape
    return shape.model_copy(update={"vocab_size": vocab_size})


def tokens_of(plan: Planning, train: Train) -> float:
    """Return the tokens of the run: those of `[plan]`, or those of the tier's steps."""
    if plan.tokens is None:
        return float(train.steps * train.batch_size * train.seq_len)
    return units.count(plan.tokens)


def precision_of_run(plan: Planning, train: Train) -> str:
    """Return the precision of the matmuls."""
    if plan.precision:
        return plan.precision
    return "fp32" if train.precision == "fp32" else "bf16"


def sequences(batch_tokens: str | int, seq_len: int) -> int:
    """Return the sequences of a step of so many tokens.

    A number is exact. A text such as `4M` is rounded to four significant bits, so that many meshes
    divide the batch.

    Args:
        batch_tokens: of a step.
        seq_len: tokens of a sequence.

    Raises:
        PlanError: less than one sequence.
    """
    count = round(units.count(batch_tokens) / seq_len)
    if count < 1:
        raise PlanError(
            f"plan.batch_tokens {batch_tokens} is less than one sequence; the least is {seq_len}"
        )
    if isinstance(batch_tokens, int) or count < 16:
        return count
    unit = 1 << (count.bit_length() - 4)
    return max(round(count / unit), 1) * unit

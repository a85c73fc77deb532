"""Section `family.NAME`: one tier, how it is trained, what it starts from, how it is quantized."""

from __future__ import annotations

import typing
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tumen.core import units
from tumen.core.errors import InputError
from tumen.core.shape import Frozen, Positive, Shape, Share
from tumen.recipe.field_types import LADDER, LINEAR, Matrix, QuantType, Word
from tumen.recipe.mesh import Mesh


class Train(Frozen):
    """One training run of one tier. Rates are per step; `batch_size` x `seq_len` tokens make a step, whatever the mesh."""

    steps: Positive
    batch_size: Positive = 32
    seq_len: Positive = 128
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(2e-3, gt=0, description="peak learning rate")
    warmup: Share = Field(0.05, description="share of the steps that warm up linearly")
    decay: Share = Field(
        0.4, description="share of the steps, at the end, that decay linearly to zero"
    )
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.1, ge=0)
    grad_clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    sentence_weight: float = Field(
        0.1, ge=0, description="loss weight of the sentence; the action weighs 1"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto",
        description="what the network computes in; auto: bf16 where the machine multiplies it at full speed, else fp32",
    )
    compile: bool = Field(
        True, description="torch.compile the blocks; needs a C++ compiler on a CPU"
    )
    checkpoint_every: Positive = 100
    keep: Positive = 2
    threads: int = Field(0, ge=0, description="0: the cores this process may use")
    expert_kernel: Literal["padded", "grouped", "loop"] = Field(
        "padded", description="how experts are run (model/kernels.py)"
    )
    mtp_weight: float = Field(
        0.3,
        ge=0,
        description="loss weight of the token after the next (shape.num_nextn_predict_layers)",
    )
    spike: float = Field(
        0.0,
        ge=0,
        description="stop at a loss this many median deviations above the median of the last 100 steps; 0: never",
    )
    async_checkpoint: bool = Field(
        False, description="write checkpoints while training goes on; pays on GPUs alone"
    )
    mesh: Mesh = Mesh()


class Distil(Frozen):
    """Learn from another tier's logits (arXiv 1503.02531): `weight` on the teacher, the rest on the data."""

    teacher: str
    weight: Share = 0.7
    temperature: float = Field(1.0, gt=0)
    live: bool = Field(
        False,
        description="ask the teacher at every step, for all tokens, instead of storing its likeliest ones",
    )


class InitFrom(Frozen):
    """Weights a tier starts from, and how it goes on. A path alone is short for `{ path = ... }`.

    `tune = "lora"` (arXiv 2106.09685) leaves them as they are and learns an adapter of `rank` beside each matrix, times
    `alpha / rank`.
    """

    path: str = Field(
        description="GGUF file, also `package:NAME/FILE`; folder that transformers wrote; or checkpoint as `tumen import` makes"
    )
    tune: Literal["full", "lora"] = "full"
    layers: Positive | tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, description="take so many of its first layers, or these, from 0 on; default: all"
    )
    rank: Positive = 16
    alpha: float = Field(32.0, gt=0)
    target_modules: tuple[Matrix, ...] = Field(
        LINEAR, min_length=1, description="by name, in attention and feed-forward"
    )
    merge: bool = Field(
        False, description="pack one merged model instead of the base and an adapter beside it"
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class Quantize(Frozen):
    """How a trained tier becomes small. A plain word, `quantize = "int4"`, is `{ type = "int4", calibrate = 0 }`.

    int8 is Q8_0; int4 is Q4_0 with embedding and head at Q8_0; any other type is used for every matrix.
    """

    type: Word | None = Field(
        None, description="one quantization type for every matrix; set this or budget"
    )
    budget: str | int | None = Field(
        None,
        description="most bytes of model.gguf, such as 1.5 MB: every matrix gets the type of its own that costs least in sum",
    )
    types: tuple[QuantType, ...] = Field(
        LADDER, min_length=1, description="quantization types that a budget may choose from"
    )
    calibrate: int = Field(
        256,
        ge=0,
        description="training sentences that say which columns of a matrix matter; 0: none",
    )
    qat: bool = Field(
        False,
        description="quantization-aware training, straight-through, after the tier is trained",
    )
    steps: Positive = Field(200, description="of quantization-aware training")
    learning_rate: float = Field(
        1e-4,
        gt=0,
        description="peak learning rate of quantization-aware training; it falls linearly to zero",
    )
    teach: Share = Field(
        1.0,
        description="share of the loss on the unquantized tier's own distributions; the rest is on the data",
    )

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        if isinstance(value, Quantize | dict):
            return value
        if value not in (words := typing.get_args(Word)):
            raise ValueError(f"write a table, or one of {', '.join(words)}")
        return {"type": value, "calibrate": 0}

    @model_validator(mode="after")
    def _one_goal(self) -> Quantize:
        if (self.type is None) == (self.budget is None):
            raise ValueError("set one of type and budget (bytes)")
        if self.budget is not None:
            if self.budget_bytes() <= 0:
                raise ValueError(f"budget {self.budget!r} must be above 0 bytes")
            if not self.calibrate:
                raise ValueError(
                    "a budget needs calibrate above 0: types are chosen by what they do to these sentences"
                )
        return self

    def budget_bytes(self) -> float:
        """The budget as a number of bytes."""
        try:
            return units.size_bytes(self.budget or 0)
        except InputError as error:
            raise ValueError(f"budget: {error}") from None

    def section(self, train: Train) -> Train:
        """A tier's train section for quantization-aware training: actions alone, AdamW, the rate falling from a small peak."""
        short = {
            "steps": self.steps,
            "learning_rate": self.learning_rate,
            "warmup": 0.05,
            "decay": 1.0,
        }
        return train.model_copy(update={**short, "optimizer": "adamw", "sentence_weight": 0.0})

    @property
    def plain(self) -> bool:
        """Whether rounding is all that is asked."""
        return not self.calibrate and not self.qat

    @property
    def word(self) -> str:
        """What a bundle calls it."""
        return f"{self.type or 'mixed'}{', qat' if self.qat else ''}"


class Tier(Frozen):
    """A size in the model family. The shape of one that starts from an outside model is that model's."""

    shape: Shape
    train: Train
    distil: Distil | None = None
    quantize: Quantize = Quantize(type="int8", calibrate=0)
    init_from: InitFrom | None = Field(
        None, description="weights to start from, instead of fresh ones"
    )
    prune: str | None = Field(
        None, description="larger tier whose most important parts this one starts from"
    )

    def made_from(self) -> tuple[str, ...]:
        """Tiers that must be there before this one: its teacher, and the one it is cut from."""
        return tuple(
            dict.fromkeys(
                name for name in (self.distil.teacher if self.distil else None, self.prune) if name
            )
        )

    @model_validator(mode="after")
    def _one_start(self) -> Tier:
        if self.init_from and self.prune:
            raise ValueError(
                "init_from and prune exclude each other: a tier starts from one set of weights"
            )
        if (
            self.init_from
            and self.init_from.tune == "lora"
            and not self.init_from.merge
            and not self.quantize.plain
        ):
            raise ValueError(
                "an adapter's base is packed as it came: set init_from.merge to calibrate or train quantization-aware"
            )
        return self

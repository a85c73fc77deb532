"""Section `family.NAME`: one tier, how it is trained, what it starts from, how it is quantized."""

from __future__ import annotations

import typing
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from tumen.core import units
from tumen.core.errors import InputError
from tumen.core.shape import EncoderShape, Frozen, Positive, Shape, Share
from tumen.recipe.field_types import LADDER, LINEAR, Matrix, QuantType, Word
from tumen.recipe.mesh import Mesh


class Train(Frozen):
    """Training of one tier.

    A step has `batch_size` x `seq_len` tokens, whatever the mesh.
    """

    # Size of the run.
    steps: Positive
    batch_size: Positive = 32
    seq_len: Positive = 128
    # Optimizer and schedule.
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(2e-3, gt=0, description="peak learning rate")
    warmup: Share = Field(0.05, description="share of the steps that warm up linearly")
    decay: Share = Field(
        0.4, description="share of the steps, at the end, that decay linearly to zero"
    )
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.1, ge=0)
    grad_clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    # Loss, and what the machine computes.
    sentence_weight: float = Field(
        0.1, ge=0, description="loss weight of the sentence; the action weighs 1"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto",
        description="number format of the computation; auto: bf16 where the machine multiplies "
        "it at full speed, else fp32",
    )
    compile: bool = Field(
        True, description="torch.compile the blocks; needs a C++ compiler on a CPU"
    )
    # Checkpoints: steps between two, and how many to keep.
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
        description="stop at a loss this many median deviations above the median of the last 100 "
        "steps; 0: never",
    )
    async_checkpoint: bool = Field(
        False, description="write checkpoints while training goes on; pays off on GPUs only"
    )
    mesh: Mesh = Mesh()


class Distil(Frozen):
    """Learn from another tier's logits (arXiv 1503.02531).

    `weight` of the loss is on the teacher, the rest on the data.
    """

    teacher: str
    weight: Share = 0.7
    temperature: float = Field(1.0, gt=0)
    live: bool = Field(
        False,
        description="run the teacher at every step, for all tokens, instead of storing its "
        "likeliest ones",
    )


class InitFrom(Frozen):
    """Weights a tier starts from, and how training goes on. A path alone means `{ path = ... }`.

    `tune = "lora"` (arXiv 2106.09685) freezes them and trains an adapter of `rank` beside each
    matrix, scaled by `alpha / rank`.
    """

    path: str = Field(
        description="GGUF file, also `package:NAME/FILE`; folder written by transformers; or "
        "checkpoint made by `tumen import`"
    )
    tune: Literal["full", "lora"] = "full"
    layers: Positive | tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None,
        description="number of first layers to take, or a list of layers, from 0 on; default: all",
    )
    # Of an adapter; ignored when all weights are trained.
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
    """How a trained tier is quantized.

    A plain word, `quantize = "int4"`, means `{ type = "int4", calibrate = 0 }`. int8 is Q8_0. int4
    is Q4_0 with embedding and head at Q8_0. Any other type is used for every matrix.
    """

    type: Word | None = Field(
        None, description="one quantization type for every matrix; set this or budget"
    )
    budget: str | int | None = Field(
        None,
        description="most bytes of model.gguf, such as 1.5 MB; each matrix gets its own type, so "
        "that the sum of errors is smallest",
    )
    types: tuple[QuantType, ...] = Field(
        LADDER, min_length=1, description="quantization types that a budget may choose from"
    )
    calibrate: int = Field(
        256,
        ge=0,
        description="training sentences that show which columns of a matrix matter; 0: none",
    )
    # Quantization-aware training.
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
        description="share of the loss on the distributions of the unquantized tier; the rest is "
        "on the data",
    )

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        if isinstance(value, Quantize | dict):
            return value
        words = typing.get_args(Word)
        if value not in words:
            raise ValueError(f"write a table, or one of {', '.join(words)}")
        return {"type": value, "calibrate": 0}

    @model_validator(mode="after")
    def _one_goal(self) -> Quantize:
        # Either one type for all, or a size from which the types follow.
        if (self.type is None) == (self.budget is None):
            raise ValueError("set one of type and budget (bytes)")
        if self.budget is None:
            return self
        if self.budget_bytes() <= 0:
            raise ValueError(f"budget {self.budget!r} must be above 0 bytes")
        if not self.calibrate:
            raise ValueError(
                "a budget needs calibrate above 0: "
                "types are chosen by what they do to these sentences"
            )
        return self

    def budget_bytes(self) -> float:
        """The budget as a number of bytes."""
        try:
            return units.size_bytes(self.budget or 0)
        except InputError as error:
            raise ValueError(f"budget: {error}") from None

    def section(self, train: Train) -> Train:
        """Return a tier's train section, changed for quantization-aware training.

        The loss is on actions only; AdamW; the learning rate falls from a small peak.
        """
        # A short run on weights that have converged: little warm-up, decay all along.
        changes = {
            "steps": self.steps,
            "learning_rate": self.learning_rate,
            "warmup": 0.05,
            "decay": 1.0,
            "optimizer": "adamw",
            "sentence_weight": 0.0,
        }
        return train.model_copy(update=changes)

    @property
    def plain(self) -> bool:
        """Whether weights are only rounded: no calibration, no training."""
        return not self.calibrate and not self.qat

    @property
    def word(self) -> str:
        """What a bundle calls this quantization, such as `int4` or `mixed, qat`."""
        name = self.type or "mixed"
        return f"{name}, qat" if self.qat else name


def _kind_of(shape: Any) -> str:
    """Return which of a tier's networks a shape is of."""
    kind = shape.get("kind") if isinstance(shape, dict) else getattr(shape, "kind", None)
    return "encoder" if kind == "encoder" else "decoder"


class Tier(Frozen):
    """A size in the model family. With `init_from` the shape may be left out: the model has one."""

    shape: Annotated[
        Annotated[Shape, Tag("decoder")] | Annotated[EncoderShape, Tag("encoder")],
        Discriminator(_kind_of),
    ]
    train: Train
    # What it learns from besides the data, and how it is packed.
    distil: Distil | None = None
    quantize: Quantize = Quantize(type="int8", calibrate=0)
    # What it starts from; at most one of the two.
    init_from: InitFrom | None = Field(
        None, description="weights to start from, instead of fresh ones"
    )
    prune: str | None = Field(
        None, description="larger tier whose most important parts this one starts from"
    )

    def made_from(self) -> tuple[str, ...]:
        """Tiers that are made before this one: its teacher, and the one it is pruned from."""
        names = []
        if self.distil and self.distil.teacher:
            names.append(self.distil.teacher)
        if self.prune and self.prune not in names:
            names.append(self.prune)
        return tuple(names)

    @property
    def is_encoder(self) -> bool:
        """Whether the tier is an encoder; all others are decoders."""
        return isinstance(self.shape, EncoderShape)

    @property
    def decoder(self) -> Shape:
        """The shape of a decoder.

        Raises:
            InputError: the tier is an encoder.
        """
        if isinstance(self.shape, EncoderShape):
            raise InputError(
                "an encoder tier is trained, packed and run, but not planned, profiled, pruned, "
                "distilled or exported otherwise; name a tier with a decoder"
            )
        return self.shape

    @model_validator(mode="after")
    def _encoder_alone(self) -> Tier:
        if not isinstance(self.shape, EncoderShape):
            return self
        for name in ("distil", "prune"):
            if getattr(self, name):
                raise ValueError(f"{name}: an encoder learns from the data alone; leave it out")
        if self.init_from and self.init_from.tune == "lora":
            raise ValueError("init_from.tune: an encoder trains all its weights; set it to 'full'")
        if not self.quantize.plain:
            raise ValueError("quantize: an encoder takes one plain type, such as int8")
        if self.train.mesh.ranks > 1:
            raise ValueError("train.mesh: an encoder trains in one process; leave it out")
        return self

    @model_validator(mode="after")
    def _one_start(self) -> Tier:
        if self.init_from is None:
            return self
        if self.prune:
            raise ValueError(
                "init_from and prune exclude each other: a tier starts from one set of weights"
            )
        # An adapter was trained on these base weights; quantizing them further would change it.
        keeps_base = self.init_from.tune == "lora" and not self.init_from.merge
        if keeps_base and not self.quantize.plain:
            raise ValueError(
                "an adapter's base is packed as it came: "
                "set init_from.merge to calibrate or train quantization-aware"
            )
        return self

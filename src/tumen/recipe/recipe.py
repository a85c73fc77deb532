"""The recipe: one TOML that drives plan, data, tiers, shrink, serve, gate and home.

A recipe is frozen; a field nobody knows is a fault; all faults of a file are told at once with their dotted paths. A room
gets its own section and the artifacts it needs, never the whole recipe. A variant is another file or
`--set family.cloud.train.steps=10`.
"""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from tumen.core import units
from tumen.core.errors import InputError, RecipeError
from tumen.core.shape import Frozen, Positive, Shape
from tumen.formats import has_vocabulary, located, shape_of_start
from tumen.recipe.faults import faults_of
from tumen.recipe.mesh import Mesh

STAGE_NAMES = (
    "corpus",
    "tokenizer",
    "dataset",
    "jobs",
    "ablation",
    "bundle-*",
    "*-logits",
    "*-quant",
    "*-qat",
)
VARIANT_NAME = r"(?!table$)[a-z0-9][a-z0-9_-]*"
TIER_NAME = r"(?!(corpus|tokenizer|dataset|jobs|ablation)$|bundle-|.*-(logits|quant|qat)$)[a-z0-9][a-z0-9_-]*"
Share = Annotated[float, Field(ge=0, le=1)]
Language = Literal["en", "zh", "de"]


Filter = Literal["quality", "held_out", "exact", "near"]
FILTERS: dict[str, tuple[Filter, ...]] = {
    "text": ("quality", "held_out", "exact", "near"),
    "home": (),
}
PATH = "file of a local source, folder or glob of texts, folder of SNIPS, or name of a Hugging Face data set"


class Part(Frozen):
    """One source of a mix. `weight` is its share of the characters, against the other weights, whatever its size."""

    source: str = "text"
    path: str | None = Field(None, description=PATH)
    weight: float = Field(gt=0)
    epochs: Positive = Field(
        1, description="how often its rows may be used; the mix ends when one source is used up"
    )
    slot_swap: Share = Field(
        0.0,
        description="of its rows, from the second pass on, those whose slots say words of another row of the same intent",
    )
    exclude_intents: tuple[str, ...] = Field(
        (), description="intents whose rows are left out: another source says them better"
    )
    class_priors: str | None = Field(
        None,
        description="labelled file of what people ask: training weighs this source's intents as if each were as frequent as there",
    )
    relabel_none: tuple[str, ...] = Field(
        (),
        description="intents that are nothing the other sources know: their rows mean `none`, the rest go",
    )
    languages: tuple[Language, ...] | None = Field(None, description="instead of data.languages")
    sentences: Positive | None = Field(None, description="instead of data.sentences")
    not_home: Share | None = Field(None, description="instead of data.not_home")

    @model_validator(mode="after")
    def _swaps(self) -> Part:
        if self.slot_swap and (self.epochs == 1 or self.source == "text"):
            raise ValueError(
                "slot_swap changes rows with slots from the second pass on: set epochs above 1, and a source of sentences"
            )
        return self

    def own(self) -> dict[str, Any]:
        """What it says instead of the data section."""
        said = {name: getattr(self, name) for name in ("languages", "sentences", "not_home")}
        return {
            "source": self.source,
            "path": self.path,
            **{name: value for name, value in said.items() if value is not None},
        }


class Data(Frozen):
    """Where sentences come from. `source` is a name of `tumen.data.sources.source.SOURCES` or `"my_pkg.mod:Class"`."""

    source: str = "home"
    path: str | None = Field(None, description=PATH)
    mix: tuple[Part, ...] = Field((), description="several sources instead of `source` and `path`")
    filters: tuple[Filter, ...] | None = Field(
        None,
        description="what rows must pass; default: all four for text, none for homes (split by template), else exam and exact",
    )
    held_out: tuple[str, ...] = Field(
        (), description="files (JSONL, TSV, Parquet, txt) whose sentences are kept out of training"
    )
    document_tokens: int | None = Field(
        None,
        gt=1,
        description="longest piece of a plain text in tokens; default: the smallest seq_len of the family",
    )
    engine: Literal["local", "ray"] = Field(
        "local", description="ray: texts are filtered and encoded on a Ray cluster"
    )
    languages: tuple[Language, ...] = ("en", "zh", "de")
    sentences: Positive = Field(40_000, description="training sentences")
    validation: Positive = Field(600, description="sentences for the validation loss")
    eval_sentences: Positive = Field(300, description="eval sentences a language")
    held_out_templates: Share = Field(
        0.1, description="share of whole templates kept for the eval split"
    )
    held_out_names: Share = Field(0.2, description="share of whole names kept for the eval split")
    home_entities: tuple[Positive, Positive] = Field(
        (50, 200), description="smallest and largest generated home"
    )
    not_home: Share = Field(0.25, description="share of sentences that are not for the home")

    @model_validator(mode="after")
    def _mixed(self) -> Data:
        if self.mix and self.path:
            raise ValueError(
                "path and mix exclude each other: give every source of the mix its own path"
            )
        if self.engine == "ray" and not self.is_text():
            raise ValueError(
                "engine 'ray' is for plain texts: set source (or every source of the mix) to 'text'"
            )
        return self

    def parts(self) -> tuple[Part, ...]:
        """The sources, also when there is one."""
        return self.mix or (Part(source=self.source, path=self.path, weight=1),)

    def is_text(self) -> bool:
        """Whether all of it is plain text, without actions."""
        return all(part.source == "text" for part in self.parts())

    def passed(self) -> tuple[Filter, ...]:
        """The filters that rows must pass; a held-out file is always kept out."""
        kinds = {part.source for part in self.parts()}
        usual = (
            FILTERS.get(min(kinds), ("held_out", "exact"))
            if len(kinds) == 1
            else ("held_out", "exact")
        )
        chosen = usual if self.filters is None else self.filters
        return (*chosen, "held_out") if self.held_out and "held_out" not in chosen else chosen


class Tokenizer(Frozen):
    """Byte-fallback BPE. A small vocabulary is the cheapest speed-up on a device."""

    vocab_size: Annotated[int, Field(ge=512, le=262_144)] = 2048
    init_from: str | None = Field(
        None,
        description="outside model whose vocabulary is taken instead of a learnt one; default: what a tier starts from",
    )
    trim: int | None = Field(
        None,
        ge=0,
        description="of its tokens keep those the data needs and this many of the most frequent; default: all",
    )
    pieces: bool = Field(
        False,
        description="one token more for each piece of an action (learnt ones have them anyway)",
    )

    @model_validator(mode="after")
    def _of_something(self) -> Tokenizer:
        if (self.trim is not None or self.pieces) and not self.init_from:
            raise ValueError(
                "trim and pieces are for the vocabulary of an outside model: set init_from, or start a tier from one"
            )
        return self


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


Matrix = Literal["q", "k", "v", "q_down", "q_up", "kv_down", "out", "gate", "up", "down"]
LINEAR: tuple[Matrix, ...] = typing.get_args(Matrix)


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


QuantType = Literal["bf16", "q8_0", "q6_k", "q5_k", "q5_0", "q4_k", "q4_0", "q3_k", "q2_k"]
Word = Literal["int8", "int4", QuantType]
LADDER: tuple[QuantType, ...] = ("q8_0", "q6_k", "q5_k", "q5_0", "q4_k", "q4_0", "q3_k", "q2_k")


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


class Serve(Frozen):
    """Which tier answers. The device goes first; `unsure` is the confidence below which the cloud tier is asked."""

    device: str = "device"
    cloud: str | None = "cloud"
    cloud_url: str | None = Field(
        None, description="any OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1"
    )
    cloud_model: str | None = Field(None, description="the model's name at cloud_url")
    cloud_key_env: str = Field(
        "TUMEN_CLOUD_KEY",
        pattern="^TUMEN_[A-Z0-9_]+$",
        description="environment variable that holds the key of cloud_url; TUMEN_..., as a bundle from elsewhere may name no other",
    )
    unsure: Share = 0.5
    threads: Positive = 1
    context: Positive = 512


class Gate(Frozen):
    """Floors a bundle must reach before `talk` and `serve` show it."""

    exact: Share = Field(0.0, description="exact actions, in each language")
    agreement: Share = Field(
        0.0, description="positions where the exported model writes torch's token"
    )
    of_cloud: Share = Field(0.0, description="device score as a share of the cloud's")
    of_cloud_classes: int = Field(
        0, ge=0, description="scenario classes in which the device reaches `class_of_cloud`"
    )
    class_of_cloud: Share = Field(
        0.98,
        description="device score of a class as a share of the cloud's, to count in of_cloud_classes",
    )
    false_acts: Share = Field(1.0, description="most acts on sentences that are not for the home")
    invented: int = Field(0, ge=0, description="most devices that do not exist")
    size_of_cloud: Share = Field(1.0, description="device bytes as a share of the cloud's")
    worse_than_live: Share = Field(
        0.01,
        description="most that a promotion may lose of exact actions, in all and in each language",
    )
    worse_in_class: Share = Field(
        0.05, description="most that a promotion may lose of exact actions in one scenario class"
    )


SiteWord = Annotated[str, Field(pattern=r"""^[^\s'"\\$`#]+$""")]


class Slurm(Frozen):
    """What a Slurm site wants to be told. A field that is not set is not in the script: nothing is invented."""

    account: SiteWord | None = None
    partition: SiteWord | None = None
    qos: SiteWord | None = None
    reservation: SiteWord | None = None
    constraint: SiteWord | None = Field(
        None, description="features a node must have, such as h100&ib"
    )
    gres: SiteWord | None = Field(
        None,
        description="what the site calls a card, such as gpu:h100; default: --gpus-per-node alone",
    )
    setup: tuple[str, ...] = Field(
        (), description='lines of shell before the ranks start, such as "module load cuda/12.8"'
    )


class Kubernetes(Frozen):
    """What a Kubernetes cluster wants to be told."""

    image: SiteWord | None = Field(
        None, description="container image with tumen[train] in it; must be set to launch"
    )
    namespace: SiteWord | None = Field(None, description="default: the one of the kubeconfig")
    queue: SiteWord | None = Field(
        None, description="Kueue's LocalQueue, which admits all nodes of a job together or none"
    )
    priority: SiteWord | None = Field(None, description="Kueue's WorkloadPriorityClass")
    volumes: dict[SiteWord, SiteWord] = Field(
        {}, description='folder to PersistentVolumeClaim, such as { "/runs" = "runs" }'
    )
    resource: SiteWord = Field("nvidia.com/gpu", description="what the cluster calls a card")
    shared_memory: SiteWord = Field("16Gi", description="/dev/shm of a node, where ranks meet")
    service_account: SiteWord | None = None
    restarts: int = Field(3, ge=0, description="how often JobSet starts the whole gang again")


class Fleet(Frozen):
    """The cards a team has and the engine that starts processes on them."""

    accelerators: str = Field(
        "cpu:1", description="card:count, such as h800:10000; several with commas"
    )
    engine: str = Field(
        "local", description="local, slurm, kubernetes or your own 'package.module:Class'"
    )
    accelerators_per_node: Positive | None = Field(
        None, description="cards, and so ranks, of a node; default: those of the card"
    )
    avoid: tuple[SiteWord, ...] = Field((), description="nodes to leave out")
    limit: str | None = Field(
        None, description="time limit of a job, such as 36h; default: the engine's"
    )
    grace: str = Field(
        "5min", description="before the limit: ranks are told to stop, and the job is queued again"
    )
    environment: dict[SiteWord, str] = Field(
        {}, description='variables of every rank, such as { NCCL_SOCKET_IFNAME = "ib" }'
    )
    python: SiteWord | None = Field(
        None, description="interpreter on the nodes; default: this one (kubernetes: python3)"
    )
    slurm: Slurm = Slurm()
    kubernetes: Kubernetes = Kubernetes()

    @model_validator(mode="after")
    def _durations(self) -> Fleet:
        for name in ("limit", "grace"):
            try:
                units.seconds(getattr(self, name) or 0)
            except InputError as error:
                raise ValueError(f"{name}: {error}") from None
        return self


class Planning(Frozen):
    """What the planner needs beyond the network: the work of the run, its price, and how the cluster fails."""

    tier: str | None = Field(
        None, description="which tier is planned; default: the first of the family"
    )
    seq_len: int | None = Field(
        None, gt=0, description="tokens of a sequence; default: the tier's seq_len"
    )
    batch_tokens: str | int | None = Field(
        None, description="tokens of one step, such as 16M; default: batch_size x seq_len"
    )
    tokens: str | int | None = Field(
        None, description="tokens of the whole run, such as 8.1T; default: from the tier's steps"
    )
    precision: Literal["bf16", "fp8", "fp4"] | None = Field(
        None, description="of the matmuls; default: the tier's own"
    )
    framework: str = Field("default", description="a name of plan/software.toml")
    release: str = Field("", description="release of the framework, such as 2026-04")
    pin: dict[Literal["tp", "pp", "vpp", "ep", "cp", "micro_batch", "zero"], Positive] = Field(
        {}, description="parts of the layout that are decided already, such as { pp = 16, ep = 8 }"
    )
    schedules: tuple[Literal["1f1b", "interleaved", "zero-bubble", "dualpipe"], ...] = Field(
        ("1f1b", "interleaved", "zero-bubble", "dualpipe"),
        description="pipeline schedules the framework can run",
        min_length=1,
    )
    oversubscription: float = Field(
        1.0, ge=1, description="of the network between nodes: 2 halves every card's rate"
    )
    price: float | None = Field(
        None, ge=0, description="of one card and hour; default: the card's assumption"
    )
    currency: str = Field("USD", min_length=1)
    energy_price: float = Field(0.1, ge=0, description="of one kilowatt-hour")
    failures: float = Field(4.0, ge=0, description="node failures for 1,000 node-days")
    software_failures: float = Field(
        0.05, ge=0, description="failures of the job itself for a day, whatever its size"
    )
    detect_seconds: float = Field(120.0, ge=0, description="until a failure is noticed")
    restart_seconds: float = Field(480.0, ge=0, description="until the run computes again")
    checkpoint_bytes_per_second: float = Field(2e9, gt=0, description="one node's rate to storage")
    replica_seconds: float | None = Field(
        None,
        gt=0,
        description="training waits for a copy of the state in a neighbour's memory; default: no copies, disk alone",
    )
    replicas_lost: Share = Field(
        0.02,
        gt=0,
        description="of the failures: those that take the copies with them, so that disk serves",
    )
    repair_days: float = Field(2.0, ge=0, description="until a broken node is back")
    stragglers: Share = Field(0.01, description="share of the speed lost to slow nodes")


class Variant(Frozen):
    """One variant: a tier of the family with changes. `set` works as `--set` does: the value at a path is replaced whole."""

    tier: str = Field(description="tier of the family it starts from")
    set: dict[str, Any] = Field(
        {}, description='changes by path in the tier, such as { "train.learning_rate" = 1e-3 }'
    )
    without: tuple[str, ...] = Field(
        (),
        description='what the tier has and the variant has not, such as ["shape.experts", "distil"]',
    )

    @model_validator(mode="before")
    @classmethod
    def _table(cls, value: Any) -> Any:
        if not isinstance(value, dict | Variant):
            raise ValueError(
                "neither a field (seeds, budget, seconds, eval) nor a variant, which is a table with a tier"
            )
        return value


class Ablation(Frozen):
    """Variants trained side by side, `[ablation.NAME]` each, at one budget and several seeds of weights and order."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Variant]
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((1, 2, 3), min_length=1)
    budget: str | float | None = Field(
        None, description="FLOPs of a variant and seed, such as 2e15"
    )
    seconds: float | None = Field(
        None,
        gt=0,
        description="instead: seconds of training steps of a variant and seed, on this machine",
    )
    eval: bool = Field(False, description="pack every variant and run the recipe's eval on it")

    @model_validator(mode="after")
    def _one_budget(self) -> Ablation:
        if (self.budget is None) == (self.seconds is None):
            raise ValueError("set one of budget (FLOPs) and seconds")
        if self.budget is not None and self.flops() <= 0:
            raise ValueError(f"budget {self.budget!r} must be above 0 FLOPs")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed stands twice in seeds")
        if not self.each():
            raise ValueError(
                "there is no variant; write a table [ablation.NAME] with a tier for each"
            )
        for name in self.each():
            if not re.fullmatch(VARIANT_NAME, name):
                raise ValueError(
                    f"{name!r}: a variant's name is its folder: small letters, digits, - and _, and not 'table'"
                )
        return self

    def flops(self) -> float:
        """The budget as a number."""
        try:
            return units.count(self.budget or 0)
        except InputError as error:
            raise ValueError(f"budget: {error}") from None

    def each(self) -> dict[str, Variant]:
        """The variants by name, in the recipe's order."""
        return self.__pydantic_extra__


class Recipe(Frozen):
    """One recipe, from sentences to a gated bundle."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="names the run's folder")
    seed: int = 0
    data: Data = Data()
    tokenizer: Tokenizer = Tokenizer()
    family: dict[str, Tier] = Field(min_length=1)
    serve: Serve = Serve()
    gate: Gate = Gate()
    fleet: Fleet = Fleet()
    plan: Planning = Planning()
    ablation: Ablation | None = Field(
        None, description="variants that `tumen ablate` trains side by side"
    )
    home: str | None = Field(
        None, description="TOML of the home that `tumen talk` acts on; default: the example"
    )

    @model_validator(mode="after")
    def _tiers(self) -> Recipe:
        faults = list(self._tier_faults())
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _tier_faults(self) -> Iterator[str]:
        """Names that fit nothing, each with its dotted path."""
        tiers = f"is no tier; the family has {', '.join(self.family)}"
        strangers = False
        for name, tier in self.family.items():
            if not re.fullmatch(TIER_NAME, name):
                taken = ", ".join(STAGE_NAMES)
                yield f"family.{name}: a tier's name is its folder: small letters, digits, - and _, and none of {taken}"
            for field, other in (
                ("distil.teacher", tier.distil and tier.distil.teacher),
                ("prune", tier.prune),
            ):
                if other and (other not in self.family or other == name):
                    strangers = True
                    yield f"family.{name}.{field}: {other!r} is no other tier of the family"
        if not strangers and len(order := self.tiers_in_order()) < len(self.family):
            yield f"family: tiers are made from each other in a circle: {', '.join(n for n in self.family if n not in order)}"
        for name, tier in self.family.items():
            if self.data.document_tokens and self.data.document_tokens > tier.train.seq_len:
                yield f"data.document_tokens: {self.data.document_tokens} do not fit into family.{name}.train.seq_len"
        if self.serve.device not in self.family:
            yield f"serve.device: {self.serve.device!r} {tiers}"
        if self.serve.cloud and not self.serve.cloud_url and self.serve.cloud not in self.family:
            yield f"serve.cloud: {self.serve.cloud!r} {tiers}"
        for name, variant in self.ablation.each().items() if self.ablation else ():
            if variant.tier in self.family:
                yield from (
                    f"ablation.{name}.{fault}" for fault in self._variant_faults(name, variant)
                )
            else:
                yield f"ablation.{name}.tier: {variant.tier!r} {tiers}"

    def _variant_faults(self, name: str, variant: Variant) -> Iterator[str]:
        """What is wrong with a variant of a known tier, paths from the tier on."""
        if "train.steps" in variant.set:
            yield "set: train.steps follows from the budget"
        try:
            tier = self.variant(name)
        except ValidationError as error:
            yield from faults_of(Tier, error)
        except ValueError as error:
            yield f"set: {error}"
        else:
            unknown = f"is no tier; the family has {', '.join(self.family)}"
            if tier.distil and tier.distil.teacher not in self.family:
                yield f"distil.teacher: {tier.distil.teacher!r} {unknown}"
            if tier.prune and tier.prune not in self.family:
                yield f"prune: {tier.prune!r} {unknown}"

    def variant(self, name: str) -> Tier:
        """A variant as the tier it is; its steps are still those of the tier it comes from.

        Raises:
            ValueError: its changes do not fit (a checked recipe has no such variant).
        """
        variant = (self.ablation or Ablation()).each()[name]
        tree = self.family[variant.tier].model_dump()
        for path in variant.without:
            _put(tree, path, None)
        for path, value in variant.set.items():
            _put(tree, path, value)
        return Tier.model_validate(tree)

    def document_tokens(self) -> int:
        """Most tokens of a piece of plain text."""
        return self.data.document_tokens or min(tier.train.seq_len for tier in self.family.values())

    def tiers_in_order(self) -> list[str]:
        """Tier names with every teacher, and every tier that another is cut from, before those made from it."""
        order: list[str] = []
        for _ in self.family:  # one more generation of students each time
            order += [
                n
                for n, tier in self.family.items()
                if n not in order and all(other in order for other in tier.made_from())
            ]
        return order


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `--set` changes such as `family.cloud.train.steps=10`.

    Raises:
        RecipeError: the file is missing, no UTF-8, no TOML, or has faults; all of them are listed.
    """
    try:
        tree = tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        near = sorted(str(p) for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        hint = f"; beside it: {', '.join(near)}" if near else ""
        raise RecipeError(str(path), [f"no such file{hint}"]) from None
    except IsADirectoryError:
        raise RecipeError(str(path), ["is a folder; name the .toml file in it"]) from None
    except OSError as error:
        raise RecipeError(str(path), [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise RecipeError(
            str(path), [f"not UTF-8 at byte {error.start}; save the file as UTF-8"]
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(str(path), [f"not TOML: {error}"]) from None
    except RecursionError:
        raise RecipeError(str(path), ["nested too deep to be a recipe"]) from None
    return changed(tree, changes, str(path))


def changed(tree: dict[str, Any], changes: Sequence[str], where: str) -> Recipe:
    """Check a parsed recipe after `--set` changes, which are made in `tree`; `where` names it in the error.

    Raises:
        RecipeError: with every fault.
    """
    for change in changes:
        _apply(tree, change, where)
    return recipe_of(tree, where)


def recipe_of(tree: Mapping[str, Any], where: str) -> Recipe:
    """Check a parsed recipe; `where` names it in the error.

    Raises:
        RecipeError: with every fault.
    """
    try:
        return Recipe.model_validate(_with_shapes(tree, where))
    except ValidationError as error:
        raise RecipeError(where, faults_of(Recipe, error)) from None


def _with_shapes(tree: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The tree with what outside models say of themselves: the shape of each tier that starts from one and says none, and whose
    vocabulary it is.

    Raises:
        RecipeError: a model that cannot be read.
    """
    family, learnt = tree.get("family"), tree.get("tokenizer", {})
    if not isinstance(family, dict) or not isinstance(learnt, dict):
        return tree
    tiers, faults = dict(family), []
    for name, tier in family.items():
        start = tier.get("init_from") if isinstance(tier, dict) else None
        start = {"path": start} if isinstance(start, str) else start
        if not isinstance(start, dict) or not isinstance(start.get("path"), str):
            continue
        try:
            start = {**start, "path": located(start["path"])}
            tiers[name] = tier = {**tier, "init_from": start}
            if "shape" not in tier:
                tiers[name] = {**tier, "shape": _shape_of(start)}
            if "init_from" not in learnt and has_vocabulary(Path(start["path"])):
                learnt = {
                    "init_from": start["path"],
                    "vocab_size": shape_of_start(Path(start["path"])).vocab_size,
                    **learnt,
                }
        except InputError as error:
            faults.append(f"family.{name}.init_from.path: {error}")
    if faults:
        raise RecipeError(where, faults)
    return {**tree, "family": tiers} | ({"tokenizer": learnt} if learnt else {})


def _shape_of(start: Mapping[str, Any]) -> dict[str, Any]:
    """The shape of what a tier starts from, as a recipe says it."""
    shape = shape_of_start(Path(start["path"])).model_dump(exclude={"vocab_size"})
    asked = start.get("layers") or shape["num_hidden_layers"]
    which = list(range(asked)) if isinstance(asked, int) else asked
    if not isinstance(which, list | tuple) or not all(isinstance(layer, int) for layer in which):
        return shape  # the field's own fault is told
    if which and which[-1] >= shape["num_hidden_layers"]:
        raise InputError(
            f"{start['path']} has {shape['num_hidden_layers']} layers, number {which[-1]} (from 0 on) is asked for"
        )
    if list(which) != sorted(set(which)):
        raise InputError(f"layers {list(which)} are not in rising order")
    return shape | {"num_hidden_layers": len(which)}


def _apply(tree: dict[str, Any], change: str, where: str) -> None:
    path, equals, text = change.partition("=")
    if not equals or not path.strip():
        raise RecipeError(where, [f"--set {change!r}: write it as dotted.path=value"])
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    try:
        _put(tree, path, value)
    except ValueError as error:
        raise RecipeError(where, [f"--set {change!r}: {error}"]) from None


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set what stands at a dotted path, making the sections above it.

    Raises:
        ValueError: a part of the path is a value, not a section.
    """
    *parents, leaf = path.strip().split(".")
    for parent in parents:
        if tree.get(parent) is None:
            tree[parent] = {}
        tree = tree[parent]
        if not isinstance(tree, dict):
            raise ValueError(f"{parent!r} is a value, not a section")
    tree[leaf] = value

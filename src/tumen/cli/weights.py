"""`tumen export` and `tumen import`: a checkpoint out to the folder that transformers reads, and such a folder in."""

from __future__ import annotations

import json
import shutil
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from tumen.core import units
from tumen.core.errors import ExportError, InputError
from tumen.core.extras import needs
from tumen.core.shape import Shape
from tumen.data import Codec, read_corpus

CHECKED = 200  # sentences of the exam that an ExecuTorch program is held against
AGREEMENT = 0.99


class Precision(Enum):
    """Types that weights are written in."""

    fp32 = "fp32"
    bf16 = "bf16"


class To(Enum):
    """What a checkpoint is written for."""

    hf = "hf"
    adapter = "adapter"
    executorch = "executorch"


class Delegate(Enum):
    """Who computes an ExecuTorch program."""

    xnnpack = "xnnpack"
    qualcomm = "qualcomm"
    mediatek = "mediatek"


def export(
    checkpoint: Path = typer.Argument(
        ..., help="A trained tier, such as runs/pocket/cloud, or what `tumen import` wrote."
    ),
    out: Path = typer.Argument(..., help="A new folder; for an adapter, a new file."),
    to: To = typer.Option(
        To.hf,
        help="hf: config.json and safetensors (an adapter: with its base); adapter: a GGUF that is read beside its base; "
        "executorch: model.pte for phones.",
    ),
    precision: Precision = typer.Option(
        Precision.fp32, help="Of the written weights; bf16 rounds."
    ),
    shard: str = typer.Option("5GB", help="Most bytes of one file."),
    like: Path = typer.Option(
        None,
        help="A public folder of the same shape: its tokeniser files and token ids are taken over.",
    ),
    delegate: Delegate = typer.Option(
        Delegate.xnnpack, help="executorch: who computes; the vendors' need their SDK."
    ),
    soc: str = typer.Option(
        "", help="executorch: the chip, such as SM8650 (qualcomm) or mt6989 (mediatek)."
    ),
    quantise: str = typer.Option(
        "int8", help="executorch: int8 (xnnpack alone) or bf16, which quantises nothing."
    ),
    context: int = typer.Option(
        512, min=8, help="executorch: tokens of sentence and action together."
    ),
    run: Path = typer.Option(
        None,
        help="executorch: the run whose exam the tokens are held against; default: the checkpoint's.",
    ),
) -> None:
    """Write a checkpoint as DeepseekV2ForCausalLM (MLA) or LlamaForCausalLM (GQA without experts), an adapter as GGUF, or an
    ExecuTorch program."""
    if to is To.executorch:
        print(
            _executorch(
                checkpoint, out, quantise, context, delegate.value, soc, run or checkpoint.parent
            )
        )
        return
    with needs("writing weights"):
        from tumen.shrink import export_adapter
        from tumen.train.weights import export_public
    if to is To.adapter:
        export_adapter(checkpoint, out)
        print(f"{out}: an adapter, {units.show_bytes(out.stat().st_size)}")
        return
    export_public(checkpoint, out, int(units.size_bytes(shard)), precision.value, like)
    size = units.show_bytes(sum(path.stat().st_size for path in out.iterdir()))
    print(
        f"{out}: {json.loads((out / 'config.json').read_text())['architectures'][0]}, {precision.value}, {size}"
    )


def _executorch(
    checkpoint: Path, out: Path, quantise: str, context: int, delegate: str, soc: str, run: Path
) -> str:
    """Write the program and, where it can run here and the run's exam is there, hold its tokens against torch's."""
    with needs("writing an ExecuTorch program"):
        from tumen.shrink import check_export, export_pte, run_pte
    if out.exists():
        raise InputError(f"{out}: exists; name a new folder")
    export_pte(checkpoint, out, quantise, context, delegate, soc)
    size = units.show_bytes((out / "model.pte").stat().st_size)
    corpus, tokenizer = run / "corpus", run / "tokenizer"
    if delegate != "xnnpack" or not (corpus.is_dir() and tokenizer.is_dir()):
        return f"{out}: {delegate}, {quantise}, {size}; not run here"
    end, sentences = (
        Codec.load(tokenizer).end,
        [str(row["sentence"]) for row in read_corpus(corpus, "exam")][:CHECKED],
    )
    try:
        found = check_export(
            checkpoint,
            tokenizer,
            sentences,
            run_pte(out / "model.pte", end, context // 2),
            AGREEMENT,
        )
    except ExportError:
        shutil.rmtree(out)
        raise
    for name in ("tokenizer.json", "ontology.json"):
        shutil.copy(tokenizer / name, out / name)
    shutil.copy(corpus / "values.json", out / "values.json")
    return f"{out}: {delegate}, {quantise}, {size}; {found['agreement']:.2%} of {found['positions']} tokens are torch's"


def import_(
    model: Path = typer.Argument(
        ..., help="A GGUF file, or a folder with config.json and safetensors."
    ),
    out: Path = typer.Argument(..., help="A new folder for the checkpoint."),
) -> None:
    """Read a GGUF (llama, deepseek2), DeepseekV2ForCausalLM or LlamaForCausalLM as a checkpoint that a tier can start from."""
    with needs("reading weights"):
        from tumen.train.weights import import_public
    shape = import_public(model, out)
    print(
        f"{out}: {units.show_count(shape.parameters())} parameters. In a recipe of the same vocabulary:"
    )
    print("\n".join(_section(shape, out)))


def _section(shape: Shape, out: Path) -> list[str]:
    """Lines of a recipe for a tier that starts from an imported checkpoint."""
    fields = shape.model_dump(exclude_defaults=True, exclude={"vocab_size", "attention", "experts"})
    lines = ["[family.cloud]", f"init_from = {json.dumps(str(out))}", "", "[family.cloud.shape]"]
    lines += [f"{name} = {_toml(value)}" for name, value in fields.items()]
    lines += [
        f"attention = {_toml({'kind': shape.attention.kind} | shape.attention.model_dump(exclude_defaults=True))}"
    ]
    return lines + (
        [f"experts = {_toml(shape.experts.model_dump(exclude_defaults=True))}"]
        if shape.experts
        else []
    )


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items()) + " }"
    return json.dumps(value)

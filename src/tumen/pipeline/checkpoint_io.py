"""Checkpoints out to the formats of others, and pretrained models in."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tumen.core import units
from tumen.core.errors import ExportError, InputError
from tumen.core.extras import needs
from tumen.core.shape import Shape
from tumen.data import Codec, read_corpus
from tumen.pipeline.preparation import CORPUS, TOKENIZER

COMPARED_SENTENCES = 200  # of the eval suite that an ExecuTorch program is compared on
AGREEMENT = 0.99  # share of tokens that must be torch's
PURPOSE = "reading and writing weights"


def export_hf(
    checkpoint: Path,
    out: Path,
    shard_bytes: int,
    precision: Literal["fp32", "bf16"],
    like: Path | None,
) -> str:
    """Write a checkpoint as a folder that transformers reads; return a line about it.

    Args:
        checkpoint: artifact folder.
        out: a new folder.
        shard_bytes: most bytes of one file.
        precision: fp32 or bf16.
        like: a public folder of the same shape, whose tokenizer files and token ids are taken over.
    """
    with needs(PURPOSE):
        from tumen.train.weights import export_public
    export_public(checkpoint, out, shard_bytes, precision, like)
    size = sum(path.stat().st_size for path in out.iterdir())
    architecture = json.loads((out / "config.json").read_text())["architectures"][0]
    return f"{out}: {architecture}, {precision}, {units.show_bytes(size)}"


def export_adapter_gguf(checkpoint: Path, out: Path) -> str:
    """Write an adapter as a GGUF file that is read beside its base; return a line about it."""
    with needs(PURPOSE):
        from tumen.shrink import export_adapter
    export_adapter(checkpoint, out)
    return f"{out}: an adapter, {units.show_bytes(out.stat().st_size)}"


@dataclass(frozen=True)
class Program:
    """What an ExecuTorch program is made for.

    Attributes:
        quantize: int8 or bf16.
        context: tokens of sentence and action together.
        delegate: the backend that computes: xnnpack, qualcomm, mediatek.
        soc: the chip, for the vendors' backends.
    """

    quantize: str
    context: int
    delegate: str
    soc: str


def export_executorch(checkpoint: Path, out: Path, program: Program, run: Path) -> str:
    """Write a checkpoint as an ExecuTorch program; return a line about it.

    Where the program can run here and the run has an eval suite, its tokens are compared with
    torch's.

    Args:
        checkpoint: artifact folder.
        out: a new folder.
        program: what it is made for.
        run: the run whose suite and tokenizer are used.

    Raises:
        InputError: `out` exists.
        ExportError: too few tokens agree; `out` is removed.
    """
    with needs("writing an ExecuTorch program"):
        from tumen.shrink import export_pte
    if out.exists():
        raise InputError(f"{out}: exists; name a new folder")
    export_pte(checkpoint, out, program.quantize, program.context, program.delegate, program.soc)
    size = units.show_bytes((out / "model.pte").stat().st_size)
    about = f"{out}: {program.delegate}, {program.quantize}, {size}"
    corpus = run / CORPUS
    tokenizer = run / TOKENIZER
    runs_here = program.delegate == "xnnpack"
    if not (runs_here and corpus.is_dir() and tokenizer.is_dir()):
        return f"{about}; not run here"
    found = _compare_with_torch(checkpoint, out, program.context, corpus, tokenizer)
    for name in ("tokenizer.json", "ontology.json"):
        shutil.copy(tokenizer / name, out / name)
    shutil.copy(corpus / "values.json", out / "values.json")
    return f"{about}; {found['agreement']:.2%} of {found['positions']} tokens are torch's"


def _compare_with_torch(
    checkpoint: Path, out: Path, context: int, corpus: Path, tokenizer: Path
) -> dict[str, Any]:
    """Compare the tokens of a program with torch's.

    Raises:
        ExportError: too few agree; `out` is removed.
    """
    from tumen.shrink import check_export, run_pte

    rows = read_corpus(corpus, "eval")
    sentences = [str(row["sentence"]) for row in rows][:COMPARED_SENTENCES]
    end = Codec.load(tokenizer).end
    complete = run_pte(out / "model.pte", end, context // 2)
    try:
        return check_export(checkpoint, tokenizer, sentences, complete, AGREEMENT)
    except ExportError:
        shutil.rmtree(out)
        raise


def import_checkpoint(model: Path, out: Path) -> Shape:
    """Read a pretrained model as a checkpoint artifact; return its shape.

    Args:
        model: a GGUF file, or a folder with config.json and safetensors.
        out: a new folder.
    """
    with needs(PURPOSE):
        from tumen.train.weights import import_public
    shape: Shape = import_public(model, out)
    return shape


def recipe_section(shape: Shape, checkpoint: Path) -> list[str]:
    """Return the lines of a recipe for a tier that starts from an imported checkpoint."""
    apart = {"vocab_size", "attention", "experts"}
    fields = shape.model_dump(exclude_defaults=True, exclude=apart)
    start = json.dumps(str(checkpoint))
    lines = ["[family.cloud]", f"init_from = {start}", "", "[family.cloud.shape]"]
    lines += [f"{name} = {_toml(value)}" for name, value in fields.items()]
    attention = {"kind": shape.attention.kind}  # a default, but it names the kind
    attention |= shape.attention.model_dump(exclude_defaults=True)
    lines.append(f"attention = {_toml(attention)}")
    if shape.experts:
        lines.append(f"experts = {_toml(shape.experts.model_dump(exclude_defaults=True))}")
    return lines


def _toml(value: Any) -> str:
    """Return a value as TOML; a table stands on one line."""
    if isinstance(value, dict):
        fields = ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items())
        return f"{{ {fields} }}"
    return json.dumps(value)

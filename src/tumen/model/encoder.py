"""A bidirectional encoder (BERT, arXiv 1810.04805): post-norm blocks, learned positions, erf GELU.

It reads packed rows: a token sees the tokens of its own sentence, before and after it. Heads say
the labels of `tumen.language.Labels`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tumen.core.shape import EncoderShape

DEVIATION = 0.02  # of a fresh matrix, as in BERT
# Heads learn this much faster than the rest, which may be pretrained: their weights are multiplied
# with it, so that one learning rate serves both (Adam's steps have one size whatever the gradient).
HEAD_SCALE = 8.0

HEADS = ("sentence.", "tags.", "by_intent.")  # names of the label heads begin so


class EncoderBlock(nn.Module):
    """x = norm(x + attention x), then norm(x + feed-forward x)."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        width = shape.hidden_size
        self.heads = shape.num_attention_heads
        self.dropout = shape.hidden_dropout_prob
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm_attention = nn.LayerNorm(width, shape.layer_norm_eps)
        self.up = nn.Linear(width, shape.intermediate_size)
        self.down = nn.Linear(shape.intermediate_size, width)
        self.norm_feed = nn.LayerNorm(width, shape.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Input (B, T, D); mask (B, 1, T, T), additive."""
        attended = F.scaled_dot_product_attention(
            self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x)), mask
        )  # (B, H, T, D / H)
        joined = attended.transpose(1, 2).flatten(2)  # (B, T, D)
        x = self.norm_attention(x + self._dropped(self.out(joined)))
        fed = self.down(F.gelu(self.up(x)))
        return self.norm_feed(x + self._dropped(fed))

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, D / H)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class LabelLogits(NamedTuple):
    """Outputs of the heads: sentence (N, S), and a tag for each token (B, T, K).

    The tags still lack what `SentenceEncoder.by_intent` adds once an intent is known.
    """

    sentence: Tensor
    tags: Tensor


class SentenceEncoder(nn.Module):
    """Tokens (B, T) -> label logits."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        if not shape.vocab_size:
            raise ValueError("shape.vocab_size is 0: take it from the tokenizer first")
        self.shape = shape
        width = shape.hidden_size
        sentence, tags, intents = shape.labels
        self.embed = nn.Embedding(shape.vocab_size, width)
        self.positions = nn.Embedding(shape.max_position_embeddings, width)
        self.norm = nn.LayerNorm(width, shape.layer_norm_eps)
        layers = range(shape.num_hidden_layers)
        self.blocks = nn.ModuleDict({str(layer): EncoderBlock(shape) for layer in layers})
        self.sentence = nn.Linear(2 * width, sentence)
        self.tags = nn.Linear(width, tags)
        self.by_intent = nn.Embedding(intents, tags)

    def states(self, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Hidden states (B, T, D) of tokens.

        Args:
            ids: (B, T).
            positions: (B, T) place of each token in its own sentence.
            mask: (B, 1, T, T) additive, see `sentence_mask`.
        """
        x = self.norm(self.embed(ids) + self.positions(positions))  # (B, T, D)
        x = F.dropout(x, self.shape.hidden_dropout_prob, self.training)
        mask = mask.to(x.dtype)
        for block in self.blocks.values():
            x = block(x, mask)
        return x

    def labels(self, states: Tensor, sentences: Tensor, firsts: Tensor) -> LabelLogits:
        """Label logits of hidden states.

        Args:
            states: (B, T, D).
            sentences: (B * T,) number of the sentence of each token, from 0; N for padding.
            firsts: (N,) place of the first token of each sentence, of B * T.
        """
        flat = states.flatten(0, 1)  # (B T, D)
        count = len(firsts)
        sums = flat.new_zeros(count + 1, flat.shape[1], dtype=torch.float32)
        sums = sums.index_add(0, sentences, flat.float())
        sizes = torch.bincount(sentences, minlength=count + 1).clamp(min=1)
        means = (sums / sizes.unsqueeze(1))[:count].to(flat.dtype)  # (N, D)
        pooled = torch.cat((means, flat[firsts]), dim=1)  # (N, 2 D)
        return LabelLogits(scaled(self.sentence, pooled), scaled(self.tags, states))

    def intent_bias(self, intents: Tensor) -> Tensor:
        """What known intents (N,) add to the tags of their sentences, (N, K)."""
        return HEAD_SCALE * self.by_intent(intents)

    def every_block(self) -> list[nn.Module]:
        """The layers."""
        return list(self.blocks.values())


def label_heads(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the label heads among some weights, so that logits are plain products with them."""
    return {
        name: (HEAD_SCALE * weight).contiguous()
        for name, weight in weights.items()
        if name.startswith(HEADS)
    }


def scaled(head: nn.Linear, x: Tensor) -> Tensor:
    """Logits of a head; see `HEAD_SCALE`."""
    return HEAD_SCALE * head(x)


def sentence_mask(documents: Tensor) -> Tensor:
    """Additive mask (B, 1, T, T): a token sees the tokens of its own sentence.

    Padding sees padding, as a row of the softmax must not be empty.

    Args:
        documents: (B, T) number of the sentence in its row.
    """
    same = documents.unsqueeze(2) == documents.unsqueeze(1)  # (B, T, T)
    mask = torch.zeros(same.shape, device=documents.device)
    return mask.masked_fill_(~same, float("-inf")).unsqueeze(1)


def build_encoder(shape: EncoderShape, seed: int = 0) -> SentenceEncoder:
    """A fresh fp32 encoder, each weight from its name and the seed alone."""
    network = SentenceEncoder(shape)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(_fresh(name, weight.shape, seed))
    return network


def _fresh(name: str, size: torch.Size, seed: int) -> Tensor:
    """Matrices are normal, norms ones, biases zero; what an intent adds begins as zero."""
    if name.startswith("by_intent") or name.endswith(".bias"):
        return torch.zeros(size)
    if len(size) < 2:
        return torch.ones(size)
    digits = hashlib.sha256(f"{seed} {name}".encode()).digest()[:8]
    generator = torch.Generator().manual_seed(int.from_bytes(digits, "little") >> 1)
    deviation = DEVIATION
    if name.startswith(("sentence", "tags")):
        deviation = DEVIATION / HEAD_SCALE
    return torch.empty(size).normal_(0, deviation, generator=generator)

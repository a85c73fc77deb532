"""model: the network.

What: a decoder-only transformer from one `Shape`: MLA or GQA attention, dense or DeepSeekMoE
    feed-forward; an encoder with label heads from one `EncoderShape`.
In: a `Shape` with its vocabulary.
Out: a `Transformer` with stable parameter names, `Cache` for decoding, greedy continuation; public
    names of its weights (`tumen.model.names`).
Never: data, optimizers, files.
Read next: transformer.py, then attention.py and experts.py; names/ for public formats.
"""

from tumen.model.cache import Cache
from tumen.model.decode import greedy
from tumen.model.encoder import HEADS, SentenceEncoder, build_encoder, label_heads, sentence_mask
from tumen.model.experts import FeedForward, MixtureOfExperts
from tumen.model.kernels import KERNELS, TokenDispatcher
from tumen.model.transformer import Block, Transformer, build, causal_mask, fresh, visible

__all__ = [
    "HEADS",
    "KERNELS",
    "Block",
    "Cache",
    "FeedForward",
    "MixtureOfExperts",
    "SentenceEncoder",
    "TokenDispatcher",
    "Transformer",
    "build",
    "build_encoder",
    "causal_mask",
    "fresh",
    "greedy",
    "label_heads",
    "sentence_mask",
    "visible",
]

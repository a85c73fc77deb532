"""model: which network?

What: a decoder-only transformer from one `Shape`: MLA or GQA attention, dense or DeepSeekMoE feed-forward.
In: a `Shape` with its vocabulary.
Out: a `Transformer` with stable parameter names, `Cache` for decoding, greedy continuation, public names of its weights.
Never: data, optimisers, files.
Read next: transformer.py, then attention.py and experts.py; names.py and gguf_names.py for the world outside.
"""

from tumen.model.cache import Cache
from tumen.model.decode import greedy
from tumen.model.experts import FeedForward, MixtureOfExperts
from tumen.model.gguf_names import from_gguf, gguf_name, gguf_sizes, to_gguf, turned
from tumen.model.kernels import KERNELS, TokenDispatcher
from tumen.model.names import (
    Name,
    check_weights,
    from_public,
    interleave,
    inwards,
    layer_of,
    names_of,
    outwards,
    sizes_of,
    to_public,
)
from tumen.model.transformer import Block, Transformer, build, causal_mask, fresh, visible

__all__ = [
    "KERNELS",
    "Block",
    "Cache",
    "FeedForward",
    "MixtureOfExperts",
    "Name",
    "TokenDispatcher",
    "Transformer",
    "build",
    "causal_mask",
    "check_weights",
    "fresh",
    "from_gguf",
    "from_public",
    "gguf_name",
    "gguf_sizes",
    "greedy",
    "interleave",
    "inwards",
    "layer_of",
    "names_of",
    "outwards",
    "sizes_of",
    "to_gguf",
    "to_public",
    "turned",
    "visible",
]

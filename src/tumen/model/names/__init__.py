"""Names of weights in public formats: transformers' architectures and llama.cpp's GGUF."""

from tumen.model.names.encoder_names import TYPES, EncoderName, encoder_names
from tumen.model.names.gguf_names import from_gguf, gguf_name, gguf_sizes, to_gguf, turned
from tumen.model.names.public_names import (
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

__all__ = [
    "TYPES",
    "EncoderName",
    "Name",
    "check_weights",
    "encoder_names",
    "from_gguf",
    "from_public",
    "gguf_name",
    "gguf_sizes",
    "interleave",
    "inwards",
    "layer_of",
    "names_of",
    "outwards",
    "sizes_of",
    "to_gguf",
    "to_public",
    "turned",
]

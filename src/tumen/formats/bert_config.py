"""`config.json` of a public BERT -> `EncoderShape`; what no encoder here does is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tumen.core.errors import InputError
from tumen.core.shape import EncoderShape

MODEL_TYPE = "bert"
TAKEN = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "layer_norm_eps",
    "vocab_size",
)
# Fields that may only say what the encoder here does anyway.
PLAIN: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "quantization_config": (None,),
}


def is_bert(config: Mapping[str, Any]) -> bool:
    """Whether a parsed config.json is one of a BERT."""
    return config.get("model_type") == MODEL_TYPE


def encoder_shape_of(config: Mapping[str, Any], where: str) -> EncoderShape:
    """Return the shape that a BERT's config.json describes.

    Raises:
        InputError: a field is missing, or has a value that no encoder here has.
    """
    for name, allowed in PLAIN.items():
        value = config.get(name, allowed[0])
        if value not in allowed:
            raise InputError(f"{where}: {name} is {value!r}; {allowed[0]!r} is read")
    fields = {name: config[name] for name in TAKEN if name in config}
    try:
        return EncoderShape(**fields)
    except ValidationError as error:
        fault = error.errors()[0]
        path = ".".join(map(str, fault["loc"]))
        raise InputError(f"{where}: {path}: {fault['msg']}") from None

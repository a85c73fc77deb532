"""formats: read and check files that others wrote.

What: headers of GGUF and safetensors, tokenizer.json, Hugging Face's config.json, pretrained
models, ggml's tensor types.
In: untrusted files.
Out: checked headers, a `Shape`, a vocabulary; `InputError` that says what is wrong and where.
Never: torch, pickle, a size believed before it is checked against the file.
Read next: gguf_header.py, then hf_config.py and pretrained.py.
"""

from tumen.formats import (
    byte_level,
    e5_file,
    ggml_types,
    gguf_header,
    safetensors_header,
    tokenizer_json,
)
from tumen.formats.gguf_layout import Header
from tumen.formats.hf_config import architecture_of, config_of, shape_of
from tumen.formats.pretrained import (
    CONFIG,
    digest_of_start,
    has_vocabulary,
    header_of,
    is_gguf,
    located,
    read_json,
    shape_of_gguf,
    shape_of_start,
    vocabulary_digest,
)

__all__ = [
    "CONFIG",
    "Header",
    "architecture_of",
    "byte_level",
    "config_of",
    "digest_of_start",
    "e5_file",
    "ggml_types",
    "gguf_header",
    "has_vocabulary",
    "header_of",
    "is_gguf",
    "located",
    "read_json",
    "safetensors_header",
    "shape_of",
    "shape_of_gguf",
    "shape_of_start",
    "tokenizer_json",
    "vocabulary_digest",
]

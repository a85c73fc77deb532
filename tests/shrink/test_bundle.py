"""Bundles, and the gate that holds an export against torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tumen.core.artifact import verify
from tumen.core.errors import ArtifactError, ExportError
from tumen.data import Codec, read_corpus
from tumen.model import build, greedy
from tumen.serve.runners import load_runner, read_bundle_info
from tumen.shrink import BundleInputs, check_export, pack
from tumen.train.weights import read_final

ABOUT = {"recipe": "tiny", "tier": "device", "serve": {}, "gate": {}}


@pytest.fixture(scope="module")
def bundle(device: Path, tokenizer: Path, corpus: Path) -> Path:
    folder = device.with_name("packed")
    pack(BundleInputs(device, tokenizer, corpus), "int8", ABOUT, folder, "in")
    return folder


@pytest.fixture(scope="module")
def sentences(corpus: Path) -> list[str]:
    return [row["sentence"] for row in read_corpus(corpus, "eval")][:12]


@pytest.fixture(scope="module")
def torchs(device: Path, tokenizer: Path) -> Callable[[list[int]], list[int]]:
    """A completion that is torch's own, the end token included if it is reached."""
    shape, weights = read_final(device)
    network, end = build(shape).eval(), Codec.load(tokenizer).end
    network.load_state_dict(weights)

    def complete(prompt: list[int]) -> list[int]:
        found = greedy(network, prompt, end, longest=10)
        return found if len(found) == 10 else [*found, end]

    return complete


def test_a_bundle_is_whole(bundle: Path, device: Path, tokenizer: Path, corpus: Path) -> None:
    manifest = verify(bundle, "bundle")
    assert sorted(manifest.files) == ["bundle.json", "model.gguf", "ontology.json", "values.json"]
    assert manifest.made_from == [verify(folder).digest for folder in (device, tokenizer, corpus)]
    assert manifest.facts["bytes"] == sum(file.bytes for file in manifest.files.values())
    assert json.loads((bundle / "values.json").read_text()) == json.loads(
        (corpus / "values.json").read_text()
    )
    about = read_bundle_info(bundle)
    assert (about.recipe, about.tier, about.quantize) == ("tiny", "device", "int8")


def test_same_tier_same_digest(
    bundle: Path, device: Path, tokenizer: Path, corpus: Path, tmp_path: Path
) -> None:
    assert (
        pack(
            BundleInputs(device, tokenizer, corpus), "int8", ABOUT, tmp_path / "again", "other"
        ).digest
        == verify(bundle).digest
    )
    assert (
        pack(BundleInputs(device, tokenizer, corpus), "int4", ABOUT, tmp_path / "int4", "in").digest
        != verify(bundle).digest
    )


def test_a_damaged_tier_is_not_packed(
    device: Path, tokenizer: Path, corpus: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    copy = copy_of(device)
    with open(copy / "weights.safetensors", "r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\0\1")
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        pack(BundleInputs(copy, tokenizer, corpus), "int8", ABOUT, tmp_path / "x", "in")
    assert not (tmp_path / "x").exists()


class TestGate:
    def test_torch_agrees_with_itself(
        self, device: Path, tokenizer: Path, sentences: list[str], torchs: Callable[..., list[int]]
    ) -> None:
        found = check_export(device, tokenizer, sentences, torchs, 1.0)
        assert found["agreement"] == found["whole"] == 1.0
        assert found["sentences"] == len(sentences)

    def test_counts_every_place(
        self, device: Path, tokenizer: Path, sentences: list[str], torchs: Callable[..., list[int]]
    ) -> None:
        """One wrong token at the end of one sentence is one place, for what follows is compared with torch after it."""
        spoilt = Codec.load(tokenizer).prompt(sentences[0])

        def complete(prompt: list[int]) -> list[int]:
            tokens = torchs(prompt)
            return [*tokens[:-1], (tokens[-1] + 1) % 500] if prompt == spoilt else tokens

        found = check_export(device, tokenizer, sentences, complete, 0.0)
        places = sum(len(torchs(Codec.load(tokenizer).prompt(sentence))) for sentence in sentences)
        assert found["positions"] == places
        assert found["agreement"] == round(1 - 1 / places, 5)
        assert found["whole"] == round(1 - 1 / len(sentences), 5)

    def test_the_floor_holds(self, device: Path, tokenizer: Path, sentences: list[str]) -> None:
        with pytest.raises(ExportError, match=r"at 0\.00% of 36 positions, the floor is 50\.00%"):
            check_export(device, tokenizer, sentences, lambda prompt: [0, 0, 0], 0.5)

    def test_an_export_that_says_nothing_does_not_pass(
        self, device: Path, tokenizer: Path, sentences: list[str]
    ) -> None:
        with pytest.raises(ExportError):
            check_export(device, tokenizer, sentences, lambda prompt: [], 0.5)

    def test_no_sentences_do_not_pass(
        self, device: Path, tokenizer: Path, torchs: Callable[..., list[int]]
    ) -> None:
        with pytest.raises(ExportError):
            check_export(device, tokenizer, [], torchs, 0.5)

    def test_the_real_export_agrees_and_a_tampered_one_fails(
        self,
        bundle: Path,
        device: Path,
        tokenizer: Path,
        corpus: Path,
        sentences: list[str],
        tmp_path: Path,
    ) -> None:
        def agreement(folder: Path, floor: float) -> float:
            with load_runner(folder) as runner:
                return float(
                    check_export(
                        device,
                        tokenizer,
                        sentences,
                        lambda p: list(runner.complete(p, max_tokens=12, logprobs=False).tokens),
                        floor,
                    )["agreement"]
                )

        assert agreement(bundle, 0.9) > 0.9
        from tumen.train.checkpoints.checkpoint import write_final

        shape, weights = read_final(device)
        turned = dict(weights) | {
            "blocks.1.attention.out.weight": weights["blocks.1.attention.out.weight"].flip(0) * 40
        }
        write_final(tmp_path / "tampered", turned, shape, "", [], {})
        pack(
            BundleInputs(tmp_path / "tampered", tokenizer, corpus),
            "int8",
            ABOUT,
            tmp_path / "bundle",
            "in",
        )
        with pytest.raises(ExportError, match="not the model that was trained"):
            agreement(tmp_path / "bundle", 0.9)


def test_a_changed_model_file_is_not_loaded(bundle: Path, copy_of: Callable[[Path], Path]) -> None:
    copy = copy_of(bundle)
    content = np.fromfile(copy / "model.gguf", np.uint8)
    content[-20] ^= 255
    content.tofile(copy / "model.gguf")
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        load_runner(copy)

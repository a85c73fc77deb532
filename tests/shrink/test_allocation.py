"""Calibration, what a matrix costs in a type, and the choice within a budget."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tumen.core.artifact import writing
from tumen.core.errors import ArtifactError, ExportError
from tumen.core.shape import Shape
from tumen.data import Batch
from tumen.model import build
from tumen.recipe import Quantize
from tumen.recipe.field_types import QuantType
from tumen.shrink import BundleInputs, pack
from tumen.shrink.gguf_writer import matrices_of, read_weights, tensors_of
from tumen.shrink.quant_types import QUANTIZERS
from tumen.shrink.quantize import write_types
from tumen.shrink.quantize.allocation import Option, Options, cheapest, measured, read_types
from tumen.shrink.quantize.divergence import Reference, answers_logp, some_batches
from tumen.shrink.quantize.importance import importance_of
from tumen.train import Making
from tumen.train.weights import read_final

ABOUT = {"recipe": "tiny", "tier": "device", "serve": {}, "gate": {}}
NAMES: tuple[QuantType, ...] = ("q8_0", "q5_0", "q4_0")


@pytest.fixture(scope="module")
def batches(dataset: Path) -> list[Batch]:
    return some_batches(dataset / "train", 40, 1)


@pytest.fixture(scope="module", params=["device", "cloud"])
def tier(request: pytest.FixtureRequest) -> tuple[Shape, dict[str, torch.Tensor]]:
    return read_final(request.getfixturevalue(request.param))


class TestReference:
    def test_the_same_weights_do_not_diverge_and_rounded_ones_do(
        self, device: Path, batches: list[Batch]
    ) -> None:
        shape, weights = read_final(device)
        reference = Reference(shape, weights, batches)
        assert float(reference.divergence(weights).max()) < 1e-6
        rough = {name: (weight * 8).round() / 8 for name, weight in weights.items()}
        found = reference.divergence(rough)
        assert len(found) == sum(int(batch.answers.sum()) for batch in batches)
        network = build(shape).eval()
        said = []
        for held in (weights, rough):
            network.load_state_dict(held)
            with torch.no_grad():
                said.append(answers_logp(network, batches[0]))
        wanted = torch.nn.functional.kl_div(
            said[1], said[0], log_target=True, reduction="none"
        ).sum(-1)
        torch.testing.assert_close(found[: len(wanted)], wanted, atol=1e-6, rtol=1e-4)


class TestImportance:
    def test_covers_every_matrix_and_broadcasts(
        self, tier: tuple[Shape, dict[str, torch.Tensor]], batches: list[Batch]
    ) -> None:
        shape, weights = tier
        network = build(shape)
        network.load_state_dict(weights)
        found, tensors = importance_of(network, batches), matrices_of(tensors_of(shape, weights))
        assert set(found) == set(tensors)
        for name, importance in found.items():
            assert importance.expand_as(tensors[name]).shape == tensors[name].shape
            assert importance.shape[-2] == 1
            assert (importance > 0).all()
        assert not network._forward_pre_hooks, "no hook is left"

    def test_is_the_mean_square_of_what_a_matrix_meets(
        self, device: Path, batches: list[Batch]
    ) -> None:
        shape, weights = read_final(device)
        network = build(shape)
        network.load_state_dict(weights)
        met: list[torch.Tensor] = []
        hook = network.blocks["1"].feed.down.register_forward_pre_hook(
            lambda _, given: met.append(given[0].detach())
        )  # type: ignore[union-attr, operator]
        found = importance_of(network, batches)["blk.1.ffn_down.weight"]
        hook.remove()  # type: ignore[union-attr]
        real = [torch.from_numpy(batch.documents) > 0 for batch in batches]
        mean = torch.cat([x[mask] for x, mask in zip(met, real, strict=True)]).square().mean(0)
        torch.testing.assert_close(
            found[0], (mean / mean.mean()).clamp(min=1e-3), rtol=1e-4, atol=1e-5
        )


class TestCheapest:
    @settings(max_examples=60)
    @given(data=st.data(), count=st.integers(1, 5))
    def test_is_the_best_of_all(self, data: st.DataObject, count: int) -> None:
        sizes, costs = st.integers(1, 12).map(lambda n: 32 * n), st.floats(0, 1)
        options: Options = {
            str(i): {name: Option(data.draw(sizes), data.draw(costs)) for name in NAMES}
            for i in range(count)
        }
        budget = data.draw(st.integers(32, 32 * 12 * count))
        every = [
            dict(zip(options, picks, strict=True))
            for picks in itertools.product(NAMES, repeat=count)
        ]
        size = lambda picks: sum(options[name][kind].bytes for name, kind in picks.items())  # noqa: E731
        cost = lambda picks: sum(options[name][kind].divergence for name, kind in picks.items())  # noqa: E731
        legal = [cost(picks) for picks in every if size(picks) <= budget]
        if not legal:
            with pytest.raises(ExportError, match="below what the smallest allowed types take"):
                cheapest(options, budget)
            return
        found = cheapest(options, budget)
        assert size(found) <= budget
        assert cost(found) == pytest.approx(min(legal))

    def test_a_large_budget_is_looked_at_in_coarser_steps(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tumen.shrink.quantize.allocation.MOST_UNITS", 16)
        options: Options = {
            str(i): {"q8_0": Option(1000 + i, 0.1), "q4_0": Option(500 + i, 0.2 + i)}
            for i in range(6)
        }
        found = cheapest(options, 4600)
        assert sum(options[name][quant_type].bytes for name, quant_type in found.items()) <= 4600
        assert found["5"] == "q8_0"


def test_finer_types_cost_less_and_take_more(sure: Path, batches: list[Batch]) -> None:
    shape, weights = read_final(sure)
    options = measured(
        Reference(shape, weights, batches[:1]), shape, weights, {}, ("q8_0", "q4_0", "q4_k")
    )
    assert "q4_k" not in options["blk.0.attn_q.weight"], "64 columns"
    for row in options.values():
        assert row["q8_0"].bytes > row["q4_0"].bytes
        assert row["q8_0"].divergence < row["q4_0"].divergence


@pytest.mark.parametrize("name", ["device", "cloud"])
def test_a_budget_is_kept_to_the_byte(
    name: str,
    request: pytest.FixtureRequest,
    tokenizer: Path,
    corpus: Path,
    dataset: Path,
    tmp_path: Path,
) -> None:
    """Between what int4 and int8 take; the cloud tier has stacked experts, and its embedding twice."""
    checkpoint = request.getfixturevalue(name)
    sizes = {}
    for word in ("int8", "q4_0"):
        pack(BundleInputs(checkpoint, tokenizer, corpus), word, ABOUT, tmp_path / word, "in")
        sizes[word] = (tmp_path / word / "model.gguf").stat().st_size
    budget = (sizes["int8"] + sizes["q4_0"]) // 2
    quantize = Quantize(budget=budget, calibrate=40)
    said = write_types(
        checkpoint,
        tokenizer,
        dataset,
        quantize,
        "tiny-device",
        tmp_path / "quant",
        making=Making(seed=0, inputs="in"),
    )
    packed = pack(
        BundleInputs(checkpoint, tokenizer, corpus, tmp_path / "quant"),
        "mixed",
        ABOUT,
        tmp_path / "bundle",
        "in",
    )
    model = tmp_path / "bundle" / "model.gguf"
    assert budget * 0.97 < model.stat().st_size == said.facts["bytes"] <= budget
    assert len(said.facts["types"]) > 1
    assert said.digest in packed.made_from
    shape, weights = read_final(checkpoint)
    choice, tensors, held = (
        read_types(tmp_path / "quant"),
        tensors_of(shape, weights),
        read_weights(model),
    )
    for matrix, quant_type in choice.types.items():
        chosen = QUANTIZERS[quant_type]
        assert torch.equal(
            held[matrix], chosen.fake_quantize(tensors[matrix], choice.scales[matrix])
        )


def test_a_budget_that_is_too_small_is_refused(
    device: Path, tokenizer: Path, dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="raise it, or take a smaller shape"):
        write_types(
            device,
            tokenizer,
            dataset,
            Quantize(budget="1 kB", calibrate=8),
            "t",
            tmp_path / "quant",
            making=Making(seed=0, inputs=""),
        )
    assert not (tmp_path / "quant").exists()


def test_a_type_of_tomorrow_is_refused(
    device: Path, tokenizer: Path, dataset: Path, tmp_path: Path
) -> None:
    with writing(tmp_path / "quant", "quant", "", []) as stage:
        (stage / "types.json").write_text('{"types": {"a": "q1_k"}, "bytes": null}')
    with pytest.raises(ArtifactError, match="type q1_k is not known here"):
        read_types(tmp_path / "quant")


def test_an_older_artifact_says_grids(tmp_path: Path) -> None:
    with writing(tmp_path / "quant", "quant", "", []) as stage:
        (stage / "grids.json").write_text('{"grids": {}, "bytes": 7}')
        save_file({}, stage / "scales.safetensors")
    assert read_types(tmp_path / "quant").bytes == 7

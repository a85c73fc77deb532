"""Out to `transformers` and back in: the same logits both ways, the same bits on the way back, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.strangers import lively

from tumen.core.artifact import verify
from tumen.core.errors import (
    ArtifactError,
    DiskError,
    ExportError,
    InputError,
    TrainError,
    TumenError,
)
from tumen.core.shape import Experts, Gqa, Mla, Shape, Yarn
from tumen.formats.hf_config import config_of
from tumen.model import build, causal_mask
from tumen.model.rope import angles
from tumen.train.checkpoints.checkpoint import write_final
from tumen.train.weights import export_public, import_public, read_final, start_from

CLOSE = {"atol": 1e-4, "rtol": 0.0}
LATENT = Mla(
    num_attention_heads=4,
    kv_lora_rank=16,
    q_lora_rank=12,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=12,
)
LITE = LATENT.model_copy(update={"q_lora_rank": None})
MOE = Experts(
    n_routed_experts=8,
    num_experts_per_tok=3,
    moe_intermediate_size=16,
    n_shared_experts=2,
    first_k_dense_replace=1,
)
SHORT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "vocab_size": 60,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
YARN = Yarn(factor=4, original_max_position_embeddings=16, mscale=0.8, mscale_all_dim=0.6)
SHAPES = {
    "v2": Shape(
        **SHORT, attention=LATENT, experts=MOE.model_copy(update={"routed_scaling_factor": 2.5})
    ),
    "lite": Shape(**SHORT, attention=LITE, experts=MOE),
    "latent, dense, tied": Shape(**SHORT | {"tie_word_embeddings": True}, attention=LATENT),
    "llama": Shape(
        **SHORT, attention=Gqa(num_attention_heads=4, num_key_value_heads=2, head_dim=12)
    ),
    "llama, tied": Shape(
        **SHORT | {"tie_word_embeddings": True, "rms_norm_eps": 1e-5},
        attention=Gqa(num_attention_heads=4, num_key_value_heads=4, head_dim=8, rope_theta=5e5),
    ),
}
# Shapes whose network the model room builds from the next change of its own on; until then they would be built as if without.
LATER: dict[str, Shape] = {
    "v2, device-limited": Shape(
        **SHORT,
        attention=LATENT,
        experts=MOE.model_copy(
            update={"routed_scaling_factor": 16.0, "n_group": 4, "topk_group": 2}
        ),
    ),
    "lite, yarn": Shape(
        **SHORT, attention=LITE.model_copy(update={"rope_scaling": YARN}), experts=MOE
    ),
}
BUILT = SHAPES | LATER


@pytest.fixture(scope="module")
def auto() -> Iterator[Any]:
    """`transformers.AutoModelForCausalLM`, told to stay off the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TQDM_DISABLE", "1")
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        yield transformers.AutoModelForCausalLM


def checkpoint_of(shape: Shape, folder: Path, seed: int = 0) -> Path:
    write_final(folder, lively(shape, seed), shape, "", [], {})
    return folder


def our_logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    shape, weights = read_final(folder)
    network = build(shape).eval()
    network.load_state_dict(weights)
    with torch.no_grad():
        states, *_ = network(
            ids, torch.arange(ids.shape[1]).expand_as(ids), causal_mask(torch.ones_like(ids))
        )
        return network.head(states)


def their_logits(auto: Any, folder: Path, ids: torch.Tensor) -> torch.Tensor:
    model, report = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), "no weight is missing, unexpected or of another size"
    with torch.no_grad():
        return model.eval()(ids).logits


def ids_of(shape: Shape) -> torch.Tensor:
    return torch.randint(0, shape.vocab_size, (2, 24), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", BUILT)
def test_transformers_computes_our_logits(name: str, auto: Any, tmp_path: Path) -> None:
    shape = BUILT[name]
    export_public(checkpoint_of(shape, tmp_path / "ours"), tmp_path / "hf", shard_bytes=20_000)
    assert len(list((tmp_path / "hf").glob("model-*.safetensors"))) > 2
    ours, ids = our_logits(tmp_path / "ours", ids_of(shape)), ids_of(shape)
    assert ours.std() > 0.5, "or equality would be cheap"
    torch.testing.assert_close(their_logits(auto, tmp_path / "hf", ids), ours, **CLOSE)


@pytest.mark.parametrize("name", BUILT)
def test_we_compute_its_logits_and_give_back_its_bits(name: str, auto: Any, tmp_path: Path) -> None:
    from transformers import AutoConfig

    shape, ids, theirs = BUILT[name], ids_of(BUILT[name]), tmp_path / "theirs"
    torch.manual_seed(3)
    config = config_of(shape) | {"initializer_range": 0.3}
    model = auto.from_config(AutoConfig.for_model(**config)).eval()
    model.save_pretrained(theirs, max_shard_size="20KB")
    assert len(list(theirs.glob("model-*.safetensors"))) > 2
    assert import_public(theirs, tmp_path / "ours") == shape
    with torch.no_grad():
        torch.testing.assert_close(our_logits(tmp_path / "ours", ids), model(ids).logits, **CLOSE)
    export_public(tmp_path / "ours", tmp_path / "back", like=theirs)
    assert same_bits(theirs, tmp_path / "back")


@pytest.mark.parametrize("dim", [2, 8, 64])
@pytest.mark.parametrize("original", [1, 16, 4096, 10**9])
@pytest.mark.parametrize(("mscale", "mscale_all_dim"), [(0.707, 0.707), (1.3, 0.4), (1.0, 0.0)])
def test_yarn_turns_as_in_transformers(
    auto: Any, dim: int, original: int, mscale: float, mscale_all_dim: float
) -> None:
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    yarn = Yarn(
        factor=40,
        original_max_position_embeddings=original,
        mscale=mscale,
        mscale_all_dim=mscale_all_dim,
    )
    attention = LITE.model_copy(update={"qk_rope_head_dim": dim, "rope_scaling": yarn})
    config = AutoConfig.for_model(
        **config_of(SHAPES["lite"].model_copy(update={"attention": attention}))
    )
    frequencies, scale = ROPE_INIT_FUNCTIONS["yarn"](config, "cpu")
    turns = torch.arange(1.0, 50.0)[:, None] * frequencies
    cos, sin = angles(torch.arange(1, 50), dim, attention.rope_theta, yarn)
    torch.testing.assert_close(cos, turns.cos() * scale, atol=1e-5, rtol=0)
    torch.testing.assert_close(sin, turns.sin() * scale, atol=1e-5, rtol=0)


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for path in folder.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


def same_bits(one: Path, other: Path) -> bool:
    ours, theirs = tensors_in(one), tensors_in(other)
    return ours.keys() == theirs.keys() and all(
        tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name])
        for name, tensor in ours.items()
    )


def exported(folder: Path, name: str = "lite", **options: Any) -> Path:
    export_public(checkpoint_of(SHAPES[name], folder / "ours"), folder / "hf", **options)
    return folder / "hf"


class TestOut:
    def test_one_small_file_has_no_index(self, tmp_path: Path) -> None:
        assert sorted(path.name for path in exported(tmp_path).iterdir()) == [
            "config.json",
            "model.safetensors",
        ]

    def test_claims_no_token_ids_of_its_own(self, tmp_path: Path) -> None:
        config = json.loads((exported(tmp_path) / "config.json").read_text())
        assert config["bos_token_id"] is config["eos_token_id"] is None

    def test_no_file_is_larger_than_asked_and_the_index_names_all(self, tmp_path: Path) -> None:
        folder = exported(tmp_path, shard_bytes=30_000)
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        assert (
            sum(tensor.nbytes for tensor in tensors_in(folder).values())
            == index["metadata"]["total_size"]
        )
        for path in folder.glob("*.safetensors"):
            held = load_file(path)
            assert sum(tensor.nbytes for tensor in held.values()) <= 30_000
            assert {name for name, file in index["weight_map"].items() if file == path.name} == set(
                held
            )

    def test_bf16_rounds_and_comes_back_as_it_is(self, tmp_path: Path) -> None:
        folder = exported(tmp_path, precision="bf16")
        assert {tensor.dtype for tensor in tensors_in(folder).values()} == {torch.bfloat16}
        assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16"
        import_public(folder, tmp_path / "again")
        ours, again = read_final(tmp_path / "ours")[1], read_final(tmp_path / "again")[1]
        assert all(
            torch.equal(weight.bfloat16().float(), again[name]) for name, weight in ours.items()
        )
        export_public(tmp_path / "again", tmp_path / "back", precision="bf16")
        assert same_bits(folder, tmp_path / "back")

    def test_takes_the_tokeniser_and_its_ids_from_where_it_came(self, tmp_path: Path) -> None:
        folder = exported(tmp_path)
        config = json.loads((folder / "config.json").read_text()) | {
            "bos_token_id": 58,
            "eos_token_id": 59,
            "max_position_embeddings": 77,
        }
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "tokenizer.json").write_text("{}")
        (folder / "modeling_own.py").write_text("raise SystemExit")
        export_public(tmp_path / "ours", tmp_path / "back", like=folder)
        back = json.loads((tmp_path / "back" / "config.json").read_text())
        assert (back["bos_token_id"], back["eos_token_id"], back["max_position_embeddings"]) == (
            58,
            59,
            77,
        )
        assert (tmp_path / "back" / "tokenizer.json").read_text() == "{}"
        assert not (tmp_path / "back" / "modeling_own.py").exists(), "code is not carried over"

    def test_not_from_another_shape(self, tmp_path: Path) -> None:
        other = exported(tmp_path / "other", "v2")
        refused(InputError, "of another shape", lambda: exported(tmp_path, like=other))

    def test_does_not_write_over_anything(self, tmp_path: Path) -> None:
        (tmp_path / "hf").mkdir()
        (tmp_path / "hf" / "diary.txt").write_text("dear")
        refused(InputError, "holds something", lambda: exported(tmp_path))
        assert (tmp_path / "hf" / "diary.txt").read_text() == "dear"

    def test_leaves_nothing_behind_when_refused(self, tmp_path: Path) -> None:
        shape = SHAPES["lite"].model_copy(update={"rms_norm_eps": 1e-5})
        refused(
            ExportError,
            "norm_eps = 1e-06",
            lambda: export_public(checkpoint_of(shape, tmp_path / "ours"), tmp_path / "hf"),
        )
        assert [path.name for path in tmp_path.iterdir()] == ["ours"]

    def test_full_disk(self, small_disk: Path, tmp_path: Path) -> None:
        large = SHAPES["llama"].model_copy(update={"vocab_size": 6_000})
        ours = checkpoint_of(large, tmp_path / "ours")
        refused(
            DiskError,
            "the disk is full",
            lambda: export_public(ours, small_disk / "hf", shard_bytes=100_000),
        )
        assert list(small_disk.iterdir()) == []

    def test_a_working_checkpoint_has_no_shape(self, tmp_path: Path) -> None:
        from tests.train.test_checkpoint import save

        save(tmp_path, 4, "in", keep=1)
        refused(
            ArtifactError,
            "a working checkpoint",
            lambda: export_public(tmp_path / "step-000004", tmp_path / "hf"),
        )

    def test_a_weight_more_than_the_shape_has(self, tmp_path: Path) -> None:
        weights = lively(SHAPES["lite"]) | {"blocks.1.feed.bias": torch.zeros(8)}
        write_final(tmp_path / "ours", weights, SHAPES["lite"], "", [], {})
        refused(
            ArtifactError,
            "blocks.1.feed.bias is unknown",
            lambda: export_public(tmp_path / "ours", tmp_path / "hf"),
        )


def refused(kind: type[Exception], part: str, act: Callable[[], object]) -> None:
    with pytest.raises(kind) as caught:
        act()
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


class TestIn:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return exported(tmp_path, shard_bytes=40_000)

    def refuses(self, folder: Path, part: str) -> None:
        refused(InputError, part, lambda: import_public(folder, folder.with_name("in")))
        assert sorted(path.name for path in folder.parent.iterdir()) == ["hf", "ours"], (
            "nothing is left behind"
        )

    def test_is_an_artifact_of_the_same_weights(self, folder: Path) -> None:
        out = folder.with_name("in")
        assert import_public(folder, out) == SHAPES["lite"]
        verify(out, "checkpoint")
        (_, ours), (shape, weights) = read_final(folder.with_name("ours")), read_final(out)
        assert shape == SHAPES["lite"]
        assert weights.keys() == ours.keys()
        assert all(torch.equal(weights[name], weight) for name, weight in ours.items())

    def test_no_folder(self, tmp_path: Path) -> None:
        refused(
            InputError, "no such folder", lambda: import_public(tmp_path / "none", tmp_path / "in")
        )

    @pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
    def test_a_config_that_is_none(self, folder: Path, text: str) -> None:
        (folder / "config.json").write_text(text)
        self.refuses(folder, "config.json: ")

    @pytest.mark.parametrize(
        ("field", "value", "part"),
        [
            ("num_hidden_layers", 10**12, "files are missing"),
            ("n_routed_experts", 10**12, "files are missing"),
            ("intermediate_size", 10**15, "not (1000000000000000, 32)"),
            ("vocab_size", 10**25, "too large to exist"),
            ("vocab_size", 0, "a network without tokens"),
            ("hidden_size", 10**18, "too large to exist"),
        ],
    )
    def test_a_config_that_describes_a_giant(
        self, folder: Path, field: str, value: int, part: str
    ) -> None:
        config = json.loads((folder / "config.json").read_text()) | {field: value}
        (folder / "config.json").write_text(json.dumps(config))
        self.refuses(folder, part)

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
    def test_pickle_is_never_opened(self, tmp_path: Path, name: str) -> None:
        folder = exported(tmp_path)
        (folder / "model.safetensors").rename(folder / name)
        self.refuses(folder, f"{name}: is pickle")

    def test_no_weights(self, tmp_path: Path) -> None:
        folder = exported(tmp_path)
        (folder / "model.safetensors").unlink()
        self.refuses(folder, "has no safetensors file")

    @pytest.mark.parametrize("keep", [0, 5, 8, 40, -1])
    def test_a_file_cut_short(self, folder: Path, keep: int) -> None:
        path = sorted(folder.glob("*.safetensors"))[1]
        os.truncate(path, keep if keep >= 0 else path.stat().st_size - 1)
        self.refuses(folder, str(path))

    def test_a_header_that_claims_more_than_there_is(self, folder: Path) -> None:
        path = sorted(folder.glob("*.safetensors"))[0]
        path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])
        self.refuses(folder, "the header claims")

    def test_a_link_that_leaves(self, folder: Path) -> None:
        path = sorted(folder.glob("*.safetensors"))[0]
        os.replace(path, folder.parent / "ours" / "elsewhere")
        path.symlink_to(folder.parent / "ours" / "elsewhere")
        self.refuses(folder, "outside of its folder")

    def test_overlapping_tensors(self, folder: Path) -> None:
        path = sorted(folder.glob("*.safetensors"))[0]
        raw = path.read_bytes()
        length = struct.unpack("<Q", raw[:8])[0]
        header = json.loads(raw[8 : 8 + length])
        first, second = [name for name in header if name != "__metadata__"][:2]
        header[second] = header[first]
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
        self.refuses(folder, "the one before it ends at")

    def test_code_in_the_folder_is_never_run(self, folder: Path) -> None:
        """`auto_map` is in DeepSeek's own configs: the file it names is not imported (as vLLM did, CVE-2026-22807)."""
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {
            "AutoConfig": "configuration_own.Own",
            "AutoModelForCausalLM": "modeling_own.Own",
        }
        (folder / "config.json").write_text(json.dumps(config))
        for name in ("configuration_own.py", "modeling_own.py"):
            (folder / name).write_text(
                f"open({str(folder.parent / 'ran')!r}, 'w')\nclass Own: pass\n"
            )
        import_public(folder, folder.with_name("in"))
        assert not (folder.parent / "ran").exists()

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_any_damage_is_one_line_or_harmless(self, folder: Path, data: st.DataObject) -> None:
        copy = folder.parent / "spoilt"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        path = data.draw(st.sampled_from(sorted(copy.iterdir())))
        raw = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, min(len(raw), 2000) - 1))
            noise = data.draw(
                st.binary(min_size=1, max_size=4)
                | st.sampled_from([b"-", b"9999999", b"null", b"[", b"}", b"1e99", b'""'])
            )
            raw[at : at + data.draw(st.sampled_from([0, len(noise)]))] = noise
        path.write_bytes(bytes(raw))
        out = folder.parent / "from-spoilt"
        try:
            import_public(copy, out)
        except TumenError as error:
            assert "\n" not in str(error)  # noqa: PT017 -- either outcome is right, a crash is not
            assert not out.exists()
        shutil.rmtree(out, ignore_errors=True)

    def test_a_file_is_missing(self, folder: Path) -> None:
        path = sorted(folder.glob("*.safetensors"))[0]
        path.unlink()
        self.refuses(folder, f"{path}: missing")

    @pytest.mark.parametrize("name", ["../hf/model.safetensors", "/etc/passwd", "model.bin", 3])
    def test_an_index_that_leads_elsewhere(self, folder: Path, name: object) -> None:
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"w": name}})
        )
        self.refuses(folder, "model.safetensors.index.json: ")

    @pytest.mark.parametrize("text", ["{", "{}", '{"weight_map": 3}', "[]"])
    def test_an_index_that_is_none(self, folder: Path, text: str) -> None:
        (folder / "model.safetensors.index.json").write_text(text)
        self.refuses(folder, "model.safetensors.index.json: is no ")

    def changed(
        self, folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
    ) -> None:
        path = next(
            path for path in folder.glob("*.safetensors") if "model.norm.weight" in load_file(path)
        )
        save_file(change(load_file(path)), path)

    def test_a_weight_is_missing(self, folder: Path) -> None:
        self.changed(
            folder,
            lambda held: {
                name: weight for name, weight in held.items() if name != "model.norm.weight"
            },
        )
        self.refuses(folder, "model.norm.weight is missing")

    def test_a_weight_is_unknown(self, folder: Path) -> None:
        self.changed(
            folder,
            lambda held: held | {"model.layers.1.mlp.gate.e_score_correction_bias": torch.zeros(8)},
        )
        self.refuses(folder, "e_score_correction_bias is unknown")

    def test_a_weight_of_another_size(self, folder: Path) -> None:
        self.changed(folder, lambda held: held | {"model.norm.weight": torch.ones(31)})
        self.refuses(folder, "model.norm.weight is (31,), not (32,)")

    def test_two_files_hold_one_name(self, folder: Path) -> None:
        self.changed(folder, lambda held: held | {"model.embed_tokens.weight": torch.ones(60, 32)})
        self.refuses(folder, "model.embed_tokens.weight is in another file too")

    def test_quantized(self, folder: Path) -> None:
        self.changed(
            folder,
            lambda held: held | {"model.norm.weight": torch.ones(32).to(torch.float8_e4m3fn)},
        )
        self.refuses(folder, "stored as F8_E4M3")

    def test_does_not_write_over_anything(self, folder: Path) -> None:
        refused(
            InputError, "holds something", lambda: import_public(folder, folder.with_name("ours"))
        )
        verify(folder.with_name("ours"), "checkpoint")

    def test_full_disk(self, folder: Path, small_disk: Path) -> None:
        (small_disk / "fill").write_bytes(bytes((1 << 20) - 60_000))
        refused(DiskError, "the disk is full", lambda: import_public(folder, small_disk / "in"))
        assert [path.name for path in small_disk.iterdir()] == ["fill"]


class TestStart:
    def test_trains_on_and_goes_back(self, dataset: Path, tokenizer: Path, tmp_path: Path) -> None:
        """In from disk, a step that changes next to nothing, out again: the same model but for that step."""
        from tumen.data import Codec
        from tumen.recipe import Train
        from tumen.train import Method, fit

        shape = SHAPES["lite"].model_copy(update={"vocab_size": Codec.load(tokenizer).vocab})
        export_public(checkpoint_of(shape, tmp_path / "theirs"), tmp_path / "hf")
        import_public(tmp_path / "hf", tmp_path / "start")
        section = Train(
            steps=1,
            batch_size=2,
            seq_len=192,
            learning_rate=1e-6,
            weight_decay=0,
            compile=False,
            precision="fp32",
            threads=1,
        )
        fit(
            section,
            shape,
            dataset,
            tmp_path / "on",
            method=Method(start=start_from(tmp_path / "start", shape)),
        )
        export_public(tmp_path / "on", tmp_path / "back", like=tmp_path / "hf")
        before, after = tensors_in(tmp_path / "hf"), tensors_in(tmp_path / "back")
        assert before.keys() == after.keys()
        assert any(not torch.equal(before[name], after[name]) for name in before), (
            "it has learned something"
        )
        for name, weight in before.items():
            torch.testing.assert_close(after[name], weight, atol=1e-5, rtol=0)

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"num_hidden_layers": 2}, "num_hidden_layers"),
            ({"rms_norm_eps": 1e-5}, "rms_norm_eps"),
            ({"attention": LATENT}, "attention.q_lora_rank"),
            (
                {"attention": LITE.model_copy(update={"rope_scaling": YARN})},
                "attention.rope_scaling",
            ),
            (
                {"experts": MOE.model_copy(update={"routed_scaling_factor": 3.0})},
                "experts.routed_scaling_factor",
            ),
        ],
    )
    def test_another_network_cannot_go_on(
        self, change: dict[str, Any], field: str, tmp_path: Path
    ) -> None:
        ours = checkpoint_of(SHAPES["lite"], tmp_path / "ours")
        refused(
            TrainError,
            f"its {field}",
            lambda: start_from(ours, SHAPES["lite"].model_copy(update=change)),
        )

    def test_how_it_is_trained_may_differ(self, tmp_path: Path) -> None:
        ours = checkpoint_of(SHAPES["lite"], tmp_path / "ours")
        assert start_from(
            ours,
            SHAPES["lite"].model_copy(
                update={
                    "experts": MOE.model_copy(
                        update={"aux_loss_alpha": 0.5, "capacity_factor": 9.0}
                    )
                }
            ),
        )

"""`tumen export` and `tumen import`, and a tier that starts from what came in."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from tests.cli.conftest import TINY, Tumen

from tumen.core.artifact import manifest_of
from tumen.core.errors import InputError
from tumen.core.shape import Experts, Mla, Shape, Yarn
from tumen.pipeline.checkpoint_io import recipe_section
from tumen.pipeline.stages import stages
from tumen.recipe import InitFrom, load_recipe, recipe_of


@pytest.fixture(scope="module")
def public(whole: Path, tumen: Tumen, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The device tier of the finished run as a public folder `hf`, and back in as `start`."""
    folder = tmp_path_factory.mktemp("public")
    out = tumen("export", whole / "device", folder / "hf", "--to", "hf", "--shard", "50kB")
    assert out.returncode == 0, out.stderr
    assert "LlamaForCausalLM, fp32" in out.stdout
    back = tumen("import", folder / "hf", folder / "start")
    assert back.returncode == 0, back.stderr
    (folder / "said").write_text(back.stdout)
    return folder


def test_the_weights_are_the_same_again(whole: Path, public: Path) -> None:
    import torch

    from tumen.train.weights import read_final

    (_, ours), (_, again) = read_final(whole / "device"), read_final(public / "start")
    assert all(torch.equal(again[name], weight) for name, weight in ours.items())
    assert len(list((public / "hf").glob("*.safetensors"))) > 1


def test_import_says_what_a_recipe_says(public: Path) -> None:
    head, _, text = (public / "said").read_text().partition("\n")
    assert head.startswith(f"{public / 'start'}: ")
    tier = tomllib.loads(text)["family"]["cloud"]
    recipe = recipe_of(
        {
            "name": "x",
            "family": {"cloud": tier | {"train": {"steps": 1}}},
            "serve": {"device": "cloud"},
        },
        "x",
    )
    shape = recipe.family["cloud"].shape
    assert shape == load_recipe(TINY).family["device"].shape.model_copy(
        update={"tie_word_embeddings": shape.tie_word_embeddings}
    )
    assert recipe.family["cloud"].init_from == InitFrom(path=str(public / "start"))


def test_every_field_of_a_shape_is_said() -> None:
    shape = Shape(
        hidden_size=64, num_hidden_layers=3, intermediate_size=96, rms_norm_eps=1e-6, tie_word_embeddings=False,
        attention=Mla(num_attention_heads=2, kv_lora_rank=8, rope_scaling=Yarn(factor=40, original_max_position_embeddings=4096, mscale=0.7, mscale_all_dim=0.7)),
        experts=Experts(n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=8, n_group=4, topk_group=2, routed_scaling_factor=16.0),
    )  # fmt: skip
    said = tomllib.loads("\n".join(recipe_section(shape, Path("in"))))
    assert Shape.model_validate(said["family"]["cloud"]["shape"]) == shape


def test_refused_in_one_line(whole: Path, tmp_path: Path, tumen: Tumen) -> None:
    said = tumen("export", whole / "cloud", tmp_path / "hf")
    assert said.returncode == 8
    assert said.stderr.count("\n") == 1
    assert "norm_eps" in said.stderr
    said = tumen("import", whole / "cloud", tmp_path / "in")
    assert (said.returncode, said.stderr.count("\n")) == (4, 1)
    assert list(tmp_path.iterdir()) == []


class TestStart:
    def inputs(self, *changes: str) -> str:
        stage = next(
            stage for stage in stages(load_recipe(TINY, changes)) if stage.name == "device"
        )
        return stage.inputs({})

    def test_decides_the_tier_by_its_content_not_its_place(
        self, public: Path, tmp_path: Path
    ) -> None:
        here = self.inputs(f"family.device.init_from='{public / 'start'}'")
        there = tmp_path / "moved"
        shutil.copytree(public / "start", there)
        assert self.inputs(f"family.device.init_from='{there}'") == here != self.inputs()

    def test_none_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"family\.device\.init_from: .*none: holds no model"):
            self.inputs(f"family.device.init_from='{tmp_path / 'none'}'")

    def test_a_run_starts_from_it(self, run: Path, public: Path, tumen: Tumen) -> None:
        change = f"family.device.init_from='{public / 'start'}'"
        said = tumen("run", TINY, "--run", run, "--set", change, "--until", "device")
        assert said.returncode == 0, said.stderr
        assert manifest_of(public / "start").digest in manifest_of(run / "device").made_from
        state = {
            row["name"]: row["state"] for row in json.loads(tumen("lineage", run, "--json").stdout)
        }
        assert (state["cloud"], state["device"], state["bundle-device"]) == (
            "done",
            "done",
            "stale",
        )

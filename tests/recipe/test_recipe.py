"""Recipes: every fault at once, each with its dotted path and the nearest known name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tumen.core.errors import RecipeError
from tumen.core.shape import Gqa, Mla
from tumen.recipe import Recipe, load_recipe, recipe_of

GQA = {"kind": "gqa", "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32, "attention": GQA}
TIER = {"shape": SHAPE, "train": {"steps": 1}}


def tree(**changes: object) -> dict[str, object]:
    return {"name": "t", "family": {"device": TIER}, "serve": {"cloud": None}} | changes


def faults(**changes: object) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        recipe_of(tree(**changes), "here")
    return caught.value.faults


def test_smallest_recipe_is_good() -> None:
    recipe = recipe_of(tree(), "here")
    assert recipe.tiers_in_order() == ["device"]
    assert isinstance(recipe.family["device"].shape.attention, Gqa)


def test_frozen() -> None:
    recipe = recipe_of(tree(), "here")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


def test_all_faults_are_told_at_once() -> None:
    broken = {
        "shape": SHAPE | {"hiden_size": 8, "num_hidden_layers": 0},
        "train": {"steps": "many", "learning_rat": 1},
        "quantize": "int3",
    }
    found = faults(sede=1, data={"languages": ["en", "fr"]}, family={"device": broken})
    assert len(found) == 7
    text = "\n".join(found)
    assert "sede: unknown field; did you mean 'seed'?" in found
    assert "family.device.shape.hiden_size: unknown field; did you mean 'hidden_size'?" in found
    assert "family.device.train.learning_rat: unknown field; did you mean 'learning_rate'?" in found
    for path in (
        "data.languages.1",
        "family.device.shape.num_hidden_layers",
        "family.device.train.steps",
        "family.device.quantize",
    ):
        assert f"{path}: " in text
    assert "not 'many'" in text


@pytest.mark.parametrize("word", ["int8", "int4", "bf16", "q4_k"])
def test_a_word_says_how_a_tier_is_quantized(word: str) -> None:
    found = (
        recipe_of(tree(family={"device": TIER | {"quantize": word}}), "here")
        .family["device"]
        .quantize
    )
    assert (found.type, found.plain, found.word) == (word, True, word)


def test_a_table_says_more() -> None:
    table = {"budget": "1.5 MB", "qat": True, "steps": 50}
    found = recipe_of(tree(family={"device": TIER | {"quantize": table}}), "here").family["device"]
    assert found.quantize.budget_bytes() == 1_500_000
    assert (found.quantize.plain, found.quantize.word) == (False, "mixed, qat")
    section = found.quantize.section(found.train)
    assert (section.steps, section.batch_size) == (50, found.train.batch_size)
    assert Recipe.model_validate_json(
        recipe_of(tree(family={"device": found}), "here").model_dump_json()
    )


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"type": "int4", "budget": "1 MB"}, "set one of type and budget (bytes)"),
        ({"qat": True}, "set one of type"),
        ({"budget": "1 mile"}, "'1 mile' is not a size"),
        ({"budget": 0}, "must be above 0 bytes"),
        ({"budget": "1 MB", "calibrate": 0}, "a budget needs calibrate above 0"),
        ({"type": "int3"}, "Input should be 'int8', 'int4'"),
        ({"type": "int4", "qtt": True}, "unknown field; did you mean 'qat'?"),
        ("int3", "write a table, or one of int8, int4"),
        (4, "write a table, or one of int8, int4"),
    ],
)
def test_a_wish_that_cannot_be_is_one_line(table: object, words: str) -> None:
    [fault] = faults(family={"device": TIER | {"quantize": table}})
    assert fault.startswith("family.device.quantize")
    assert words in fault


@pytest.mark.parametrize(
    "name", ["AWS_SECRET_ACCESS_KEY", "PATH", "TUMEN_", "XTUMEN_KEY", "TUMEN_A\n", ""]
)
def test_a_key_is_never_somebody_elses_variable(name: str) -> None:
    [fault] = faults(serve={"device": "device", "cloud": None, "cloud_key_env": name})
    assert fault.startswith("serve.cloud_key_env: String should match pattern")


def test_error_is_a_line_for_each_fault_under_the_name_of_the_file() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_of(tree(a=1, b=2), "some.toml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "some.toml: 2 faults"
    assert len(lines) == 3
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("kind", "field", "near"),
    [
        ("gqa", "num_key_value_head", "num_key_value_heads"),
        ("mla", "kv_lora_rnk", "kv_lora_rank"),
        ("mla", "qk_nope_head_dims", "qk_nope_head_dim"),
        ("gqa", "head_dims", "head_dim"),
    ],
)
def test_did_you_mean_reaches_through_a_union(kind: str, field: str, near: str) -> None:
    whole = GQA if kind == "gqa" else {"kind": "mla", "num_attention_heads": 2, "kv_lora_rank": 8}
    found = faults(family={"device": TIER | {"shape": SHAPE | {"attention": whole | {field: 8}}}})
    assert found == [
        f"family.device.shape.attention.{field}: unknown field; did you mean {near!r}?"
    ]


def test_known_names_of_a_union_are_those_of_its_kind() -> None:
    found = faults(family={"device": TIER | {"shape": SHAPE | {"attention": GQA | {"qqq": 1}}}})
    assert found == [
        "family.device.shape.attention.qqq: unknown field; known here: head_dim, kind, num_attention_heads, num_key_value_heads, rope_theta"
    ]


def test_a_tier_may_be_called_like_a_kind_of_attention() -> None:
    found = faults(
        family={"mla": TIER | {"shape": SHAPE | {"attention": GQA | {"num_attention_heads": 0}}}},
        serve={"device": "mla", "cloud": None},
    )
    assert [line.split(":")[0] for line in found] == [
        "family.mla.shape.attention.num_attention_heads"
    ]


def test_names_that_fit_nothing_are_told_together() -> None:
    student = TIER | {"distil": {"teacher": "nobody"}}
    found = faults(family={"phone": student}, serve={"device": "device", "cloud": "cloud"})
    assert [line.split(":")[0] for line in found] == [
        "family.phone.distil.teacher",
        "serve.device",
        "serve.cloud",
    ]


def test_teachers_in_a_circle() -> None:
    a, b = (TIER | {"distil": {"teacher": teacher}} for teacher in "ba")
    found = faults(family={"a": a, "b": b, "device": TIER})
    assert found == ["family: tiers are made from each other in a circle: a, b"]


def test_a_tier_that_teaches_itself() -> None:
    assert "no other tier" in faults(family={"device": TIER | {"distil": {"teacher": "device"}}})[0]


@pytest.mark.parametrize(
    "name",
    [
        "corpus",
        "tokenizer",
        "dataset",
        "jobs",
        "ablation",
        "bundle-x",
        "cloud-logits",
        "../up",
        "a/b",
        "",
        ".hid",
        "Ä",
    ],
)
def test_a_tier_that_would_take_another_folder_is_refused(name: str) -> None:
    found = faults(family={"device": TIER, name: TIER})
    assert len(found) == 1
    assert found[0].startswith(f"family.{name}: ")


def test_teachers_come_before_their_students() -> None:
    def student(of: str) -> dict[str, object]:
        return TIER | {"distil": {"teacher": of}}

    family = {"wake": student("device"), "device": student("cloud"), "cloud": TIER}
    assert recipe_of(tree(family=family), "here").tiers_in_order() == ["cloud", "device", "wake"]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (
            {"attention": GQA | {"num_attention_heads": 3, "num_key_value_heads": 2}},
            "multiple of num_key_value_heads",
        ),
        ({"attention": GQA | {"head_dim": 7}}, "must be even"),
        (
            {
                "attention": {
                    "kind": "mla",
                    "num_attention_heads": 1,
                    "kv_lora_rank": 4,
                    "qk_rope_head_dim": 3,
                }
            },
            "must be even",
        ),
        ({"attention": {"kind": "mha", "num_attention_heads": 1}}, "attention"),
        (
            {
                "experts": {
                    "n_routed_experts": 2,
                    "num_experts_per_tok": 3,
                    "moe_intermediate_size": 8,
                }
            },
            "num_experts_per_tok 3",
        ),
        (
            {
                "experts": {
                    "n_routed_experts": 2,
                    "num_experts_per_tok": 1,
                    "moe_intermediate_size": 8,
                    "first_k_dense_replace": 2,
                }
            },
            "below num_hidden_layers 2",
        ),
    ],
)
def test_shapes_that_cannot_be(changes: dict[str, object], part: str) -> None:
    (fault,) = faults(family={"device": TIER | {"shape": SHAPE | changes}})
    assert part in fault
    assert fault.startswith("family.device.shape")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number_that_is_none(value: float) -> None:
    assert faults(family={"device": TIER | {"train": {"steps": 1, "learning_rate": value}}})


class TestFiles:
    """What can be wrong with the file itself."""

    def refused(self, path: Path, *changes: str) -> str:
        with pytest.raises(RecipeError) as caught:
            load_recipe(path, changes)
        assert str(path) in str(caught.value)
        return "\n".join(caught.value.faults)

    def test_missing_says_what_is_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "pocket.toml").write_text("")
        said = self.refused(tmp_path / "poket.toml")
        assert "no such file" in said
        assert "pocket.toml" in said

    def test_folder(self, tmp_path: Path) -> None:
        assert "is a folder" in self.refused(tmp_path)

    def test_a_file_used_as_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("")
        assert "cannot be read" in self.refused(tmp_path / "a" / "b.toml")

    def test_not_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "r.toml").write_bytes(b'name = "\xff"')
        assert "not UTF-8 at byte 8" in self.refused(tmp_path / "r.toml")

    def test_not_toml(self, tmp_path: Path) -> None:
        (tmp_path / "r.toml").write_text("name = \n")
        assert "line 1" in self.refused(tmp_path / "r.toml")

    def test_nested_without_end(self, tmp_path: Path) -> None:
        (tmp_path / "r.toml").write_text("name = " + "[" * 100_000)
        assert "nested too deep" in self.refused(tmp_path / "r.toml")

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "r.toml").write_text("")
        assert self.refused(tmp_path / "r.toml") == "name: missing\nfamily: missing"


class TestSet:
    """`--set dotted.path=value`."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "r.toml"
        path.write_text('name = "t"\n[serve]\ncloud = "device"\n[family.device.shape]\nhidden_size = 16\nnum_hidden_layers = 2\nintermediate_size = 32\n'
                        'attention = { kind = "gqa", num_attention_heads = 2, num_key_value_heads = 1 }\n[family.device.train]\nsteps = 3\n')  # fmt: skip
        return path

    def test_changes_values_of_every_type(self, path: Path) -> None:
        recipe = load_recipe(
            path,
            [
                "family.device.train.steps=10",
                "data.languages=['de']",
                "gate.exact=0.5",
                "data.source=file",
                "seed = 3",
                "home='h = 1'",
            ],
        )
        assert recipe.family["device"].train.steps == 10
        assert recipe.data.languages == ("de",)
        assert recipe.gate.exact == 0.5
        assert recipe.data.source == "file"
        assert recipe.seed == 3
        assert recipe.home == "h = 1"

    def test_may_replace_a_whole_section(self, path: Path) -> None:
        recipe = load_recipe(
            path,
            ["family.device.shape.attention={kind='mla', num_attention_heads=2, kv_lora_rank=8}"],
        )
        assert isinstance(recipe.family["device"].shape.attention, Mla)

    @pytest.mark.parametrize("change", ["steps", "=3", "family.device.train.steps.deeper=1"])
    def test_refuses(self, path: Path, change: str) -> None:
        with pytest.raises(RecipeError, match="--set"):
            load_recipe(path, [change])

    def test_misspelt(self, path: Path) -> None:
        with pytest.raises(
            RecipeError, match=r"family\.device\.train\.step: unknown field; did you mean 'steps'"
        ):
            load_recipe(path, ["family.device.train.step=1"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
)


@given(JSON)
def test_whatever_stands_there_is_a_recipe_or_a_list_of_faults(value: object) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_of({"name": "x", "family": value}, "here")
    assert caught.value.faults


def test_json_of_a_recipe_is_the_recipe() -> None:
    recipe = recipe_of(tree(), "here")
    assert recipe_of(json.loads(recipe.model_dump_json()), "here") == recipe


def test_schema_describes_every_section() -> None:
    schema = Recipe.model_json_schema()
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["additionalProperties"] is False

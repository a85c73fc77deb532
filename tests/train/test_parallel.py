"""Every mesh learns what one process learns: 2 and 4 gloo ranks, the real MLA + MoE network, fp32 (tests/train/ranks.py)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.train.ranks import MESHES, SHAPES, section_of

from tumen.core.errors import PlanError
from tumen.recipe import Mesh

ERROR = 1e-5  # of loss, norm and each gradient relative to its largest element; what fp32 sums in another order come to is 4e-6


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def found_by(world: int, folder: Path) -> dict[str, Any]:
    """What every mesh of a world differs by."""
    environment = os.environ | {"TUMEN_TEST_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.ranks", str(world), str(folder / "out")],
        env=environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    results = folder / "out.0"
    assert results.exists(), done.stderr[-2000:]
    return dict(json.loads(results.read_text()))


@pytest.fixture(scope="module", params=[2, 4])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, dict[str, Any]]:
    return request.param, found_by(request.param, tmp_path_factory.mktemp("ranks"))


@pytest.mark.slow
def test_every_mesh_learns_what_one_process_learns(world: tuple[int, dict[str, Any]]) -> None:
    ranks, found = world
    assert set(found) == set(MESHES[ranks]), "a mesh before the missing ones failed"
    wrong = {
        name: differs
        for name, differs in found.items()
        if not isinstance(differs, dict) or max(differs.values()) > ERROR
    }
    assert not wrong


REFUSED = [
    ({"dp": 4}, 2, "the mesh needs 4 ranks, 2 were started; start 4, or plan for 2"),
    ({"tp": 3}, 3, "tp 3 must divide 4 heads"),
    ({"dp": 3, "ep": 3}, 3, "ep 3 must divide 8 experts"),
    ({"cp": 3}, 3, "cp 3: rows of 16 tokens"),
    ({"dp": 3}, 3, "dp 3 x micro_batch_size 2 must divide 8 rows"),
    ({"dp": 2, "micro_batch_size": 3}, 2, "must divide 8 rows"),
    ({"pp": 8, "micro_batch_size": 1}, 8, "more than 4 layers"),
    ({"pp": 2}, 2, "1f1b over pp 2 needs 2 micro-batches a step, there are 1"),
    (
        {"pp": 2, "virtual_stages": 2, "schedule": "dualpipe", "micro_batch_size": 4},
        2,
        "dualpipe over pp 2 needs 4 micro-batches",
    ),
]


@pytest.mark.parametrize(("mesh", "world", "says"), REFUSED)
def test_what_does_not_divide_is_one_line(mesh: dict[str, Any], world: int, says: str) -> None:
    with pytest.raises(PlanError) as caught:
        Mesh.model_validate(mesh).check_split(SHAPES["v2"], 8, 16, world)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", ["tied", "v3"])
def test_a_pipeline_wants_a_head_of_its_own_and_no_prediction_ahead(shape: str) -> None:
    with pytest.raises(PlanError, match="pp "):
        Mesh(pp=2, micro_batch_size=2).check_split(SHAPES[shape], 8, 16, 2)


PLAN = {
    "batch_sequences": 8,
    "sequence_tokens": 16,
    "choices": [
        {
            "layout": {
                "tp": 1,
                "pp": 2,
                "vpp": 1,
                "dp": 2,
                "ep": 2,
                "cp": 1,
                "micro_batch": 2,
                "zero": 1,
                "recompute": "full",
                "schedule": "dualpipe",
            }
        }
    ],
}


def test_a_plan_is_a_mesh() -> None:
    mesh = Mesh.of_plan(PLAN, "plan.json", 8, 16)
    assert mesh == Mesh(
        pp=2,
        dp=2,
        ep=2,
        virtual_stages=2,
        schedule="dualpipe",
        zero=1,
        micro_batch_size=2,
        recompute="full",
    )
    assert mesh.ranks == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"batch_sequences": 9},
            "planned for 9 sequences of 16 tokens a step, the tier trains on 8 of 16",
        ),
        ({"choices": []}, "no plan; `tumen plan RECIPE --out plan.json` writes one"),
        (
            {"choices": [{"layout": PLAN["choices"][0]["layout"] | {"ep": 3}}]},
            "this layout is not built",
        ),  # type: ignore[index]
    ],
)
def test_a_plan_for_something_else_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError) as caught:
        Mesh.of_plan(PLAN | change, "plan.json", 8, 16)
    assert says in str(caught.value)


def test_sections_of_all_meshes_are_legal() -> None:
    for ranks, meshes in MESHES.items():
        for shape, mesh in meshes.values():
            section_of(mesh).mesh.check_split(SHAPES[shape], 8, 16, ranks)

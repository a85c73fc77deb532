"""The check: errors by hand, ranking of sweeps, and what is counted where."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.plan.rows import ROW, changed, write

from tumen.plan.accuracy import check
from tumen.plan.accuracy.published import published
from tumen.plan.accuracy.report import Errors, dense_with_plan, predict, tau
from tumen.plan.model import bound, memory, step
from tumen.plan.model.physics import fitted
from tumen.plan.model.scenario import stack


def test_errors_by_hand() -> None:
    """-10, 0, +20 and +30 percent: the median of 0, 10, 20, 30 is 15, the bias +10."""
    found = Errors.of(np.array([9.0, 10.0, 12.0, 13.0]), np.full(4, 10.0))
    assert (found.n, found.median, found.bias, found.worst) == (4, 15.0, 10.0, 30.0)
    assert found.p90 == 27.0
    assert Errors.of(np.array([]), np.array([])) == Errors(0, 0.0, 0.0, 0.0, 0.0)


def test_rank_correlation() -> None:
    up = np.array([1.0, 2.0, 3.0, 4.0])
    assert tau(up, up * 10) == 1.0
    assert tau(up, -up) == -1.0
    assert tau(up, np.array([1.0, 2.0, 4.0, 3.0])) == pytest.approx(4 / 6)


def test_report(tmp_path: Path) -> None:
    rows = [
        ROW,
        changed(id="own-2", layers=""),
        changed(id="own-3", notes="OOM", layers="200", hidden="16384"),
    ]
    report = check(write(tmp_path / "runs.csv", rows))
    assert report.all.n == 2
    assert report.dense_published_plan.n == 2
    assert report.oom == {"n": 1, "rejected": 1}
    assert len(report.refused) == 1
    assert report.below_bound == 0
    assert report.ran_rejected == ()
    found = json.loads(json.dumps(report.json()))
    assert found["all"]["n"] == 2
    assert set(found) >= {
        "all",
        "dense_published_plan",
        "moe",
        "memory",
        "oom",
        "sources",
        "refused",
        "seconds",
    }


def test_rows_are_counted_where_they_belong(tmp_path: Path) -> None:
    moe = {"n_experts": "8", "topk": "2", "moe_ffn": "2048", "ffn_gated": "1", "attention": "gqa"}
    rows = [
        changed(id="dense"),
        changed(id="sharded", zero_fsdp="fsdp", tp="1", dp="16"),
        changed(id="vague", micro_batch=""),
        changed(id="moe", **moe),
        changed(id="other", source="torchtitan", published="2024-12", memory_GB_per_gpu="30"),
        changed(id="smi", notes="nvidia-smi", memory_GB_per_gpu="30", target_step_s=""),
        changed(id="weighed", memory_GB_per_gpu="30", target_step_s=""),
        changed(id="impossible", layers="400", hidden="16384"),
    ]
    report = check(write(tmp_path / "runs.csv", rows))
    assert report.all.n == 6
    assert report.dense_published_plan.n == 3  # neither sharded, nor vague, nor experts
    assert report.dense_unsharded.n == 4
    assert report.moe.n == 1
    assert report.memory.n == 2  # an allocator's figures, not nvidia-smi's
    assert report.memory_sources["own"].n == 2
    assert report.memory_sources["torchtitan"].n == 1
    assert report.sources["own"].n == 5
    assert report.ran_rejected == ("impossible",)
    assert [row.id for row in report.rows] == [row["id"] for row in rows]
    assert list(report.factors) == ["torchtitan 2024-12"]


def test_a_row_is_predicted_by_its_fastest_choice() -> None:
    """A field that is not published takes the legal value with the shortest step."""
    row = published(changed(micro_batch=""))
    steps = step.step_time(stack(row.scenarios), fitted()).step
    (verdict,), factors, ideal = predict([row])
    assert verdict.predicted_seconds == float(steps.min())
    chosen = row.scenarios[int(np.argmin(steps))]
    assert verdict.predicted_bytes == float(memory.peak(chosen).total)
    assert float(ideal[0]) == float(bound.seconds(chosen))
    assert factors == {}
    assert predict([])[0] == []


@pytest.mark.parametrize(
    ("source", "notes", "kind"),
    [("own", "", "total"), ("torchtitan", "", "reserved"), ("own", "nvidia-smi", "driver")],
)
def test_memory_is_compared_with_what_was_measured(source: str, notes: str, kind: str) -> None:
    fields = {"source": source, "notes": notes, "memory_GB_per_gpu": "30", "published": "2025-01"}
    row = published(changed(**fields))
    (verdict,), _, _ = predict([row])
    assert verdict.predicted_bytes == pytest.approx(
        float(getattr(memory.peak(row.scenarios[0]), kind))
    )
    assert verdict.fits


def test_a_published_plan_is_dense_complete_and_unsharded() -> None:
    assert dense_with_plan(published(ROW))
    assert not dense_with_plan(published(changed(micro_batch="")))
    assert not dense_with_plan(published(changed(zero_fsdp="fsdp")))


# ---------------------------------------------------------------------- sweeps


PLANS = [("1", "1"), ("2", "1"), ("4", "1"), ("8", "1"), ("1", "2"), ("2", "2"), ("4", "2")]


def sweep_of(tmp_path: Path, count: int, order: int = 1):
    """Rows of one network on 16 cards with several layouts, measured in the order of the prediction or against it."""
    rows = []
    for k, (tp, pp) in enumerate(PLANS[:count]):
        dp = 16 // (int(tp) * int(pp))
        cells = {"id": f"s-{k}", "tp": tp, "pp": pp, "dp": str(dp), "micro_batch": "1"}
        row = changed(**cells)
        (verdict,), _, _ = predict([published(row)])
        measured = verdict.predicted_seconds**order
        rows.append(row | {"target_step_s": repr(measured)})
    return check(write(tmp_path / "runs.csv", rows)).sweeps


def test_a_sweep_in_the_predicted_order(tmp_path: Path) -> None:
    (found,) = sweep_of(tmp_path, 7)
    assert (found.source, found.model, found.n) == ("own", "GPT", 7)
    assert found.kendall_tau == 1.0
    assert found.chosen_over_best == 1.0


def test_a_sweep_against_the_predicted_order(tmp_path: Path) -> None:
    """The plan it would choose is the slowest measured one."""
    (found,) = sweep_of(tmp_path, 7, order=-1)
    assert found.kendall_tau == -1.0
    assert found.chosen_over_best > 1.0


def test_fewer_than_six_plans_are_no_sweep(tmp_path: Path) -> None:
    assert sweep_of(tmp_path, 5) == ()
    assert len(sweep_of(tmp_path, 6)) == 1

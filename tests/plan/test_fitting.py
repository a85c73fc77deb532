"""The fit: finds a known difference, and its factors belong to releases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tumen.plan import Layout, Workload
from tumen.plan.accuracy.fitting import FitTable, fit
from tumen.plan.accuracy.published import Published
from tumen.plan.facts import cards, software
from tumen.plan.layout import scenario_of
from tumen.plan.model import step
from tumen.plan.model.physics import Physics
from tumen.plan.model.scenario import stack


def rows(job: Workload, truth: Physics, slower: float) -> list[Published]:
    """Runs of a world with constants `truth`; one framework is `slower`."""
    found = []
    for k, (tp, pp, micro) in enumerate(
        [(1, 1, 1), (2, 1, 1), (4, 2, 1), (8, 4, 2), (8, 8, 1), (4, 4, 4), (2, 8, 2), (8, 1, 1)] * 3
    ):
        name = "a" if k % 2 else "b"
        layout = Layout(tp=tp, pp=pp, dp=128 // (tp * pp), micro_batch=micro, recompute="full")
        scenario = scenario_of(job, layout, cards()["h100" if k % 3 else "a100"])
        seconds = float(step.step_time(stack([scenario]), truth).step[0]) * (
            slower if name == "a" else 1.0
        )
        soft = replace(software(), framework=name, release="1")
        found.append(
            Published(
                f"{name}-{k}",
                name,
                "gpt",
                soft,
                (scenario,),
                seconds,
                None,
                "allocated",
                False,
                True,
                True,
                False,
            )
        )
    return found


def test_a_fit_finds_its_world(gpt3_workload: Workload) -> None:
    truth = replace(Physics(), matmul_ampere=0.75, matmul_hopper=0.6, link=0.6)
    table = FitTable.of(rows(gpt3_workload, truth, 1.0))
    before = np.median(np.abs(table.predict(Physics()) / table.seconds - 1))
    found = fit(table)
    after = np.median(np.abs(found.predict(table) / table.seconds - 1))
    assert before > 0.1
    assert after < 0.02


def test_a_factor_belongs_to_a_release(gpt3_workload: Workload) -> None:
    found = fit(FitTable.of(rows(gpt3_workload, Physics(), 1.2)))
    assert set(found.factors) == {"a 1", "b 1"}
    assert found.factors["a 1"] / found.factors["b 1"] == pytest.approx(1.2, rel=0.05)

"""Software: facts are inherited from release to release, factors belong to one release, unknown names are refused."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tumen.core.errors import PlanError
from tumen.plan.facts import Software, software
from tumen.plan.facts.software import FUSIONS, KERNELS, factors, framework_of
from tumen.plan.model.scenario import Scenario


def test_the_default_is_named() -> None:
    found = software()
    assert found.name == "default"
    assert (found.factor, found.factor_known) == (1.0, False)
    assert (found.kernel, found.fusion) == ("flash2", "hand")


def test_a_release_takes_the_newest_entry_before_it() -> None:
    """Megatron-LM reduced gradients in 2 bytes until 2022 and in 4 from then on."""
    early, later = software("megatron-lm", "2021-04"), software("megatron-lm", "2022-05")
    assert (early.reduce_bytes, later.reduce_bytes) == (2, 4)
    assert early.kernel == later.kernel == "unfused"  # inherited from the entry before
    assert not later.dp_overlap
    assert later.keeps_8bit_inputs  # inherited from [default]


def test_a_release_older_than_every_entry_takes_the_first() -> None:
    assert software("megatron-lm", "2019-01").reduce_bytes == 2


def test_no_release_is_the_newest() -> None:
    assert software("megatron-bridge").ep_overlap
    assert not software("megatron-bridge", "2025-09").ep_overlap
    assert software("megatron-bridge", "2026-03").ep_overlap


def test_a_factor_belongs_to_its_release_alone() -> None:
    known = software("megatron-lm", "2021-04")
    assert known.factor_known
    assert known.factor == factors()["megatron-lm 2021-04"] != 1.0
    other = software("megatron-lm", "2021-05")
    assert not other.factor_known
    assert other.factor == 1.0
    assert known.name == "megatron-lm 2021-04"


def test_an_unknown_framework_names_the_nearest() -> None:
    with pytest.raises(PlanError, match="did you mean 'megatron-lm'") as caught:
        software("megatronlm")
    assert "torchtitan" in str(caught.value)


def test_a_source_of_runs_has_a_framework() -> None:
    assert framework_of("megatron-sc21") == "megatron-lm"
    assert framework_of("torchtitan") == "torchtitan"
    assert framework_of("nobody") == "default"


@pytest.mark.parametrize("name", sorted(factors()))
def test_every_factor_is_of_a_framework_and_possible(name: str) -> None:
    framework, _, release = name.partition(" ")
    found = software(framework, release)
    assert found.factor_known
    assert 0.5 < found.factor < 2.0


def test_fields_of_a_case() -> None:
    """Names become the indices that the model chooses by."""
    found = software("llm-foundry").fields()
    assert found["kernel"] == KERNELS.index("flash1") == 1
    assert found["fusion"] == FUSIONS.index("eager") == 0
    assert set(found) < {f.name for f in fields(Scenario)}
    kept = {f.name for f in fields(Software)} & set(found)
    assert {"rails", "keeps_8bit_inputs", "launch_factor", "dropout", "factor"} <= kept

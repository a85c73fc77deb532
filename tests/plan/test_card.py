"""Cards are data with sources, fleets are text."""

from __future__ import annotations

import pytest

from tumen.core.errors import PlanError
from tumen.plan import first_group
from tumen.plan.facts import card_of, cards, fleet_of

WANTED = (
    "a100",
    "h100",
    "h800",
    "h200",
    "h20",
    "b200",
    "gb200",
    "l40s",
    "rtx4090",
    "ascend910b",
    "tpu-v5p",
    "cpu",
)


def test_the_cards_of_the_issue_are_there() -> None:
    assert set(WANTED) <= set(cards())


@pytest.mark.parametrize("name", sorted(cards()))
def test_figures_are_possible(name: str) -> None:
    card = cards()[name]
    assert card.source
    assert 0 < card.best_matmul <= 1
    assert card.flops("fp8") >= card.flops("bf16") > 0
    assert card.memory_bytes > 1e9
    assert card.link_rate >= card.nic_rate > 0
    assert card.domain >= card.node >= 1


def test_conflicting_figures_ask_for_calibration() -> None:
    assert "printed as" in cards()["ascend910b"].conflict


def test_long_names_are_the_same_card() -> None:
    assert card_of("H100-80GB-SXM") == cards()["h100"]


def test_fleets() -> None:
    groups = fleet_of("h800:6500, a100:8")
    assert [(group.card.name, group.count) for group in groups] == [("h800", 6500), ("a100", 8)]
    assert first_group(fleet_of("h800:8,h800:16")).count == 24


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("h900:8", "did you mean h800"),
        ("h800:0", "smallest fleet is h800:1"),
        ("h800:many", "no count"),
        ("h800:-3", "smallest fleet is h800:1"),
    ],
)
def test_nonsense_fleets(text: str, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        fleet_of(text)


def test_mixed_fleets_are_refused_with_a_way_out() -> None:
    with pytest.raises(PlanError, match="--compare"):
        first_group(fleet_of("h800:8,a100:8"))

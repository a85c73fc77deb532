"""Cards are data with sources, fleets are text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tumen.core.errors import PlanError
from tumen.plan.facts import card_of, cards, fleet_of, one_kind
from tumen.plan.facts.card_table import GENERATIONS

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
    assert [(group.accelerator.name, group.count) for group in groups] == [
        ("h800", 6500),
        ("a100", 8),
    ]
    assert one_kind(fleet_of("h800:8,h800:16")).count == 24


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("h900:8", "did you mean h800"),
        ("h800:0", "smallest fleet is h800:1"),
        ("h800:many", "is not a count"),
        ("h800:-3", "smallest fleet is h800:1"),
    ],
)
def test_nonsense_fleets(text: str, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        fleet_of(text)


def test_mixed_fleets_are_refused_with_a_way_out() -> None:
    with pytest.raises(PlanError, match="--compare"):
        one_kind(fleet_of("h800:8,a100:8"))


# ---------------------------------------------------------------------- the table


def test_a_card_takes_what_it_does_not_say_from_the_one_it_is_like() -> None:
    h100, h800, h20 = (cards()[name] for name in ("h100", "h800", "h20"))
    assert h800.link_rate == 200e9 != h100.link_rate
    assert (h800.bf16_flops, h800.memory_rate) == (h100.bf16_flops, h100.memory_rate)
    assert (h800.watts, h800.generation) == (h100.watts, "hopper")
    assert h20.conflict
    assert "H100-80GB-SXM" not in h800.aliases
    assert cards()["gb300"].domain == 72  # like gb200, which is like b200
    assert cards()["gb300"].conflict == ""


def test_units_of_the_table() -> None:
    """TFLOP/s, GB, TB/s and GB/s become FLOP/s, bytes and bytes a second."""
    card = cards()["a100"]
    assert (card.bf16_flops, card.fp8_flops, card.fp4_flops) == (312e12, 0, 0)
    assert (card.memory_bytes, card.memory_rate) == (85e9, pytest.approx(2.039e12))
    assert (card.link_rate, card.nic_rate) == (300e9, 25e9)
    assert (card.node, card.domain, card.watts, card.price) == (8, 8, 400, 1.3)
    assert (card.grade, card.speed) == ("datasheet", 1.0)


def test_a_format_without_units_runs_at_the_next_wider_rate() -> None:
    a100, h100, b200 = (cards()[name] for name in ("a100", "h100", "b200"))
    assert {a100.flops(name) for name in ("bf16", "fp16", "fp8", "fp8-row", "fp4")} == {312e12}
    assert h100.flops("fp8") == h100.flops("fp8-row") == h100.flops("fp4") == 1979e12
    assert (b200.flops("bf16"), b200.flops("fp8"), b200.flops("fp4")) == (2250e12, 4500e12, 9000e12)


@pytest.mark.parametrize("name", sorted(cards()))
def test_generations_are_known(name: str) -> None:
    assert cards()[name].generation in GENERATIONS


# ---------------------------------------------------------------------- names and fleets


def test_unknown_cards() -> None:
    with pytest.raises(PlanError, match=r"unknown card 'h80'; did you mean h\d+"):
        card_of("h80")
    with pytest.raises(PlanError, match=r"add it to cards\.toml with a source"):
        card_of("%%%")
    assert card_of(" H800 ").name == "h800"


def test_a_name_alone_is_one_card() -> None:
    assert [(g.accelerator.name, g.count) for g in fleet_of("h800")] == [("h800", 1)]
    assert fleet_of("h800:10_000")[0].count == 10_000


# ---------------------------------------------------------------------- calibration profiles


def profile(path: Path, **fields: object) -> Path:
    """A calibration profile of an H100."""
    rates = {"bf16_flops": 7e14, "memory_rate": 3e12, "best_matmul": 0.9, "unknown": 1.0}
    path.write_text(json.dumps({"card": "h100", "rates": rates, **fields}))
    return path


def test_a_profile_replaces_what_was_measured(tmp_path: Path) -> None:
    found = card_of("h100", profile(tmp_path / "p.json", speed=1.2, memory_bytes=7e10))
    assert (found.bf16_flops, found.memory_rate, found.best_matmul) == (7e14, 3e12, 0.9)
    assert (found.speed, found.memory_bytes, found.grade) == (1.2, 7e10, "calibrated")
    assert found.link_rate == cards()["h100"].link_rate  # not measured
    plain = card_of("h100", profile(tmp_path / "q.json"))
    assert (plain.speed, plain.memory_bytes) == (1.0, cards()["h100"].memory_bytes)
    assert fleet_of("h100:8", tmp_path / "p.json")[0].accelerator == found


def test_a_profile_settles_a_conflict(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"card": "h20", "rates": {}}))
    assert card_of("h20", path).conflict == ""


def test_a_profile_of_another_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="measured on 'h100', not on 'a100'"):
        card_of("a100", profile(tmp_path / "p.json"))
    with pytest.raises(PlanError, match="not a calibration profile"):
        card_of("a100", tmp_path / "none.json")

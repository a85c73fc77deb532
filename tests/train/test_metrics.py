"""What a run says of itself: FLOPs, utilisation, real tokens, and losses that leap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tumen.core.artifact import manifest_of
from tumen.core.errors import TrainError
from tumen.core.events import Events
from tumen.core.shape import Gqa, Mla, Shape
from tumen.data import Batch, Loader, StepTotals, read_shards
from tumen.recipe import Train
from tumen.train import Making, fit, metrics, single_process
from tumen.train.calibrate import batch_of
from tumen.train.checkpoints.checkpoint import load_tensors
from tumen.train.metrics import Spikes, measured_peak, real_tokens, step_flops
from tumen.train.single_process import SingleProcessTrainer
from tumen.train.world import World

CPU = torch.device("cpu")
ROW = 192


@pytest.fixture(scope="module")
def section() -> Train:
    return Train(
        steps=12,
        batch_size=4,
        seq_len=ROW,
        compile=False,
        checkpoint_every=3,
        threads=1,
        precision="fp32",
    )


@pytest.fixture(scope="module")
def shape(shape_of: Callable[[str], Shape]) -> Shape:
    return shape_of("device")


@pytest.mark.parametrize(
    "attention",
    [
        Gqa(num_attention_heads=4, num_key_value_heads=2, head_dim=16),
        Mla(
            num_attention_heads=4,
            kv_lora_rank=32,
            q_lora_rank=32,
            qk_nope_head_dim=16,
            qk_rope_head_dim=16,
            v_head_dim=16,
        ),
    ],
    ids=["gqa", "mla"],
)
def test_flops_of_a_step_are_those_that_torch_counts(attention: Gqa | Mla) -> None:
    shape = Shape(
        hidden_size=64,
        num_hidden_layers=2,
        intermediate_size=128,
        vocab_size=512,
        attention=attention,
    )
    section = Train(
        steps=1, batch_size=2, seq_len=128, compile=False, precision="fp32", sentence_weight=1
    )
    trainer = SingleProcessTrainer(section, shape, World(0, 1, CPU), 0)
    with FlopCounterMode(display=False) as counted:
        trainer.learn(batch_of(shape, section, 0))
    assert step_flops(section, shape) == pytest.approx(counted.get_total_flops(), rel=0.01)


def test_recomputation_adds_no_model_flops(section: Train, shape: Shape) -> None:
    again = section.model_copy(
        update={"mesh": section.mesh.model_copy(update={"recompute": "full"})}
    )
    assert step_flops(again, shape) == step_flops(section, shape)


def test_real_tokens_are_those_that_are_no_padding(dataset: Path) -> None:
    batch = next(Loader(read_shards(dataset / "train"), 8, ROW, 0))
    real = int((batch.documents > 0).sum())
    assert real_tokens(batch) == real < batch.ids.size
    halves = [next(Loader(read_shards(dataset / "train"), 8, ROW, 0, rank, 2)) for rank in (0, 1)]
    assert {real_tokens(half) for half in halves} == {real}, "every rank knows the whole step's"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_measuring_the_peak_draws_no_random_number(section: Train, precision: str) -> None:
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1]
    assert measured_peak(section.model_copy(update={"precision": precision}), CPU) > 1e6
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


class TestUtilisation:
    def run(self, section: Train, shape: Shape, dataset: Path, out: Path) -> list[dict[str, Any]]:
        kept = Events(None)
        fit(section, shape, dataset, out, making=Making(seed=3, inputs="in", events=kept))
        return kept.seen

    def test_is_told_and_changes_no_bit(
        self,
        section: Train,
        shape: Shape,
        dataset: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.run(section, shape, dataset, tmp_path / "plain")
        monkeypatch.setattr(metrics, "PEAK_STEPS", 1)
        rows = self.run(section, shape, dataset, tmp_path / "measured")
        peak = next(row for row in rows if row["event"] == "peak")
        steps = [row for row in rows if row["event"] == "step"]
        assert [row["event"] for row in rows].count("peak") == 1
        for row in steps:
            spent = step_flops(section, shape) / row["step_seconds"] / peak["flops_per_second"]
            assert row["mfu"] == pytest.approx(spent, rel=0.01, abs=2e-4)
            assert 0 < row["real_tokens"] < row["tokens"]
        assert manifest_of(tmp_path / "measured").facts["mfu"] > 0
        plain, measured = (
            load_tensors(tmp_path / name / "weights.safetensors") for name in ("plain", "measured")
        )
        assert all(torch.equal(plain[name], measured[name]) for name in plain)

    def test_a_run_of_few_steps_does_without(
        self, section: Train, shape: Shape, dataset: Path, tmp_path: Path
    ) -> None:
        rows = self.run(section.model_copy(update={"steps": 1}), shape, dataset, tmp_path / "x")
        assert not [row for row in rows if row["event"] == "peak" or "mfu" in row]


class TestSpikes:
    batch = Batch(
        *(np.zeros((1, 1), np.int64),) * 6, samples=np.asarray([7, 9]), totals=StepTotals(1, 1, 1)
    )

    def watch(self, losses: Iterator[float] | list[float], **fields: Any) -> int | None:
        """The step that is stopped, if any is."""
        spikes = Spikes(Train(steps=1000, warmup=0.0, **fields))
        for step, loss in enumerate(losses):
            try:
                spikes.guard(loss, step, self.batch)
            except TrainError:
                return step
        return None

    def test_a_leap_is_stopped_and_what_is_usual_is_told(self) -> None:
        losses = [2.0 + 0.1 * (step % 2) for step in range(60)]
        spikes = Spikes(Train(steps=1000, warmup=0.0, spike=10))
        for step, loss in enumerate(losses):
            spikes.guard(loss, step, self.batch)
        says = r"^step 60: loss 3\.0000 leaps, 2\.05\d\d \(give or take 0\.05\d\d\) is usual; samples 7, 9 \.\.\. of .* is intact$"
        with pytest.raises(TrainError, match=says):
            spikes.guard(3.0, 60, self.batch)

    def test_off_unless_asked(self) -> None:
        assert self.watch([2.0] * 60 + [1000.0]) is None

    def test_a_fall_is_no_leap(self) -> None:
        assert self.watch([2.0 - 0.01 * step for step in range(100)] + [0.01], spike=5) is None

    def test_a_steady_loss_may_move_a_little(self) -> None:
        assert self.watch([2.0] * 60 + [2.05], spike=5) is None
        assert self.watch([2.0] * 60 + [2.2], spike=5) == 60

    def test_nothing_is_usual_before_enough_steps(self) -> None:
        assert self.watch([2.0] * 5 + [50.0] + [2.0] * 5, spike=5) is None

    def test_while_the_rate_warms_up_it_waits(self) -> None:
        spikes = Spikes(Train(steps=1000, warmup=0.05, spike=5))
        for step in range(50):
            spikes.guard(2.0 if step != 40 else 50.0, step, self.batch)
        with pytest.raises(TrainError, match="step 50"):
            spikes.guard(50.0, 50, self.batch)

    def test_the_window_forgets(self) -> None:
        assert self.watch([9.0] * 200 + [2.0] * 100 + [8.0], spike=5) == 300

    def test_a_run_stops_with_its_checkpoint_and_goes_on_to_the_same_bits(
        self,
        section: Train,
        shape: Shape,
        dataset: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        fit(section, shape, dataset, tmp_path / "unbroken", making=Making(seed=3, inputs="in"))
        real, calls = single_process.loss_of, 0

        def leaping(*args: Any, **kwargs: Any) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return real(*args, **kwargs) * (100.0 if calls == 8 else 1.0)

        monkeypatch.setattr(single_process, "loss_of", leaping)
        monkeypatch.setattr(metrics, "ENOUGH", 4)
        watched = section.model_copy(update={"spike": 20.0})
        with pytest.raises(TrainError, match=r"step 7: .* leaps"):
            fit(watched, shape, dataset, tmp_path / "x", making=Making(seed=3, inputs="in"))
        assert (tmp_path / ".x.work" / "step-000006").exists()
        fit(watched, shape, dataset, tmp_path / "x", making=Making(seed=3, inputs="in"))
        unbroken, broken = (
            load_tensors(tmp_path / name / "weights.safetensors") for name in ("unbroken", "x")
        )
        assert all(torch.equal(unbroken[name], broken[name]) for name in unbroken)

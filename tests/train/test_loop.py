"""Training: killed and resumed equals unbroken, bit by bit; what cannot be trained is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tumen.core.artifact import manifest_of, verify
from tumen.core.errors import ArtifactError, DiskError, TrainError
from tumen.core.events import Events
from tumen.core.shape import Shape
from tumen.data import Batch, Loader, StepTotals, read_shards, write_shards
from tumen.model import build, causal_mask
from tumen.recipe import Train
from tumen.train import Making, Method, fit, loop, losses, single_process
from tumen.train.loop import prepare_torch
from tumen.train.losses import loss_of, targets_of
from tumen.train.metrics import guard

ROW = 192  # tokens


class KilledError(Exception):
    """Stands for kill -9 at a step."""


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """A dataset of so few rows that a run has several epochs."""
    folder = tmp_path_factory.mktemp("few")
    for split in ("train", "validation"):
        shards = read_shards(dataset / split)
        examples = [
            (
                shards.tokens[shards.starts[i] : shards.answers[i]].tolist(),
                shards.tokens[shards.answers[i] : shards.starts[i + 1]].tolist(),
            )
            for i in range(60 if split == "train" else 12)
        ]
        write_shards(folder / split, examples, 60_000)
    return folder


@pytest.fixture(scope="module")
def section() -> Train:
    return Train(steps=12, batch_size=4, seq_len=ROW, compile=False, checkpoint_every=3, threads=1)


@pytest.fixture(scope="module")
def shape(shape_of: Callable[[str], Shape]) -> Shape:
    return shape_of("cloud")


@pytest.fixture(scope="module")
def unbroken(
    few: Path, section: Train, shape: Shape, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "cloud"
    fit(section, shape, few, out, making=Making(seed=3, inputs="in"))
    return out


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next training die after it computed this many steps."""
    real, seen = loop.guard, 0

    def guarded(*args: Any) -> None:
        nonlocal seen
        real(*args)
        seen += 1
        if seen == step:
            raise KilledError

    monkeypatch.setattr(loop, "guard", guarded)


def damage(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\xff" * 8)


def test_runs_for_several_epochs(unbroken: Path) -> None:
    facts = manifest_of(unbroken).facts
    assert facts["epochs"] > 2
    assert facts["tokens"] == 12 * 4 * ROW
    assert not unbroken.with_name(".cloud.work").exists(), "working checkpoints go when it is done"


def test_learns(unbroken: Path, few: Path, section: Train, shape: Shape, tmp_path: Path) -> None:
    kept = Events(None)
    fit(
        section.model_copy(update={"steps": 30}),
        shape,
        few,
        tmp_path / "x",
        making=Making(seed=3, events=kept),
    )
    losses = [row["loss"] for row in kept.seen if row["event"] == "step"]
    assert losses[-1] < 0.85 * losses[0]


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_killed_at_any_steps_it_ends_in_the_same_bits(
    kills: list[int],
    unbroken: Path,
    few: Path,
    section: Train,
    shape: Shape,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    out = tmp_path_factory.mktemp("killed") / "cloud"
    for step in kills:
        with pytest.MonkeyPatch.context() as patch:
            kill_at(step, patch)
            try:
                fit(section, shape, few, out, making=Making(seed=3, inputs="in"))
            except KilledError:
                continue
            break
    fit(section, shape, few, out, making=Making(seed=3, inputs="in"))
    assert verify(out).digest == verify(unbroken).digest


def test_another_seed_gives_other_bits(
    unbroken: Path, few: Path, section: Train, shape: Shape, tmp_path: Path
) -> None:
    fit(section, shape, few, tmp_path / "x", making=Making(seed=4, inputs="in"))
    assert verify(tmp_path / "x").digest != verify(unbroken).digest


def test_how_often_it_is_saved_changes_nothing(
    unbroken: Path, few: Path, section: Train, shape: Shape, tmp_path: Path
) -> None:
    fit(
        section.model_copy(update={"checkpoint_every": 5, "keep": 1}),
        shape,
        few,
        tmp_path / "x",
        making=Making(seed=3, inputs="in"),
    )
    assert verify(tmp_path / "x").digest == verify(unbroken).digest


def test_a_damaged_newest_checkpoint_costs_its_steps_alone(
    unbroken: Path,
    few: Path,
    section: Train,
    shape: Shape,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill_at(8, patch)
        fit(section, shape, few, tmp_path / "x", making=Making(seed=3, inputs="in"))
    work = tmp_path / ".x.work"
    assert sorted(path.name for path in work.iterdir()) == ["step-000003", "step-000006"]
    damage(work / "step-000006" / "shard-00001-model-00001-of-00001.safetensors")
    kept = Events(None)
    fit(section, shape, few, tmp_path / "x", making=Making(seed=3, inputs="in", events=kept))
    names = [row["event"] for row in kept.seen]
    assert names.index("checkpoint_damaged") < names.index("resumed")
    assert [row["step"] for row in kept.seen if row["event"] == "resumed"] == [3]
    assert verify(tmp_path / "x").digest == verify(unbroken).digest


def test_checkpoints_of_another_recipe_are_left_alone(
    few: Path, section: Train, shape: Shape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill_at(8, patch)
        fit(section, shape, few, tmp_path / "x", making=Making(seed=3, inputs="another recipe"))
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill_at(5, patch)
        fit(section, shape, few, tmp_path / "x", making=Making(seed=3, inputs="this recipe"))
    kept = Events(None)
    fit(
        section,
        shape,
        few,
        tmp_path / "x",
        making=Making(seed=3, inputs="this recipe", events=kept),
    )
    assert [row["step"] for row in kept.seen if row["event"] == "resumed"] == [3]


class TestRefused:
    def test_a_loss_that_is_no_number_names_its_samples(
        self,
        few: Path,
        section: Train,
        shape: Shape,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        real = single_process.loss_of
        calls = 0

        def spoilt(*args: Any, **kwargs: Any) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return real(*args, **kwargs) * (float("nan") if calls == 5 else 1.0)

        monkeypatch.setattr(single_process, "loss_of", spoilt)
        with pytest.raises(TrainError) as caught:
            fit(section, shape, few, tmp_path / "x", making=Making(seed=3, inputs="in"))
        loader = Loader(read_shards(few / "train"), 4, ROW, 3)
        samples = [next(loader) for _ in range(5)][-1].samples
        assert f"step 4: loss nan, gradient norm nan; samples {samples[0]}, {samples[1]}, " in str(
            caught.value
        )
        assert "\n" not in str(caught.value)
        assert verify(tmp_path / ".x.work" / "step-000003"), "the checkpoint before is whole"

    @pytest.mark.parametrize(
        ("loss", "norm"), [(float("nan"), 1.0), (1.0, float("inf")), (float("inf"), 1.0)]
    )
    def test_guard(self, loss: float, norm: float) -> None:
        batch = Batch(
            *(np.zeros((1, 1), np.int64),) * 6,
            samples=np.asarray([7, 9]),
            totals=StepTotals(1, 1, 1),
        )
        with pytest.raises(TrainError, match="samples 7, 9"):
            guard(loss, norm, 0, batch)
        guard(1.0, 1.0, 0, batch)

    def test_another_vocabulary(
        self, few: Path, section: Train, shape: Shape, tmp_path: Path
    ) -> None:
        with pytest.raises(TrainError, match="vocabulary ends at 299"):
            fit(section, shape.model_copy(update={"vocab_size": 300}), few, tmp_path / "x")
        assert list(tmp_path.iterdir()) == []

    def test_weights_of_another_shape(
        self, few: Path, section: Train, shape: Shape, tmp_path: Path
    ) -> None:
        weights = dict(build(shape.model_copy(update={"intermediate_size": 64})).state_dict())
        with pytest.raises(TrainError, match=r"no blocks\.0\.feed\.down\.weight of shape"):
            fit(section, shape, few, tmp_path / "x", method=Method(start=weights))

    def test_weights_that_are_no_numbers(
        self, few: Path, section: Train, shape: Shape, tmp_path: Path
    ) -> None:
        weights = {name: tensor.clone() for name, tensor in build(shape).state_dict().items()}
        weights["blocks.1.norm_in.weight"][3:5] = float("nan")
        with pytest.raises(
            TrainError, match=r"hold 2 NaN or infinite numbers in blocks\.1\.norm_in\.weight"
        ):
            fit(section, shape, few, tmp_path / "x", method=Method(start=weights))
        assert list(tmp_path.iterdir()) == []

    def test_weights_to_start_from(
        self, few: Path, section: Train, shape: Shape, unbroken: Path, tmp_path: Path
    ) -> None:
        from tumen.train.weights import read_final

        kept = Events(None)
        once = section.model_copy(update={"steps": 1})
        fit(
            once,
            shape,
            few,
            tmp_path / "x",
            method=Method(start=read_final(unbroken)[1]),
            making=Making(events=kept),
        )
        assert kept.seen[1]["event"] == "step"
        assert kept.seen[1]["loss"] < 6, "it knows something already"

    def test_truncated_shard(
        self,
        few: Path,
        section: Train,
        shape: Shape,
        copy_of: Callable[[Path], Path],
        tmp_path: Path,
    ) -> None:
        copy = copy_of(few)
        os.truncate(copy / "train" / "tokens.npy", 500)
        with pytest.raises(ArtifactError, match=r"tokens\.npy: truncated"):
            fit(section, shape, copy, tmp_path / "x")

    def test_full_disk(self, few: Path, section: Train, shape: Shape, small_disk: Path) -> None:
        (small_disk / "filler").write_bytes(b"x" * 600_000)
        with pytest.raises(DiskError, match="the disk is full"):
            fit(section, shape, few, small_disk / "x", making=Making(inputs="in"))
        assert not (small_disk / "x").exists()


class TestLoss:
    @pytest.fixture
    def batch(self, few: Path) -> Batch:
        return next(Loader(read_shards(few / "train"), 4, ROW, 0))

    @pytest.mark.parametrize("weight", [0.0, 0.1, 1.0])
    def test_is_a_weighted_mean_over_sentence_and_action(
        self, batch: Batch, shape: Shape, weight: float
    ) -> None:
        plain = shape.model_copy(update={"experts": None})
        network = build(plain)
        section = Train(steps=1, sentence_weight=weight)
        total = weights = 0.0
        states, *_ = network(
            torch.from_numpy(batch.ids),
            torch.from_numpy(batch.positions),
            causal_mask(torch.from_numpy(batch.documents)),
        )
        losses = F.cross_entropy(
            network.head(states).flatten(0, 1),
            torch.from_numpy(batch.targets).flatten().clamp_min(0),
            reduction="none",
        )
        for loss, target, answer in zip(
            losses.tolist(), batch.targets.flatten(), batch.answers.flatten(), strict=True
        ):
            if target >= 0:
                total += loss * (1.0 if answer else weight)
                weights += 1.0 if answer else weight
        found = float(loss_of(network, batch, section, torch.device("cpu")).detach())
        assert found == pytest.approx(total / weights, rel=1e-4)

    def test_targets_are_padded_with_nothing(self, batch: Batch) -> None:
        targets = targets_of(batch, 0.1)
        assert len(targets.rows) % losses.HEAD_ROWS == 0
        assert int((targets.weights > 0).sum()) == int((batch.targets >= 0).sum())
        assert (
            int((targets.weights == 1).sum())
            == int(batch.answers.sum())
            == int(targets.answers.sum())
        )

    def test_a_teacher_is_asked_about_actions_alone(self, batch: Batch, shape: Shape) -> None:
        """A teacher's logits are kept for actions: at a sentence's tokens the loss is that of the data."""
        network, section, cpu = (
            build(shape).eval(),
            Train(steps=1, sentence_weight=0.5),
            torch.device("cpu"),
        )
        targets = targets_of(batch, 0.5)
        with torch.no_grad():
            alone = float(loss_of(network, batch, section, cpu))
            far = float(
                loss_of(
                    network,
                    batch,
                    section,
                    cpu,
                    (0.7, lambda logits, *_: torch.full((len(logits),), 1000.0)),
                )
            )
            data = float(
                loss_of(
                    network,
                    batch,
                    section,
                    cpu,
                    (
                        0.7,
                        lambda logits, *_: F.cross_entropy(
                            logits, targets.tokens, reduction="none"
                        ),
                    ),
                )
            )
        share = float((targets.weights * targets.answers).sum() / targets.weights.sum())
        assert data == pytest.approx(alone, rel=1e-5)
        states, *_ = network(
            torch.from_numpy(batch.ids),
            torch.from_numpy(batch.positions),
            causal_mask(torch.from_numpy(batch.documents)),
        )
        losses = F.cross_entropy(
            network.head(states.flatten(0, 1)[targets.rows]), targets.tokens, reduction="none"
        ).detach()
        inside = float((losses * targets.weights * targets.answers).sum() / targets.weights.sum())
        assert far - alone == pytest.approx(0.7 * (1000 * share - inside), rel=1e-4)


def test_torch_is_deterministic_and_has_the_threads_asked(section: Train) -> None:
    prepare_torch(section)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1


def test_events_tell_progress(few: Path, section: Train, shape: Shape, tmp_path: Path) -> None:
    kept = Events(None)
    fit(section, shape, few, tmp_path / "cloud", making=Making(seed=3, inputs="in", events=kept))
    names = [row["event"] for row in kept.seen]
    assert names[0] == "train"
    assert names.count("checkpoint") == 3
    assert [row["step"] for row in kept.seen if row["event"] == "step"] == [10, 12]
    last = [row for row in kept.seen if row["event"] == "step"][-1]
    assert last["seconds_left"] == 0
    assert last["tier"] == "cloud"
    assert last["tokens_per_second"] > 0

"""Distillation: what is kept of a teacher, and what a student is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tumen.core.artifact import manifest_of, verify
from tumen.core.errors import TrainError
from tumen.core.events import Events
from tumen.core.shape import Shape
from tumen.data import Shards, read_shards
from tumen.model import build, causal_mask
from tumen.recipe import Recipe
from tumen.shrink import distil
from tumen.shrink.distillation import (
    KEPT,
    action_places,
    kept_loss,
    live_loss,
    network_of,
    write_logits,
)
from tumen.train import Making, Targets, half
from tumen.train.weights import read_final


def one_example(folder: Path, teacher: torch.Tensor, kept: int) -> Shards:
    """A shard of one example with one action token per row of `teacher` (A, vocab) logits, of which `kept` are stored."""
    best = teacher.log_softmax(dim=-1).topk(kept)
    np.save(folder / "ids.npy", best.indices.numpy().astype(np.uint16))
    np.save(folder / "logp.npy", best.values.numpy().astype(np.float16))
    count = len(teacher)
    return Shards(np.zeros(count + 2, np.uint16), np.asarray([0, count + 2]), np.asarray([2]))


def asked(sources: list[int]) -> Targets:
    """What the head is asked at places of a shard."""
    rows = torch.arange(len(sources))
    return Targets(rows, rows, torch.ones(len(rows)), torch.ones(len(rows)), torch.tensor(sources))


def logits_of(seed: int, rows: int, vocab: int) -> torch.Tensor:
    return 2 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), vocab=st.integers(2, 12))
def test_with_every_token_kept_it_is_the_whole_divergence(
    seed: int, vocab: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("kept")
    teacher, student = logits_of(seed, 3, vocab), logits_of(seed + 1, 3, vocab)
    shards = one_example(folder, teacher, vocab)
    found = kept_loss(folder, shards, 1.0)(student, asked([2, 3, 4]), {})
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    torch.testing.assert_close(found, (p.exp() * (p - q)).sum(-1), atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_with_some_kept_the_rest_is_one_more_token(temperature: float, tmp_path: Path) -> None:
    teacher, student = logits_of(0, 2, 20), logits_of(1, 2, 20)
    shards = one_example(tmp_path, teacher, 5)
    found = kept_loss(tmp_path, shards, temperature)(student, asked([2, 3]), {})
    for row in range(2):
        p, q = teacher[row].softmax(-1), student[row].softmax(-1)
        best = p.topk(5).indices
        p, q = (
            torch.cat([p[best], 1 - p[best].sum()[None]]),
            torch.cat([q[best], 1 - q[best].sum()[None]]),
        )
        p, q = (part.log().div(temperature).log_softmax(-1) for part in (p, q))
        assert float(found[row]) == pytest.approx(
            float((p.exp() * (p - q)).sum()) * temperature**2, rel=0.02
        )


def test_a_student_that_agrees_has_no_loss_and_every_other_has(tmp_path: Path) -> None:
    teacher = logits_of(0, 4, 20)
    loss = kept_loss(tmp_path, one_example(tmp_path, teacher, 8), 1.0)
    places = asked([2, 3, 4, 5])
    assert float(loss(teacher, places, {}).abs().max()) < 2e-3
    assert float(loss(teacher.flip(0), places, {}).min()) > 0.05


def test_a_loss_that_only_falls_towards_the_teacher(tmp_path: Path) -> None:
    teacher, student = logits_of(0, 1, 10), logits_of(1, 1, 10).requires_grad_()
    loss = kept_loss(tmp_path, one_example(tmp_path, teacher, 10), 1.0)
    optimizer = torch.optim.Adam([student], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        value = loss(student, asked([2]), {}).sum()
        value.backward()
        optimizer.step()
    torch.testing.assert_close(student.softmax(-1), teacher.softmax(-1), atol=0.01, rtol=0)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=8))
def test_action_tokens_are_numbered_in_order(examples: list[tuple[int, int]]) -> None:
    starts = np.cumsum([0, *(prompt + answer for prompt, answer in examples)])
    answers = np.asarray(
        [start + prompt for start, (prompt, _) in zip(starts[:-1], examples, strict=True)]
    )
    places = action_places(Shards(np.zeros(starts[-1]), starts, answers))
    inside = [
        token
        for start, stop in zip(answers, starts[1:], strict=True)
        for token in range(start, stop)
    ]
    assert places[inside].tolist() == list(range(len(inside)))


class TestLogits:
    @pytest.fixture(scope="class")
    @staticmethod
    def kept(cloud: Path, device: Path) -> Path:
        """What the device tier learned from."""
        return cloud.with_name("cloud-logits")

    def test_are_the_teachers(self, kept: Path, cloud: Path, dataset: Path) -> None:
        shape, weights = read_final(cloud)
        network = build(shape)
        network.load_state_dict(weights)
        network = network.to(half(torch.device("cpu"))).eval()
        shards = read_shards(dataset / "train")
        places = action_places(shards)
        ids, logp = np.load(kept / "ids.npy"), np.load(kept / "logp.npy")
        assert ids.shape == logp.shape == (int((shards.starts[1:] - shards.answers).sum()), KEPT)
        for example in (0, 100, len(shards) - 1):
            start, answer, stop = (
                int(at)
                for at in (
                    shards.starts[example],
                    shards.answers[example],
                    shards.starts[example + 1],
                )
            )
            row = torch.from_numpy(np.asarray(shards.tokens[start:stop], np.int64))[None]
            with torch.no_grad():
                states, *_ = network(
                    row, torch.arange(stop - start)[None], causal_mask(torch.ones_like(row))
                )
                wanted = network.head(states)[0].float().log_softmax(-1)
            for token in range(answer, stop):
                row_logp = wanted[token - start - 1]
                assert np.allclose(
                    logp[places[token]], row_logp[ids[places[token]].astype(int)], atol=0.1
                )
                assert logp[places[token]][0] >= float(row_logp.max()) - 0.1

    def test_are_written_once(self, kept: Path, cloud: Path, dataset: Path, recipe: Recipe) -> None:
        before = (kept / "ids.npy").stat().st_mtime_ns
        again = Events(None)
        write_logits(cloud, dataset, kept, recipe.family["device"].train, again)
        assert (kept / "ids.npy").stat().st_mtime_ns == before
        assert again.seen == []

    def test_are_written_again_when_damaged(
        self,
        kept: Path,
        cloud: Path,
        dataset: Path,
        recipe: Recipe,
        copy_of: Callable[[Path], Path],
    ) -> None:
        copy = copy_of(kept)
        (copy / "logp.npy").write_bytes(b"")
        write_logits(cloud, dataset, copy, recipe.family["device"].train, Events(None))
        assert verify(copy, "logits").digest == verify(kept, "logits").digest

    def test_hold_most_of_the_mass_in_order(self, kept: Path) -> None:
        logp = np.load(kept / "logp.npy").astype(np.float32)
        assert (np.diff(logp, axis=1) <= 0).all()
        assert (np.exp(logp).sum(axis=1) < 1.01).all()


def test_a_student_comes_from_its_teacher(
    cloud: Path, device: Path, dataset: Path, shape_of: Callable[[str], Shape]
) -> None:
    assert verify(cloud.with_name("cloud-logits"), "logits").made_from == [
        verify(cloud).digest,
        verify(dataset).digest,
    ]
    assert manifest_of(device).made_from == [verify(cloud.with_name("cloud-logits")).digest]
    assert read_final(device)[0] == shape_of("device")


class TestLive:
    def test_a_teacher_taught_by_itself_has_nothing_to_learn(
        self, cloud: Path, dataset: Path
    ) -> None:
        shape, _ = read_final(cloud)
        teacher = network_of(cloud, shape, torch.device("cpu"))
        row = torch.from_numpy(np.asarray(read_shards(dataset / "train").tokens[:40], np.int64))[
            None
        ]
        told = {
            "ids": row,
            "positions": torch.arange(40)[None],
            "mask": causal_mask(torch.ones_like(row)),
            "real": None,
        }
        with torch.no_grad():
            logits = teacher.head(
                teacher(*(told[name] for name in ("ids", "positions", "mask"))).states[0, :3]
            ).float()
        loss = live_loss(teacher, 1.0)
        assert float(loss(logits, asked([0, 0, 0]), told).abs().max()) < 1e-4
        assert float(loss(logits.flip(0), asked([0, 0, 0]), told)[0]) > 1e-4

    def test_learns_without_stored_logits(
        self,
        cloud: Path,
        dataset: Path,
        recipe: Recipe,
        shape_of: Callable[[str], Shape],
        tmp_path: Path,
    ) -> None:
        tier = recipe.family["device"]
        assert tier.distil is not None
        asking = tier.distil.model_copy(update={"live": True})
        few = tier.train.model_copy(update={"steps": 2})
        distil(few, shape_of("device"), asking, cloud, dataset, tmp_path / "device", making=Making(seed=1, inputs="", made_from=["teacher"], events=Events(None)))  # fmt: skip
        assert manifest_of(tmp_path / "device").made_from == ["teacher"]
        assert not (tmp_path / "cloud-logits").exists()

    def test_another_vocabulary_is_refused(
        self, cloud: Path, shape_of: Callable[[str], Shape]
    ) -> None:
        with pytest.raises(TrainError, match="one tokenizer"):
            network_of(
                cloud, shape_of("device").model_copy(update={"vocab_size": 9}), torch.device("cpu")
            )

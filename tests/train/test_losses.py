"""What a step minimises: micro-batches add up, and one token further is asked as the paper says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.train.ranks import SHAPES, batch_of, section_of

from tumen.model import build, causal_mask
from tumen.train.losses import Targets, further, loss_of, shares_loss, whole_weight
from tumen.train.single_process import SingleProcessTrainer
from tumen.train.world import World

CPU = torch.device("cpu")


def alone(shape: str, mesh: dict[str, object]) -> SingleProcessTrainer:
    return SingleProcessTrainer(section_of(mesh), SHAPES[shape], World(0, 1, CPU), 0)


@pytest.mark.parametrize("shape", ["v2", "v3", "llama"])
@pytest.mark.parametrize("micro_rows", [1, 2, 4])
def test_micro_batches_add_up_to_the_step(shape: str, micro_rows: int) -> None:
    trainer, reference = alone(shape, {"micro_batch_size": micro_rows}), alone(shape, {})
    assert trainer.learn(batch_of(5)) == pytest.approx(reference.learn(batch_of(5)), rel=1e-5)
    assert trainer.step(1e-2) == pytest.approx(reference.step(1e-2), rel=1e-4)
    assert trainer.learn(batch_of(6)) == pytest.approx(reference.learn(batch_of(6)), rel=1e-3)


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_what_is_computed_again_is_the_same(recompute: str) -> None:
    losses = []
    for kind in ("none", recompute):
        trainer = alone("v2", {"recompute": kind})
        losses.append([trainer.learn(batch_of(5)), trainer.step(1e-2), trainer.learn(batch_of(6))])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


class TestFurther:
    def test_asks_for_the_token_after_the_next_of_the_same_document(self) -> None:
        batch = batch_of(5)
        after = further(batch)
        for r, row in enumerate(batch.ids):
            for t in range(len(row)):
                inside = t + 2 < len(row) and batch.documents[r, t] == batch.documents[r, t + 2] > 0
                assert after.targets[r, t] == (row[t + 2] if inside else -1)

    def test_the_loss_is_the_formula(self) -> None:
        """arXiv 2412.19437, equations 21 to 25: lambda times the mean cross-entropy of the module's head, which is the model's."""
        batch = batch_of(5)
        network, section = build(SHAPES["v3"], 1).train(), section_of({}, mtp_weight=0.3)
        found = float(loss_of(network, batch, section, CPU).detach())
        without = float(
            loss_of(network, batch, section.model_copy(update={"mtp_weight": 0.0}), CPU).detach()
        )
        ids, positions, documents = (
            torch.from_numpy(part) for part in (batch.ids, batch.positions, batch.documents)
        )
        told = {
            "real": documents > 0,
            "safe": network.safe_rows(ids),
            "following": torch.roll(ids, -1, 1),
        }
        out = network(ids, positions, causal_mask(documents), **told)
        assert out.ahead is not None
        after = further(batch)
        targets = torch.from_numpy(after.targets).flatten()
        losses = F.cross_entropy(
            network.head(out.ahead).flatten(0, 1), targets.clamp_min(0), reduction="none"
        ).detach()
        weights = torch.where(
            torch.from_numpy(after.answers).flatten() > 0, 1.0, section.sentence_weight
        ) * (targets >= 0)
        wanted = (
            0.3 * float((losses * weights).sum()) / whole_weight(batch, section.sentence_weight)
        )
        assert found - without == pytest.approx(wanted, rel=1e-3)


def test_evaluation_drops_nothing_and_counts_no_balance() -> None:
    shape = SHAPES["v2"]
    assert shape.experts is not None
    starved = shape.model_copy(
        update={
            "experts": shape.experts.model_copy(
                update={"capacity_factor": 0.01, "aux_loss_alpha": 9.0}
            )
        }
    )
    both = [
        SingleProcessTrainer(section_of({}), one, World(0, 1, CPU), 0).evaluate(
            [batch_of(7)], section_of({})
        )
        for one in (shape, starved)
    ]
    assert both[0] == both[1]


def test_safe_rows_are_a_share_chosen_by_their_tokens() -> None:
    network = build(SHAPES["v2"]).train()
    ids = torch.randint(0, 60, (4000, 16), generator=torch.Generator().manual_seed(0))
    safe = network.safe_rows(ids)
    assert safe is not None
    assert 0.05 < float(safe.float().mean()) < 0.2
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(1))
    again = network.safe_rows(ids[order])
    assert again is not None
    assert torch.equal(again, safe[order])
    assert network.eval().safe_rows(ids) is None


class TestShares:
    def test_what_is_learnt_has_the_shares_that_were_asked(self, tmp_path: Path) -> None:
        """Rows say each of two intents as often, people ask one four times as often; nothing else is known of a sentence."""
        offsets = {"1": math.log(0.5 / 0.8), "2": math.log(0.5 / 0.2)}
        (tmp_path / "offsets.json").write_text(json.dumps(offsets))
        weight, loss = shares_loss(tmp_path, 3) or pytest.fail("no offsets")
        assert weight == 1.0
        tokens = torch.tensor([1, 2, 1, 2])
        targets = Targets(tokens, tokens, torch.ones(4), torch.ones(4), tokens)
        logits = torch.zeros(3, requires_grad=True)
        trainer = torch.optim.LBFGS([logits], max_iter=100)

        def closure() -> float:
            trainer.zero_grad()
            found = loss(logits.expand(4, 3), targets, {}).mean()
            found.backward()  # type: ignore[no-untyped-call]
            return float(found.detach())

        trainer.step(closure)  # type: ignore[no-untyped-call]
        found = logits.detach().softmax(0)
        assert (found[1] / found[2]).item() == pytest.approx(4, rel=0.01)

    def test_a_dataset_without_them_is_learnt_as_it_is(self, tmp_path: Path) -> None:
        assert shares_loss(tmp_path, 3) is None

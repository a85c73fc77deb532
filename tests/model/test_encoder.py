"""The encoder is transformers' BertModel; packed sentences do not see each other."""

from __future__ import annotations

import torch
from transformers import BertConfig, BertModel

from tumen.core.shape import EncoderShape
from tumen.model import SentenceEncoder, build_encoder, label_heads, sentence_mask
from tumen.model.names import TYPES, encoder_names

SHAPE = EncoderShape(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=40,
    vocab_size=50,
    labels=(9, 5, 4),
)


def both() -> tuple[SentenceEncoder, BertModel]:
    """Ours with the random weights of a BertModel."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, max_position_embeddings=40,
        initializer_range=0.3,
    )  # fmt: skip
    theirs = BertModel(config).eval()
    public = theirs.state_dict()
    for name in public:
        if name.endswith("bias"):
            public[name].normal_(0, 0.3)
    ours = build_encoder(SHAPE).eval()
    weights = ours.state_dict()
    for name in encoder_names(SHAPE):
        weights[name.ours] = public[name.public].clone()
    weights["positions.weight"] += public[TYPES][0]
    ours.load_state_dict(weights)
    return ours, theirs


@torch.no_grad()
def test_the_encoder_is_a_bert() -> None:
    ours, theirs = both()
    ids = torch.randint(0, 50, (3, 17))
    positions = torch.arange(17).expand_as(ids)
    states = ours.states(ids, positions, sentence_mask(torch.ones_like(ids)))
    expected = theirs(ids).last_hidden_state
    torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_packed_sentences_are_read_as_if_alone() -> None:
    network = build_encoder(SHAPE, seed=2).eval()
    first, second = torch.randint(0, 50, (6,)), torch.randint(0, 50, (9,))
    ids = torch.cat((first, second, torch.zeros(5, dtype=torch.long))).unsqueeze(0)
    documents = torch.tensor([[1] * 6 + [2] * 9 + [0] * 5])
    positions = torch.tensor([[*range(6), *range(9), *[0] * 5]])
    packed = network.states(ids, positions, sentence_mask(documents))
    alone = network.states(
        second.unsqueeze(0), torch.arange(9).unsqueeze(0), sentence_mask(torch.ones(1, 9))
    )
    torch.testing.assert_close(packed[0, 6:15], alone[0])
    sentences = torch.tensor([0] * 6 + [1] * 9 + [2] * 5)
    found = network.labels(packed, sentences, torch.tensor([0, 6]))
    assert found.sentence.shape == (2, 9)
    assert found.tags.shape == (1, 20, 5)
    heads = label_heads(network.state_dict())
    pooled = torch.cat((alone[0].mean(dim=0), alone[0, 0]))
    expected = heads["sentence.weight"] @ pooled + heads["sentence.bias"]
    torch.testing.assert_close(found.sentence[1], expected)


def test_the_shape_counts_its_weights() -> None:
    held = sum(weight.numel() for weight in build_encoder(SHAPE).parameters())
    assert held == SHAPE.parameters()

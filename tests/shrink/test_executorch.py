"""ExecuTorch: the program reads tokens at their places as the network does; missing parts are named; tokens agree where it runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tests.model.shapes import SHAPES

from tumen.core.errors import ExportError, MissingExtra
from tumen.core.shape import Shape
from tumen.data import Codec, read_corpus
from tumen.model import build, causal_mask
from tumen.shrink import check_export, export_pte, run_pte
from tumen.shrink.executorch import Steps, lowering

TOKENS = [3, 17, 4, 42, 9, 1, 30]
PIECES = [
    (0, 3),
    (3, 1),
    (4, 1),
    (5, 2),
]  # (start, length): a prompt, then token by token, then two


@pytest.mark.parametrize(
    "name", ["gqa", "mha", "mla", "mla without query rank", "mla moe", "mla moe v3", "gqa moe"]
)
@torch.no_grad()
def test_steps_are_the_network(name: str) -> None:
    shape: Shape = SHAPES[name]
    network, steps = build(shape, 3).eval(), Steps(build(shape, 3).eval(), 12).eval()
    for name, part in steps.named_buffers():
        if name.startswith(("first_", "second_")):
            part.fill_(float("nan"))  # a device promises nothing about what memory holds
    states, *_ = network(
        torch.tensor([TOKENS]),
        torch.arange(len(TOKENS))[None],
        causal_mask(torch.ones(1, len(TOKENS), dtype=torch.long)),
    )
    logits = network.head(states)[0]
    for start, length in PIECES:
        found = steps(torch.tensor([TOKENS[start : start + length]]), torch.tensor([start]))
        torch.testing.assert_close(found[0], logits[start + length - 1], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("delegate", "quantize", "says"),
    [
        ("coreml", "int8", "known: xnnpack, qualcomm, mediatek"),
        ("xnnpack", "int4", "take int8 or bf16"),
        ("qualcomm", "int8", "take bf16"),
        ("qualcomm", "bf16", "QNN_SDK_ROOT is not set"),
        ("mediatek", "bf16", "mtk_converter is missing; --delegate mediatek wants"),
    ],
)
def test_what_is_missing_is_one_line(
    delegate: str, quantize: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "executorch.exir", None)
    monkeypatch.setitem(sys.modules, "mtk_converter", None)
    monkeypatch.delenv("QNN_SDK_ROOT", raising=False)
    with pytest.raises(ExportError, match=says) as caught:
        lowering(delegate, quantize, "SM8650")
    assert "\n" not in str(caught.value)


def test_without_executorch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch", None)
    monkeypatch.setitem(sys.modules, "executorch.exir", None)
    with pytest.raises(MissingExtra, match=r"needs executorch: pip install 'tumen\[executorch\]'"):
        lowering("xnnpack", "int8", "SM8650")


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["device", "cloud"])
def test_executorch_writes_torchs_tokens(
    tier: str, request: pytest.FixtureRequest, tokenizer: Path, corpus: Path, tmp_path: Path
) -> None:
    pytest.importorskip("executorch.exir", reason="the extra `executorch` is not installed")
    checkpoint: Path = request.getfixturevalue(tier)
    export_pte(checkpoint, tmp_path / "pte", "int8", 128, "xnnpack")
    sentences = [str(row["sentence"]) for row in read_corpus(corpus, "eval")][:10]
    complete = run_pte(tmp_path / "pte" / "model.pte", Codec.load(tokenizer).end, 12)
    assert check_export(checkpoint, tokenizer, sentences, complete, 0.9)["sentences"] == 10

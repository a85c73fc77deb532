"""ExecuTorch out: a tier as one `.pte` for phones, by delegate (docs.pytorch.org/executorch, 1.5).

    model.pte    forward(tokens (1, T) int64, start (1,) int64) -> logits after the last token (1, vocabulary) fp32
    pte.json     {context, vocab, quantise, delegate, soc}

The keys and values of `context` tokens are buffers of the program: `start` says how many tokens it has read, so start = 0 begins
anew. XNNPACK is run here by the Python runtime and held against torch. Qualcomm's and MediaTek's delegates compile with the
vendor's SDK, which nobody here has: that path is written to the documentation and has not been run.
"""

from __future__ import annotations

import importlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tumen.core.errors import ExportError, disk
from tumen.core.extras import need
from tumen.core.shape import Gqa, Shape
from tumen.model import Cache, MixtureOfExperts, Transformer, build
from tumen.train.weights import read_final

PURPOSE = "ExecuTorch"
LONGEST_PROMPT = 128  # tokens of one call; a longer prompt is read in pieces


class StaticCache(Cache):
    """Keys and values of one layer, (1, heads, context, features) each, filled at `places` (T,).

    What a place holds before it is `filled` (context, 1) is nobody's promise on a device, so it is read as zero.
    """

    def __init__(self, first: Tensor, second: Tensor, places: Tensor, filled: Tensor) -> None:
        self.kept, self.places, self.filled = (first, second), places, filled

    def extend(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Put T tokens at their places and return all places."""
        for kept, fresh in zip(self.kept, (first, second), strict=True):
            kept.index_copy_(2, self.places, fresh)
        return torch.where(self.filled, self.kept[0], 0.0), torch.where(
            self.filled, self.kept[1], 0.0
        )


class EveryExpert(nn.Module):
    """A mixture whose experts all run, weighted by 0 where not chosen: no shape depends on what the router says.

    It costs routed / top_k times the arithmetic, so it is for mixtures of few experts; the result is the same.
    """

    def __init__(self, mixture: MixtureOfExperts) -> None:
        super().__init__()
        self.mixture = mixture
        self.gates, self.ups, self.downs = (
            nn.ModuleList(_matrix(part.T) for part in parts)
            for parts in (mixture.gate, mixture.up, mixture.down)
        )
        self.shared = mixture.shared
        del mixture.gate, mixture.up, mixture.down, mixture.shared

    def forward(self, x: Tensor) -> Tensor:
        """x (1, T, D) -> (1, T, D)."""
        rows = x.flatten(0, 1)
        choice = self.mixture.route(rows)
        weights = torch.zeros_like(choice.affinity).scatter(
            1, choice.expert, choice.weight
        )  # (T, E)
        out = torch.zeros_like(rows) if self.shared is None else self.shared(rows)
        for e, (gate, up, down) in enumerate(zip(self.gates, self.ups, self.downs, strict=True)):
            out = out + weights[:, e : e + 1] * down(F.silu(gate(rows)) * up(rows))
        return out.view_as(x)


def _matrix(weight: Tensor) -> nn.Linear:
    """A linear layer around a weight (out, in)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.detach().clone().contiguous())
    return layer


class Steps(nn.Module):
    """A network that reads tokens at their places: what becomes the program."""

    keys: Tensor

    def __init__(self, network: Transformer, context: int) -> None:
        super().__init__()
        shape = network.shape
        if network.embed is None:
            raise ExportError("this is a pipeline stage, no network")
        self.embed: nn.Embedding | WholeNumbers = network.embed
        self.head = _matrix(network.head(torch.eye(shape.hidden_size)).T)
        for block in network.every_block():
            if isinstance(block.feed, MixtureOfExperts):
                block.feed = EveryExpert(block.feed)
        network.embed = network.output = None
        self.network = network
        self.register_buffer("keys", torch.arange(context))
        for layer in range(shape.num_hidden_layers):
            for part, (heads, features) in zip(("first", "second"), _kept(shape), strict=True):
                self.register_buffer(f"{part}_{layer}", torch.zeros(1, heads, context, features))

    def forward(self, tokens: Tensor, start: Tensor) -> Tensor:
        """Tokens (1, T) after `start` (1,) others -> logits (1, vocabulary) after the last."""
        places = start + torch.arange(tokens.shape[1])
        past = self.keys.unsqueeze(0) <= places.unsqueeze(1)  # (T, context)
        caches: list[Cache] = [
            StaticCache(
                getattr(self, f"first_{layer}"),
                getattr(self, f"second_{layer}"),
                places,
                past[-1].unsqueeze(1),
            )
            for layer in range(self.network.shape.num_hidden_layers)
        ]
        mask = torch.where(past, 0.0, float("-inf"))[None, None]
        states, *_ = self.network(self.embed(tokens), places.unsqueeze(0), mask, caches)
        return cast(Tensor, self.head(states[:, -1]))


def _kept(shape: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
    """(heads, features) of both parts of a cache."""
    attention = shape.attention
    if isinstance(attention, Gqa):
        return (attention.num_key_value_heads, attention.head_dim), (
            attention.num_key_value_heads,
            attention.head_dim,
        )
    return (1, attention.kv_lora_rank), (1, attention.qk_rope_head_dim)


class WholeNumbers(nn.Module):
    """An embedding table in eight bits with a scale a row; ExecuTorch's plain operators read it, no delegate is needed."""

    scale: Tensor
    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        scale = table.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("table", (table / scale).round().to(torch.int8))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (1, T) -> (1, T, D)."""
        return F.embedding(tokens, self.table).float() * F.embedding(tokens, self.scale)


def whole_numbers(steps: Steps) -> None:
    """Eight bits a weight, a scale a row, activations a scale a token; not the router, nor what attention uses as a tensor."""
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerAxis

    def matrix(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and not name.endswith(("kv_up", "router"))

    quantize_(
        steps,
        Int8DynamicActivationIntxWeightConfig(torch.int8, weight_granularity=PerAxis(0)),
        matrix,
    )
    if isinstance(steps.embed, nn.Embedding):
        steps.embed = WholeNumbers(steps.embed.weight.detach())


def export_pte(
    checkpoint: Path, out: Path, quantise: str, context: int, delegate: str, soc: str = ""
) -> None:
    """Write a trained tier as `model.pte` and `pte.json` into a new folder.

    Args:
        quantise: int8 (xnnpack alone), or bf16: nothing is quantised; weights are fp32, fp16 on Qualcomm's.
        context: tokens it can hold.
        soc: the chip, for qualcomm (such as SM8650) and mediatek (such as mt6989).

    Raises:
        ExportError: ExecuTorch or a vendor's SDK is missing, or the tier cannot be written so.
        DiskError: no room or not permitted.
    """
    lower = lowering(delegate, quantise, soc)
    shape, weights = read_final(checkpoint)
    network = build(shape)
    network.load_state_dict(weights)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters warn about their own insides, by the dozen
        steps = Steps(network.eval(), context).eval()
        if quantise == "int8":
            whole_numbers(steps)
        program: bytes = lower(steps, context)
    with disk(out):
        out.mkdir(parents=True)
        (out / "model.pte").write_bytes(program)
        about = {
            "context": context,
            "vocab": shape.vocab_size,
            "quantise": quantise,
            "delegate": delegate,
            "soc": soc,
        }
        (out / "pte.json").write_text(json.dumps(about, indent=1))


Lower = Callable[[Steps, int], bytes]


def lowering(delegate: str, quantise: str, soc: str) -> Lower:
    """How steps become a program on a delegate.

    Raises:
        ExportError: unknown, or what it needs is missing.
    """
    if delegate not in DELEGATES:
        raise ExportError(f"--delegate {delegate}: unknown; known: {', '.join(DELEGATES)}")
    written = ("int8", "bf16") if delegate == "xnnpack" else ("bf16",)
    if quantise not in written:
        raise ExportError(
            f"ExecuTorch, {delegate}: --quantize {quantise} is not written; take {' or '.join(written)}"
        )
    return DELEGATES[delegate](soc)


def _needed(name: str, remedy: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise ExportError(f"ExecuTorch: {error.name or name} is missing; {remedy}") from None


def _xnnpack(soc: str) -> Lower:
    """CPU; prompts of any length up to `LONGEST_PROMPT` in one call."""
    need("executorch.exir", PURPOSE)
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    def lower(steps: Steps, context: int) -> bytes:
        length = torch.export.Dim("length", min=1, max=min(LONGEST_PROMPT, context) - 1)
        program = torch.export.export(
            steps, _example(4), dynamic_shapes=({1: length}, None), strict=False
        )
        return bytes(
            to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            .to_executorch()
            .buffer
        )

    return lower


def _qualcomm(soc: str) -> Lower:
    """Hexagon by Qualcomm AI Engine Direct in fp16, one token a call (docs.pytorch.org/executorch, Qualcomm backend). Not run."""
    if not os.environ.get("QNN_SDK_ROOT"):
        raise ExportError(
            "--delegate qualcomm: QNN_SDK_ROOT is not set; it names the folder of Qualcomm's AI Engine Direct SDK"
        )
    need("executorch.exir", PURPOSE)
    from executorch.backends.qualcomm.utils import utils as qnn

    chips = qnn.get_soc_to_chipset_map()
    if soc not in chips:
        raise ExportError(
            f"--soc {soc or '(none)'}: Qualcomm's delegate knows {', '.join(sorted(chips))}"
        )
    specs = qnn.generate_qnn_executorch_compiler_spec(
        chips[soc], qnn.generate_htp_compiler_spec(use_fp16=True)
    )

    def lower(steps: Steps, context: int) -> bytes:
        return bytes(
            qnn.to_edge_transform_and_lower_to_qnn(steps, _example(1), specs).to_executorch().buffer
        )

    return lower


def _mediatek(soc: str) -> Lower:
    """MediaTek's NPU by NeuroPilot, one token a call (docs.pytorch.org/executorch/1.5, MediaTek backend). Not run."""
    for name in ("mtk_converter", "mtk_neuron"):
        _needed(name, "--delegate mediatek wants the wheels of MediaTek's NeuroPilot Express SDK")
    need("executorch.exir", PURPOSE)
    from executorch.backends.mediatek import NeuropilotPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.exir.backend.compile_spec_schema import CompileSpec

    if not soc:
        raise ExportError(
            "--soc is missing: MediaTek's delegate wants the platform, such as mt6989"
        )
    partitioner = NeuropilotPartitioner([CompileSpec("platform-config", soc.encode())])

    def lower(steps: Steps, context: int) -> bytes:
        program = torch.export.export(steps, _example(1), strict=False)
        return bytes(
            to_edge_transform_and_lower(program, partitioner=[partitioner]).to_executorch().buffer
        )

    return lower


DELEGATES: dict[str, Callable[[str], Lower]] = {
    "xnnpack": _xnnpack,
    "qualcomm": _qualcomm,
    "mediatek": _mediatek,
}


def _example(length: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(1, length, dtype=torch.long), torch.zeros(1, dtype=torch.long)


def run_pte(path: Path, end: int, longest: int) -> Callable[[list[int]], list[int]]:
    """Greedy continuation by ExecuTorch's own runtime, for the export check: prompt -> ids, `end` included if it was reached.

    Raises:
        ExportError: ExecuTorch is missing.
    """
    need("executorch.runtime", PURPOSE)
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")

    def read(tokens: Sequence[int], start: int) -> int:
        return int(method.execute([torch.tensor([tokens]), torch.tensor([start])])[0][0].argmax())

    def complete(prompt: list[int]) -> list[int]:
        piece = LONGEST_PROMPT - 1
        best = [read(prompt[at : at + piece], at) for at in range(0, len(prompt), piece)][-1]
        written = [best]
        while written[-1] != end and len(written) < longest:
            written.append(read(written[-1:], len(prompt) + len(written) - 1))
        return written

    return complete

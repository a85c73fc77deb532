"""Write a tier as one ExecuTorch `.pte` for phones (docs.pytorch.org/executorch, 1.5).

    model.pte    forward(tokens (1, T) int64, start (1,) int64)
                 -> logits after the last token (1, vocabulary) fp32
    pte.json     {context, vocab, quantize, delegate, soc}

The keys and values of `context` tokens are buffers of the program: `start` is the number of tokens
read so far, so start = 0 begins anew. XNNPACK runs here in the Python runtime and is compared with
torch. Qualcomm's and MediaTek's delegates compile with the vendor's SDK: those two follow the
documentation and have not been run.
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
LARGEST_INT8 = 127


class StaticCache(Cache):
    """Keys and values of one layer, (1, heads, context, features) each.

    T tokens are written at `places` (T,). Places that are not `filled` (context, 1) yet may hold
    anything on a device, so they are read as zero.
    """

    def __init__(self, first: Tensor, second: Tensor, places: Tensor, filled: Tensor) -> None:
        self.kept = (first, second)
        self.places = places
        self.filled = filled

    def extend(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Write T tokens at their places and return all places."""
        for kept, fresh in zip(self.kept, (first, second), strict=True):
            kept.index_copy_(2, self.places, fresh)
        keys, values = self.kept
        return torch.where(self.filled, keys, 0.0), torch.where(self.filled, values, 0.0)


class EveryExpert(nn.Module):
    """A mixture that runs all experts and weights the unchosen ones with 0.

    No shape depends on the router then, as an exported program demands. It costs routed / top_k
    times the arithmetic, so it suits mixtures of few experts; the result is the same.
    """

    def __init__(self, mixture: MixtureOfExperts) -> None:
        super().__init__()
        self.mixture = mixture
        self.gates = _matrices(mixture.gate)
        self.ups = _matrices(mixture.up)
        self.downs = _matrices(mixture.down)
        self.shared = mixture.shared
        del mixture.gate, mixture.up, mixture.down, mixture.shared

    def forward(self, x: Tensor) -> Tensor:
        """Input and output (1, T, D)."""
        rows = x.flatten(0, 1)  # (T, D)
        choice = self.mixture.route(rows)
        nothing = torch.zeros_like(choice.affinity)
        weights = nothing.scatter(1, choice.expert, choice.weight)  # (T, E)
        out = torch.zeros_like(rows) if self.shared is None else self.shared(rows)
        experts = zip(self.gates, self.ups, self.downs, strict=True)
        for e, (gate, up, down) in enumerate(experts):
            inner = F.silu(gate(rows)) * up(rows)  # (T, F)
            out = out + weights[:, e : e + 1] * down(inner)
        return out.view_as(x)


def _matrices(stacked: Tensor) -> nn.ModuleList:
    """Linear layers of stacked experts (E, in, out)."""
    return nn.ModuleList(_matrix(part.T) for part in stacked)


def _matrix(weight: Tensor) -> nn.Linear:
    """A linear layer with a weight (out, in)."""
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=False)
    layer.weight = nn.Parameter(weight.detach().clone().contiguous())
    return layer


class Steps(nn.Module):
    """A network that reads tokens at their places: the module that becomes the program."""

    keys: Tensor

    def __init__(self, network: Transformer, context: int) -> None:
        super().__init__()
        shape = network.shape
        if network.embed is None:
            raise ExportError("this is a pipeline stage, not a network; export the whole network")
        self.embed: nn.Embedding | Int8Embedding = network.embed
        # The head may share the embedding's weight; here it gets one of its own.
        identity = torch.eye(shape.hidden_size)
        self.head = _matrix(network.head(identity).T)
        for block in network.every_block():
            if isinstance(block.feed, MixtureOfExperts):
                block.feed = EveryExpert(block.feed)
        network.embed = None
        network.output = None
        self.network = network
        self.register_buffer("keys", torch.arange(context))
        for layer in range(shape.num_hidden_layers):
            for part, (heads, features) in zip(("first", "second"), _kept(shape), strict=True):
                empty = torch.zeros(1, heads, context, features)
                self.register_buffer(f"{part}_{layer}", empty)

    def forward(self, tokens: Tensor, start: Tensor) -> Tensor:
        """Logits (1, vocabulary) after tokens (1, T) that follow `start` (1,) others."""
        places = start + torch.arange(tokens.shape[1])  # (T,)
        past = self.keys.unsqueeze(0) <= places.unsqueeze(1)  # (T, context)
        filled = past[-1].unsqueeze(1)  # (context, 1)
        caches: list[Cache] = []
        for layer in range(self.network.shape.num_hidden_layers):
            first = getattr(self, f"first_{layer}")
            second = getattr(self, f"second_{layer}")
            caches.append(StaticCache(first, second, places, filled))
        mask = torch.where(past, 0.0, float("-inf"))[None, None]  # (1, 1, T, context)
        embedded = self.embed(tokens)  # (1, T, D)
        states, *_ = self.network(embedded, places.unsqueeze(0), mask, caches)
        return cast(Tensor, self.head(states[:, -1]))


def _kept(shape: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
    """(heads, features) of both parts of a cache."""
    attention = shape.attention
    if isinstance(attention, Gqa):
        each = (attention.num_key_value_heads, attention.head_dim)
        return each, each
    return (1, attention.kv_lora_rank), (1, attention.qk_rope_head_dim)


class Int8Embedding(nn.Module):
    """An embedding table in int8 with one scale a row.

    ExecuTorch's portable operators read it; it needs no delegate.
    """

    scale: Tensor
    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        largest = table.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        scale = largest / LARGEST_INT8  # (vocabulary, 1)
        self.register_buffer("scale", scale)
        self.register_buffer("table", (table / scale).round().to(torch.int8))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (1, T) -> (1, T, D)."""
        rows = F.embedding(tokens, self.table).float()  # (1, T, D)
        return rows * F.embedding(tokens, self.scale)


def quantize_int8(steps: Steps) -> None:
    """Quantize in place: int8 weights with a scale a row, int8 activations with a scale a token.

    The router stays as it is, and so does what attention uses as a tensor.
    """
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerAxis

    def matrix(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and not name.endswith(("kv_up", "router"))

    config = Int8DynamicActivationIntxWeightConfig(torch.int8, weight_granularity=PerAxis(0))
    quantize_(steps, config, matrix)
    if isinstance(steps.embed, nn.Embedding):
        steps.embed = Int8Embedding(steps.embed.weight.detach())


def export_pte(
    checkpoint: Path, out: Path, quantize: str, context: int, delegate: str, soc: str = ""
) -> None:
    """Write a trained tier as `model.pte` and `pte.json` into a new folder.

    Args:
        checkpoint: the trained tier.
        out: the new folder.
        quantize: int8 (xnnpack alone), or bf16 for unquantized weights: fp32, on Qualcomm's fp16.
        context: most tokens of prompt and answer together.
        delegate: xnnpack, qualcomm or mediatek.
        soc: the chip, for qualcomm (such as SM8650) and mediatek (such as mt6989).

    Raises:
        ExportError: ExecuTorch or a vendor's SDK is missing, or the delegate cannot do this.
        DiskError: the disk is full or the folder not writable.
    """
    lower = lowering(delegate, quantize, soc)
    shape, weights = read_final(checkpoint)
    network = build(shape)
    network.load_state_dict(weights)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters warn about their own internals, by the dozen
        steps = Steps(network.eval(), context).eval()
        if quantize == "int8":
            quantize_int8(steps)
        program: bytes = lower(steps, context)
    about = {
        "context": context,
        "vocab": shape.vocab_size,
        "quantize": quantize,
        "delegate": delegate,
        "soc": soc,
    }
    with disk(out):
        out.mkdir(parents=True)
        (out / "model.pte").write_bytes(program)
        (out / "pte.json").write_text(json.dumps(about, indent=1))


Lower = Callable[[Steps, int], bytes]


def lowering(delegate: str, quantize: str, soc: str) -> Lower:
    """The function that compiles steps for a delegate.

    Raises:
        ExportError: the delegate is unknown, or something it needs is missing.
    """
    if delegate not in DELEGATES:
        raise ExportError(f"--delegate {delegate}: unknown; known: {', '.join(DELEGATES)}")
    written = ("int8", "bf16") if delegate == "xnnpack" else ("bf16",)
    if quantize not in written:
        raise ExportError(
            f"ExecuTorch, {delegate}: --quantize {quantize} is not written; "
            f"take {' or '.join(written)}"
        )
    return DELEGATES[delegate](soc)


def _needed(name: str, remedy: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise ExportError(f"ExecuTorch: {error.name or name} is missing; {remedy}") from None


def _xnnpack(soc: str) -> Lower:
    """CPU; a call reads prompts of any length up to `LONGEST_PROMPT`."""
    need("executorch.exir", PURPOSE)
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    def lower(steps: Steps, context: int) -> bytes:
        longest = min(LONGEST_PROMPT, context) - 1
        length = torch.export.Dim("length", min=1, max=longest)
        program = torch.export.export(
            steps, _example(4), dynamic_shapes=({1: length}, None), strict=False
        )
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        return bytes(lowered.to_executorch().buffer)

    return lower


def _qualcomm(soc: str) -> Lower:
    """Hexagon by Qualcomm AI Engine Direct in fp16, one token a call. Not run here.

    After docs.pytorch.org/executorch, Qualcomm backend.
    """
    if not os.environ.get("QNN_SDK_ROOT"):
        raise ExportError(
            "--delegate qualcomm: QNN_SDK_ROOT is not set; "
            "it names the folder of Qualcomm's AI Engine Direct SDK"
        )
    need("executorch.exir", PURPOSE)
    from executorch.backends.qualcomm.utils import utils as qnn

    chips = qnn.get_soc_to_chipset_map()
    if soc not in chips:
        known = ", ".join(sorted(chips))
        raise ExportError(f"--soc {soc or '(none)'}: Qualcomm's delegate knows {known}")
    options = qnn.generate_htp_compiler_spec(use_fp16=True)
    specs = qnn.generate_qnn_executorch_compiler_spec(chips[soc], options)

    def lower(steps: Steps, context: int) -> bytes:
        lowered = qnn.to_edge_transform_and_lower_to_qnn(steps, _example(1), specs)
        return bytes(lowered.to_executorch().buffer)

    return lower


def _mediatek(soc: str) -> Lower:
    """MediaTek's NPU by NeuroPilot, one token a call. Not run here.

    After docs.pytorch.org/executorch/1.5, MediaTek backend.
    """
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
    platform = CompileSpec("platform-config", soc.encode())
    partitioner = NeuropilotPartitioner([platform])

    def lower(steps: Steps, context: int) -> bytes:
        program = torch.export.export(steps, _example(1), strict=False)
        lowered = to_edge_transform_and_lower(program, partitioner=[partitioner])
        return bytes(lowered.to_executorch().buffer)

    return lower


DELEGATES: dict[str, Callable[[str], Lower]] = {
    "xnnpack": _xnnpack,
    "qualcomm": _qualcomm,
    "mediatek": _mediatek,
}


def _example(length: int) -> tuple[Tensor, Tensor]:
    tokens = torch.zeros(1, length, dtype=torch.long)
    start = torch.zeros(1, dtype=torch.long)
    return tokens, start


def run_pte(path: Path, end: int, longest: int) -> Callable[[list[int]], list[int]]:
    """Greedy continuation by ExecuTorch's own runtime, for the export check.

    Args:
        path: the .pte file.
        end: id of the end token.
        longest: most ids of an answer.

    Returns:
        A function from a prompt's ids to the answer's, `end` included if it was reached.

    Raises:
        ExportError: ExecuTorch is missing.
    """
    need("executorch.runtime", PURPOSE)
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")

    def read(tokens: Sequence[int], start: int) -> int:
        """The likeliest token after `tokens`, of which the first is at place `start`."""
        inputs = [torch.tensor([tokens]), torch.tensor([start])]
        logits = method.execute(inputs)[0]
        return int(logits[0].argmax())

    def complete(prompt: list[int]) -> list[int]:
        piece = LONGEST_PROMPT - 1
        best = [read(prompt[at : at + piece], at) for at in range(0, len(prompt), piece)][-1]
        written = [best]
        while written[-1] != end and len(written) < longest:
            place = len(prompt) + len(written) - 1
            written.append(read(written[-1:], place))
        return written

    return complete

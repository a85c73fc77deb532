"""What quantization costs, method by method.

KL from the next-token distributions of the tier before quantization to those after it.

    python benchmarks/quantize.py RUN [--tier device] [--at ablation/VARIANT/seed-1]
        [--trained int4] [--seeds 1 2 3] [--steps 200] [--sentences 600] [--out FILE]

Over the action tokens of validation sentences, which no training saw and no calibration reads.
Methods: ggml's own quantizer without importance (round-to-nearest, the floor) and with it; our
search for scales without and with it; types mixed to a byte budget; training with the types, on the
data alone and on the unquantized tier's distributions. A row is every matrix in that type, but
`int4`, which keeps embedding and head at Q8_0. Bytes are those of the matrices. Then: what one
kind of matrix alone costs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import torch
from contest import circumstances, headline, table, write
from ggml import quantized
from torch import Tensor

from tumen.core import units
from tumen.core.events import Events
from tumen.eval.statistics import mean_over_seeds
from tumen.model import build
from tumen.recipe import Quantize, Recipe
from tumen.recipe.field_types import LADDER, QuantType
from tumen.shrink.gguf_writer import matrices_of, quant_types_of, tensors_of
from tumen.shrink.quant_types import QUANTIZERS
from tumen.shrink.quantize import train_quantized, write_types
from tumen.shrink.quantize.allocation import cheapest, measured, padded, read_types, twins
from tumen.shrink.quantize.divergence import Reference, some_batches
from tumen.shrink.quantize.importance import importance_of
from tumen.shrink.quantize.tensors import Places
from tumen.train import Making
from tumen.train.weights import read_final

WORDS = ("int8", "int4", *LADDER)
BUDGETS = ("int8", "int4", "q4_k", "q3_k", "q2_k")
TEACH = {0.0: "aware, data alone", 1.0: "aware, own distributions"}
Types = Mapping[str, QuantType]
See = Callable[
    [str, Tensor, QuantType], Tensor
]  # a matrix by the file's name -> the same in its type


class Tier:
    """A trained tier of a run, its held-out distributions and its importance."""

    def __init__(self, run: Path, name: str, at: str, sentences: int, calibrate: int) -> None:
        self.run, self.name, self.calibrate, self.checkpoint = (
            run,
            name,
            calibrate,
            run / (at or name),
        )
        self.shape, self.weights = read_final(self.checkpoint)
        self.reference = Reference(
            self.shape, self.weights, some_batches(run / "dataset" / "validation", sentences, 0)
        )
        network = build(self.shape)
        network.load_state_dict(self.weights)
        self.batches = some_batches(run / "dataset" / "train", calibrate, 0)
        self.importance = importance_of(network, self.batches)
        self.places = Places(self.shape, self.weights)
        self.matrices = matrices_of(tensors_of(self.shape, self.weights))

    def row(
        self,
        method: str,
        what: str,
        types: Types,
        see: See,
        weights: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        """One row: bytes, bits a weight, and the divergence, of given weights (default: the
        tier's)."""
        held = weights or self.weights
        tensors = tensors_of(self.shape, held)
        seen = self.places.back(
            held, {name: see(name, tensors[name], quant_type) for name, quant_type in types.items()}
        )
        kl = self.reference.divergence(seen)
        size = sum(
            padded(QUANTIZERS[quant_type].bytes_of(tensors[name]))
            for name, quant_type in types.items()
        )
        bits = 8 * size / sum(tensors[name].numel() for name in types)
        found = {"method": method, "type": what, "bytes": size, "bits": round(bits, 2)}
        row = found | {
            "kl": float(kl.mean()),
            "kl_99": float(kl.quantile(0.99)) if len(kl) < 1 << 24 else None,
        }
        print(f"  {method:<34} {what:<14} {row['bits']:5.2f} bits  KL {row['kl']:.5f}", flush=True)
        return row

    def searched(self, name: str, tensor: Tensor, quant_type: QuantType) -> Tensor:
        """Our search, all weights alike."""
        return QUANTIZERS[quant_type].fake_quantize(tensor, QUANTIZERS[quant_type].fit(tensor))

    def weighed(self, name: str, tensor: Tensor, quant_type: QuantType) -> Tensor:
        """Our search, with importance."""
        return QUANTIZERS[quant_type].fake_quantize(
            tensor, QUANTIZERS[quant_type].fit(tensor, self.importance.get(name))
        )

    def nearest(self, name: str, tensor: Tensor, quant_type: QuantType) -> Tensor:
        """ggml's rounding, without importance."""
        return read_back(quantized(tensor.contiguous(), quant_type), quant_type)

    def ggml(self, name: str, tensor: Tensor, quant_type: QuantType) -> Tensor:
        """ggml's rounding, with importance."""
        return read_back(
            quantized(tensor.contiguous(), quant_type, self.importance.get(name)), quant_type
        )


def read_back(data: Tensor, quant_type: QuantType) -> Tensor:
    """What bytes mean."""
    return torch.from_numpy(gguf.quants.dequantize(data.numpy(), QUANTIZERS[quant_type].kind))


def rounded(tier: Tier, words: list[str]) -> Iterator[dict[str, Any]]:
    """Every type by every way of rounding."""
    yield tier.row("bf16", "bf16", quant_types_of(tier.matrices, "bf16"), tier.searched)
    for word in words:
        types = quant_types_of(tier.matrices, word)
        yield tier.row("round to nearest (ggml)", word, types, tier.nearest)
        yield tier.row("ggml, importance", word, types, tier.ggml)
        yield tier.row("ours", word, types, tier.searched)
        yield tier.row("ours, importance", word, types, tier.weighed)


def mixed(tier: Tier, words: list[str]) -> Iterator[dict[str, Any]]:
    """Types chosen one by one, at the bytes of uniform ones; `predicted` is the sum of what each
    matrix costs alone."""
    reference = Reference(tier.shape, tier.weights, tier.batches)
    options = (
        measured(reference, tier.shape, tier.weights, tier.importance, LADDER) if words else {}
    )
    for word in words:
        types = quant_types_of(tier.matrices, word)
        size = sum(
            padded(QUANTIZERS[quant_type].bytes_of(tier.matrices[name]))
            for name, quant_type in types.items()
        )
        chosen = cheapest(options, size)
        predicted = sum(options[name][quant_type].divergence for name, quant_type in chosen.items())
        chosen |= {twin: chosen[one] for twin, one in twins(tier.shape).items()}
        found = tier.row("mixed, importance", f"as {word}", chosen, tier.weighed)
        yield found | {
            "predicted": predicted,
            "counts": {
                quant_type: list(chosen.values()).count(quant_type)
                for quant_type in set(chosen.values())
            },
        }


def trained(
    tier: Tier, word: str, steps: int, seeds: list[int], teach: list[float]
) -> Iterator[dict[str, Any]]:
    """Training with the types, not compiled, one row a method and seed; the seed is that of
    calibration and order."""
    recipe = Recipe.model_validate_json((tier.run / "recipe.json").read_text("utf-8"))
    dataset, checkpoint = tier.run / "dataset", tier.checkpoint
    asked = Quantize(type=word, qat=True, steps=steps, calibrate=tier.calibrate)
    section = asked.section(recipe.family[tier.name].train).model_copy(update={"compile": False})
    for seed in seeds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_types(
                checkpoint,
                tier.run / "tokenizer",
                dataset,
                asked,
                "x",
                folder / "quant",
                making=Making(seed=seed, inputs=""),
            )
            choice = read_types(folder / "quant")
            for share in teach:
                out = folder / f"aware-{share}"
                making = Making(seed=seed, inputs="", made_from=[], events=Events(None))
                train_quantized(
                    section, share, checkpoint, folder / "quant", dataset, out, making=making
                )

                def see(
                    name: str, tensor: Tensor, quant_type: QuantType, scales=choice.scales
                ) -> Tensor:
                    return QUANTIZERS[quant_type].fake_quantize(tensor, scales[name])

                with torch.no_grad():
                    row = tier.row(
                        TEACH.get(share, f"aware, {share:.0%} own distributions"),
                        word,
                        choice.types,
                        see,
                        read_final(out)[1],
                    )
                yield row | {"seed": seed, "steps": steps, "rate": asked.learning_rate}


def by_kind(tier: Tier, words: list[str]) -> Iterator[dict[str, Any]]:
    """What all matrices of one kind cost when nothing else is quantized."""
    kinds = sorted({name.split(".")[-2] for name in tier.matrices})
    for kind in kinds:
        for word in words:
            named = {
                name: tensor
                for name, tensor in tier.matrices.items()
                if name.split(".")[-2] == kind
            }
            yield tier.row(kind, word, quant_types_of(named, word), tier.weighed)


def recovered(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The share of round-to-nearest's KL that training with the types takes away, over seeds."""
    for word in dict.fromkeys(row["type"] for row in rows if "seed" in row):
        floor = next(
            row["kl"] for row in rows if row["method"].startswith("round") and row["type"] == word
        )
        methods = dict.fromkeys(
            row["method"] for row in rows if "seed" in row and row["type"] == word
        )
        for method in methods:
            shares = [
                1 - row["kl"] / floor
                for row in rows
                if row["method"] == method and row["type"] == word
            ]
            yield {
                "method": method,
                "type": word,
                "shares": shares,
                **mean_over_seeds(shares)._asdict(),
            }


def said(row: Mapping[str, Any]) -> tuple[str, str]:
    """A row's divergence, mean and 99 %."""
    return f"{row['kl']:.2g}", f"{row['kl_99']:.2g}"


def shown(result: Mapping[str, Any]) -> str:
    """Tables in Markdown."""
    cells = [
        [
            row["method"],
            row["type"],
            row["bits"],
            units.show_bytes(row["bytes"]),
            *said(row),
            row.get("seed", ""),
        ]
        for row in result["rows"]
    ]
    kinds = [[row["method"], row["type"], *said(row)] for row in result["kinds"]]
    shares = [
        [
            row["method"],
            row["type"],
            f"{row['mean']:.1%}",
            "-" if row["low"] is None else f"[{row['low']:.1%}, {row['high']:.1%}]",
        ]
        for row in result["recovered"]
    ]
    return "\n\n".join(
        [
            headline(result),
            table(
                ("method", "type", "bits a weight", "bytes", "KL, mean", "KL, 99 %", "seed"), cells
            ),
            table(("KL taken away", "type", "mean", "95 % over seeds"), shares),
            table(("only this kind", "type", "KL, mean", "KL, 99 %"), kinds),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--tier", default="device")
    parser.add_argument(
        "--at",
        default="",
        help="where the tier's checkpoint is in RUN, such as a variant's; default: its name",
    )
    parser.add_argument(
        "--words", nargs="*", default=list(WORDS), help="what is rounded to, every way"
    )
    parser.add_argument(
        "--budgets",
        nargs="*",
        default=list(BUDGETS),
        help="whose bytes are the budget of a mixture",
    )
    parser.add_argument(
        "--kinds",
        nargs="*",
        default=["q8_0", "q4_0", "q2_k"],
        help="types for one kind of matrix alone",
    )
    parser.add_argument(
        "--teach",
        type=float,
        nargs="*",
        default=list(TEACH),
        help="shares of the loss on the own distributions",
    )
    parser.add_argument("--trained", nargs="*", default=["int4"], help="words that are trained on")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--sentences", type=int, default=600)
    parser.add_argument("--calibrate", type=int, default=256)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    result = circumstances(("tumen", "torch", "gguf", "xllamacpp"))
    with torch.no_grad():
        tier = Tier(asked.run, asked.tier, asked.at, asked.sentences, asked.calibrate)
        rows = [*rounded(tier, asked.words), *mixed(tier, asked.budgets)]
        kinds = list(by_kind(tier, asked.kinds))
    rows += [
        row
        for word in asked.trained
        for row in trained(tier, word, asked.steps, asked.seeds, asked.teach)
    ]
    result |= {
        "tier": asked.tier,
        "parameters": tier.shape.parameters(),
        "sentences": asked.sentences,
        "positions": sum(len(kept) for kept in tier.reference.kept),
        "rows": rows,
        "kinds": kinds,
        "recovered": list(recovered(rows)),
    }
    print(shown(result))
    write("quantize", result, asked.out)


if __name__ == "__main__":
    main()

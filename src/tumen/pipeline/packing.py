"""The stages after training: quantization types, and the bundle, checked against torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumen.core.artifact import Manifest, add_facts, replace_folder, verify
from tumen.core.errors import ExportError
from tumen.core.extras import needs
from tumen.core.shape import EncoderShape
from tumen.data import Codec, read_corpus
from tumen.decoding.encoder import EncoderReading, read_heads
from tumen.language import Action, parse, units
from tumen.pipeline.preparation import CORPUS, DATASET, TOKENIZER
from tumen.pipeline.stage import Stage, Work
from tumen.recipe import Gate, Quantize, Serve, Tier
from tumen.serve.runners import HEADS_FILE, DeviceRunner, load_runner


def types_of(tier: str) -> str:
    """Return the name of the stage that chooses a tier's quantization types."""
    return f"{tier}-quant"


def qat_of(tier: str) -> str:
    """Return the name of the stage that trains a tier with its quantization types."""
    return f"{tier}-qat"


@dataclass(frozen=True)
class QuantizationStage(Stage):
    """The quantization type and scales of each matrix of a trained tier."""

    kind = "quant"
    maker = 1
    tier: str
    quantize: Quantize
    recipe_name: str
    seed: int

    def settings(self) -> Any:
        """Return what decides the types; how the tier is trained on them comes later."""
        chosen = self.quantize.model_dump(include={"type", "budget", "types", "calibrate"})
        return chosen | {"seed": self.seed, "name": self.recipe_name}

    def make(self, work: Work) -> Manifest:
        """Calibrate the tier on training sentences and choose the types.

        Raises:
            ExportError: no choice is within the recipe's budget.
        """
        with needs("choosing quantization types"):
            from tumen.shrink.quantize import write_types
            from tumen.train import Making

        def measured(count: int, total: int) -> None:
            work.update(count, total, "matrices measured")

        return write_types(
            work.run / self.tier,
            work.run / TOKENIZER,
            work.run / DATASET,
            self.quantize,
            f"{self.recipe_name}-{self.tier}",
            work.run / self.name,
            making=Making(seed=self.seed, inputs=work.inputs),
            report=measured,
        )


@dataclass(frozen=True)
class BundleStage(Stage):
    """A tier as a folder that a device runs: GGUF, tokenizer, ontology, values.

    Attributes:
        tier_name: of the tier's training stage.
        tier: its section of the recipe.
    """

    kind = "bundle"
    maker = 3
    tier_name: str
    tier: Tier
    serve: Serve
    gate: Gate
    recipe_name: str

    def settings(self) -> Any:
        """Return what decides the bundle besides its parents."""
        settings: dict[str, Any] = {
            "quantize": self.tier.quantize.word,
            "serve": self.serve,
            "gate": self.gate,
            "name": self.recipe_name,
        }
        if self.tier.init_from and self.tier.init_from.tune == "lora":
            settings["merge"] = self.tier.init_from.merge
        return settings

    def make(self, work: Work) -> Manifest:
        """Pack the bundle; it is kept only if llama.cpp writes the tokens that torch would.

        Raises:
            ExportError: agreement below the recipe's floor; an older bundle stays as it was.
        """
        final = work.run / self.name
        packed = final.with_name(f".packing-{final.name}")
        shutil.rmtree(packed, ignore_errors=True)
        try:
            self._pack(packed, work)
            agreement = self._compare_with_torch(packed, work)
            work.events.emit("export", tier=self.tier_name, **agreement)
            add_facts(packed, agreement)
            replace_folder(packed, final)
        finally:
            shutil.rmtree(packed, ignore_errors=True)
        return verify(final, "bundle")

    def _pack(self, out: Path, work: Work) -> None:
        with needs("packing a bundle"):
            from tumen.shrink import BundleInputs, pack, pack_encoder

        quantize = self.tier.quantize
        trained = qat_of(self.tier_name) if quantize.qat else self.tier_name
        types = None if quantize.plain else work.run / types_of(self.tier_name)
        parts = BundleInputs(
            checkpoint=work.run / trained,
            tokenizer=work.run / TOKENIZER,
            corpus=work.run / CORPUS,
            types=types,
        )
        if isinstance(self.tier.shape, EncoderShape):
            pack_encoder(parts, quantize.word, self._about(), out, work.inputs)
            return
        pack(
            parts,
            quantize.word,
            self._about(),
            out,
            work.inputs,
            merge=bool(self.tier.init_from and self.tier.init_from.merge),
        )

    def _about(self) -> dict[str, Any]:
        """Return the content of bundle.json that comes from the recipe."""
        return {
            "recipe": self.recipe_name,
            "tier": self.tier_name,
            "serve": self.serve.model_dump(),
            "gate": self.gate.model_dump(),
        }

    def _compare_with_torch(self, packed: Path, work: Work) -> dict[str, Any]:
        """Return how many tokens of the eval suite llama.cpp and torch agree on."""
        from tumen.shrink import check_export

        sentences = [row["sentence"] for row in read_corpus(work.run / CORPUS, "eval")]
        if isinstance(self.tier.shape, EncoderShape):
            return compare_encoder(
                packed,
                work.run / self.tier_name,
                work.run / TOKENIZER,
                sentences,
                self.gate.agreement,
            )
        with load_runner(packed, context=self.serve.context, store="own") as runner:
            return check_export(
                work.run / self.tier_name,
                work.run / TOKENIZER,
                sentences,
                _completion(runner),
                self.gate.agreement,
                packed / "model.gguf",
            )


def _completion(runner: DeviceRunner) -> Callable[[list[int]], list[int]]:
    """Return a function from the tokens of a prompt to those that the runner writes."""

    def complete(prompt: list[int]) -> list[int]:
        return list(runner.complete(prompt, logprobs=False).tokens)

    return complete


def compare_encoder(
    packed: Path, checkpoint: Path, tokenizer: Path, sentences: Sequence[str], floor: float
) -> dict[str, Any]:
    """Compare what a packed encoder reads with what its unquantized states say.

    Args:
        packed: the bundle.
        checkpoint: the trained encoder.
        tokenizer: its tokenizer.
        sentences: normalized.
        floor: least share of labels that must be equal: language, intent, and each slot.

    Returns:
        {positions, agreement, sentences, whole}, see `tumen.shrink.check_export`.

    Raises:
        ExportError: the agreement is below the floor.
    """
    from tumen.shrink import encoder_states

    codec = Codec.load(tokenizer)
    ontology = codec.ontology
    reading = EncoderReading(ontology.labels.tree())
    heads = read_heads(packed / HEADS_FILE)
    encoded = [codec.encoded_units(sentence) for sentence in sentences]
    states = encoder_states(checkpoint, [tokens for tokens, _ in encoded])
    equal: list[list[bool]] = []
    with load_runner(packed, store="own") as runner:
        for words, (_, firsts), found in zip(sentences, encoded, states, strict=True):
            outputs = reading.logits(found, firsts, heads)
            pieces = reading.read(*outputs, heads["by_intent.weight"], units(words))
            ours = parse("".join(piece for piece, _ in pieces), ontology)
            theirs = parse(runner.ask(words).text, ontology)
            equal.append(_equal_labels(ours, theirs))
    positions = sum(map(len, equal))
    agreement = round(sum(map(sum, equal)) / max(1, positions), 5)
    whole = sum(map(all, equal)) / max(1, len(equal))
    if agreement < floor:
        raise ExportError(
            f"the packed encoder gives torch's label at {agreement:.2%} of {positions} places, "
            f"the floor is {floor:.2%}; quantize less (int8), or train more steps"
        )
    return {
        "positions": positions,
        "agreement": agreement,
        "sentences": len(equal),
        "whole": round(whole, 5),
    }


def _equal_labels(ours: Action, theirs: Action) -> list[bool]:
    """Return for language, intent and each slot of either action whether both say the same."""
    slots = {*ours.slots, *theirs.slots}
    equal = [ours.lang == theirs.lang, ours.intent == theirs.intent]
    return equal + [ours.slots.get(slot) == theirs.slots.get(slot) for slot in sorted(slots)]

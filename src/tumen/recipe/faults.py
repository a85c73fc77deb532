"""Faults of a recipe as lines: dotted path, what is wrong, the name to write instead."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError

RENAMED: Mapping[str, Mapping[str, str]] = {
    "Shape": {
        "width": "hidden_size",
        "layers": "num_hidden_layers",
        "num_layers": "num_hidden_layers",
        "feed_forward": "intermediate_size",
        "vocab": "vocab_size",
        "tied": "tie_word_embeddings",
        "norm_eps": "rms_norm_eps",
        "positions": "n_positions",
        "mtp": "num_nextn_predict_layers",
    },
    "Mla": {
        "heads": "num_attention_heads",
        "kv_rank": "kv_lora_rank",
        "q_rank": "q_lora_rank",
        "nope_dim": "qk_nope_head_dim",
        "rope_dim": "qk_rope_head_dim",
        "v_dim": "v_head_dim",
        "yarn": "rope_scaling",
    },
    "Gqa": {"heads": "num_attention_heads", "kv_heads": "num_key_value_heads"},
    "Yarn": {"original": "original_max_position_embeddings"},
    "Experts": {
        "routed": "n_routed_experts",
        "shared": "n_shared_experts",
        "top_k": "num_experts_per_tok",
        "width": "moe_intermediate_size",
        "dense_layers": "first_k_dense_replace",
        "scale": "routed_scaling_factor",
        "groups": "n_group",
        "device_limit": "topk_group",
        "capacity": "capacity_factor",
        "gate": "scoring_func",
        "balance": "aux_loss_alpha",
        "normalise": "norm_topk_prob",
    },
    "Train": {
        "rate": "learning_rate",
        "rows": "batch_size",
        "row_tokens": "seq_len",
        "clip": "grad_clip",
        "save_later": "async_checkpoint",
    },
    "Mesh": {"micro_rows": "micro_batch_size", "chunks": "virtual_stages"},
    "Quantize": {"to": "type", "among": "types", "aware": "qat", "rate": "learning_rate"},
    "Tier": {"quantise": "quantize", "start": "init_from"},
    "InitFrom": {"matrices": "target_modules"},
    "Tokenizer": {"vocab": "vocab_size", "start": "init_from"},
    "Data": {
        "exam": "eval_sentences",
        "exams": "held_out",
        "hold_templates": "held_out_templates",
        "hold_names": "held_out_names",
    },
    "Part": {
        "shares": "class_priors",
        "passes": "epochs",
        "swap": "slot_swap",
        "without": "exclude_intents",
        "none": "relabel_none",
    },
    "Ablation": {"exam": "eval"},
    "Fleet": {"cards": "accelerators", "node_cards": "accelerators_per_node"},
    "Planning": {
        "sequence_tokens": "seq_len",
        "copy_seconds": "replica_seconds",
        "copies_lost": "replicas_lost",
    },
    "Recipe": {"arms": "ablation"},
}
"""Old field names by class, with the field that replaced each (docs/decisions/011-names.md)."""

NOT_FIELDS: Mapping[str, Mapping[str, str]] = {
    "Shape": {
        "max_position_embeddings": "leave it out: rotary positions have no end; "
        "learned positions: n_positions"
    }
}
"""Keys that a section does not have although people expect them, with what to do."""


TAGS: Mapping[Any, Sequence[str]] = {"attention": ("mla", "gqa"), "shape": ("decoder", "encoder")}
"""Tags of the unions that stand under a field."""


def faults_of(model: type[BaseModel], error: ValidationError) -> list[str]:
    """Return one line for each fault that pydantic found in a `model`."""
    details = error.errors()
    # An old name leaves its new one missing: one mistake, so one line.
    replaced = {path for detail in details for path in _replaced_paths(model, detail["loc"])}
    lines: list[str] = []
    for detail in details:
        path = ".".join(_shown(detail["loc"]))
        if detail["type"] == "missing" and path in replaced:
            continue
        lines.extend(_lines(model, detail))
    return lines


def _lines(model: type[BaseModel], detail: Any) -> list[str]:
    """Return the lines of one fault; only the recipe's own check has several."""
    path = _shown(detail["loc"])
    if not path:
        # Recipe's own check writes its lines with paths.
        return _message(detail).split("\n")
    return [f"{'.'.join(path)}: {_reason(model, detail)}"]


def _message(detail: Any) -> str:
    return str(detail["msg"]).removeprefix("Value error, ")


def _reason(model: type[BaseModel], detail: Any) -> str:
    """Return what is wrong with a field, and what to write where that is known."""
    loc = detail["loc"]
    renamed = _new_names(model, loc)
    if renamed:
        return f"renamed; write {' or '.join(renamed)}"
    if detail["type"] == "extra_forbidden":
        return _unknown(model, loc)
    if detail["type"] == "missing":
        return "missing"
    message = _message(detail)
    # A whole section is too long to repeat.
    if "input" not in detail or isinstance(detail["input"], dict | BaseModel):
        return message
    return f"{message}, not {detail['input']!r}"


def _unknown(model: type[BaseModel], loc: Sequence[Any]) -> str:
    """Return what to say about a field that does not exist: why, the nearest name, or all names."""
    # Several models where a union allows them.
    owners = _models_at(model, loc[:-1])
    name = str(loc[-1])
    for owner in owners:
        advice = NOT_FIELDS.get(owner.__name__, {}).get(name)
        if advice:
            return f"unknown field; {advice}"
    known = sorted({field for owner in owners for field in owner.model_fields})
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"unknown field; did you mean {near[0]!r}?"
    return f"unknown field; known here: {', '.join(known)}"


def _new_names(model: type[BaseModel], loc: Sequence[Any]) -> list[str]:
    """Return the fields that replaced the old name at `loc`, if it is an old name."""
    name = loc[-1]
    found: list[str] = []
    for owner in _models_at(model, loc[:-1]):
        # A name may be old in one class and a field of another.
        if name in owner.model_fields:
            continue
        new = RENAMED.get(owner.__name__, {}).get(str(name))
        if new and new not in found:
            found.append(new)
    return found


def _replaced_paths(model: type[BaseModel], loc: Sequence[Any]) -> Iterator[str]:
    """Yield the dotted paths where the fields stand that replaced the old name at `loc`."""
    if not loc:
        return
    section = _shown(loc)[:-1]
    for new in _new_names(model, loc):
        yield ".".join((*section, new))


def _shown(loc: Sequence[Any]) -> list[str]:
    """Return a path as people write it: without the tags that pydantic adds for a union."""
    return [str(part) for index, part in enumerate(loc) if not _is_tag(loc, index)]


def _is_tag(loc: Sequence[Any], index: int) -> bool:
    """Whether a part of a path is the tag of a union: of attentions, or of shapes."""
    if index == 0:
        return False
    return loc[index] in TAGS.get(loc[index - 1], ())


def _models_at(model: type[BaseModel], loc: Sequence[Any]) -> list[type[BaseModel]]:
    """Return the models that may stand at a path of the recipe."""
    # pydantic gives the path only, so the types are followed from the top.
    kinds: list[Any] = [model]
    for part in loc:
        below = [inner for kind in kinds for inner in _below(kind, part)]
        # A part that leads nowhere is the tag of a union, or a fault in the path itself.
        tagged = [kind for kind in kinds if _has_tag(kind, part)]
        kinds = below or tagged or kinds
    return [kind for kind in kinds if _is_model(kind)]


def _below(kind: Any, part: Any) -> list[Any]:
    """Return what may stand under a key of a model or a dict, or under an index of a tuple."""
    if _is_model(kind):
        if part in kind.model_fields:
            return _alternatives(kind.model_fields[part].annotation)
        if kind.model_config.get("extra") != "allow":
            return []
        # Free names, such as those of variants, all have one type.
        kind = typing.get_type_hints(kind)["__pydantic_extra__"]
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin is dict:
        return _alternatives(arguments[1])
    if origin is tuple:
        return _alternatives(arguments[0])
    return []


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _has_tag(kind: Any, tag: Any) -> bool:
    """Whether a model is the one of its union that has this tag."""
    if not _is_model(kind):
        return False
    if tag == "decoder":
        return bool(kind.__name__ == "Shape")
    field = kind.model_fields.get("kind")
    return field is not None and field.default == tag


def _alternatives(annotation: Any) -> list[Any]:
    """Return the types inside an annotation such as `Mla | Gqa | None`."""
    # `X | Y` and `Union[X, Y]` have different origins.
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        parts = typing.get_args(annotation)
        return [inner for part in parts for inner in _alternatives(part)]
    if origin is Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    return [annotation]

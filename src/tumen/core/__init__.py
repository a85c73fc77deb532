"""core: the hall, words everyone shares.

What: recipes, artifacts, whose bundles are let in and which is live, checks of foreign files, the arithmetic of shapes, units, the
    error tree, events.
In: a TOML file; folders with a manifest; a run's events.
Out: frozen objects, digests, one-line errors; TensorBoard's files, Prometheus' text.
Never: torch, printing; no other room; no network but between the processes of one run (pulse.py, heart.py, parcel.py).
Read next: recipe.py, then artifact.py.
"""

from tumen.core import (
    artifact,
    errors,
    events,
    exporters,
    foreign,
    gguf_check,
    held,
    lifetime,
    place,
    pulse,
    safetensors_check,
    tokenizer_check,
    trust,
    units,
)
from tumen.core.artifact import Manifest, hash_of, manifest_of, verify, write_text, writing
from tumen.core.errors import (
    ArtifactError,
    DiskError,
    EngineError,
    ExportError,
    GateError,
    InputError,
    LossError,
    PeerError,
    PlanError,
    RecipeError,
    RunnerBusy,
    RunnerError,
    TrainError,
    TumenError,
    disk,
)
from tumen.core.events import Events
from tumen.core.lock import alone
from tumen.core.mesh import Mesh, mesh_of_plan, read_plan, refuse_mesh
from tumen.core.public import architecture_of, config_of, shape_of
from tumen.core.recipe import Recipe, load_recipe
from tumen.core.shape import Experts, Frozen, Gqa, Mla, Shape, Yarn
from tumen.core.table import named

__all__ = [
    "ArtifactError",
    "DiskError",
    "EngineError",
    "Events",
    "Experts",
    "ExportError",
    "Frozen",
    "GateError",
    "Gqa",
    "InputError",
    "LossError",
    "Manifest",
    "Mesh",
    "Mla",
    "PeerError",
    "PlanError",
    "Recipe",
    "RecipeError",
    "RunnerBusy",
    "RunnerError",
    "Shape",
    "TrainError",
    "TumenError",
    "Yarn",
    "alone",
    "architecture_of",
    "artifact",
    "config_of",
    "disk",
    "errors",
    "events",
    "exporters",
    "foreign",
    "gguf_check",
    "hash_of",
    "held",
    "lifetime",
    "load_recipe",
    "manifest_of",
    "mesh_of_plan",
    "named",
    "place",
    "pulse",
    "read_plan",
    "refuse_mesh",
    "safetensors_check",
    "shape_of",
    "tokenizer_check",
    "trust",
    "units",
    "verify",
    "write_text",
    "writing",
]

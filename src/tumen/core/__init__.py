"""core: the hall, words everyone shares.

What: recipes, artifacts, the arithmetic of shapes, units, the error tree, events.
In: a TOML file; folders with a manifest; a run's events.
Out: frozen objects, digests, one-line errors; TensorBoard's files, Prometheus' text.
Never: torch, network, printing; no other room.
Read next: recipe.py, then artifact.py.
"""

from tumen.core import artifact, errors, events, exporters, gguf_check, lifetime, units
from tumen.core.artifact import Manifest, hash_of, manifest_of, verify, write_text, writing
from tumen.core.errors import (
    ArtifactError,
    DiskError,
    EngineError,
    ExportError,
    GateError,
    InputError,
    PlanError,
    RecipeError,
    RunnerBusy,
    RunnerError,
    TrainError,
    TumenError,
    disk,
)
from tumen.core.events import Events
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
    "Manifest",
    "Mesh",
    "Mla",
    "PlanError",
    "Recipe",
    "RecipeError",
    "RunnerBusy",
    "RunnerError",
    "Shape",
    "TrainError",
    "TumenError",
    "Yarn",
    "architecture_of",
    "artifact",
    "config_of",
    "disk",
    "errors",
    "events",
    "exporters",
    "gguf_check",
    "hash_of",
    "lifetime",
    "load_recipe",
    "manifest_of",
    "mesh_of_plan",
    "named",
    "read_plan",
    "refuse_mesh",
    "shape_of",
    "units",
    "verify",
    "write_text",
    "writing",
]

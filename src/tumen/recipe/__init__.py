"""recipe: the TOML file that drives a run.

What: its fields and their checks, the mesh of ranks that a recipe or a plan.json asks for.
In: a TOML file and `--set` changes.
Out: a frozen `Recipe`, or all of its faults at once with dotted paths.
Never: torch, making anything. Rooms get their own section, never the whole recipe.
Read next: recipe.py, then mesh.py.
"""

from tumen.recipe import recipe
from tumen.recipe.mesh import Mesh, mesh_of_plan, read_plan, refuse_mesh
from tumen.recipe.recipe import (
    VARIANT_NAME,
    Ablation,
    Data,
    Distil,
    Filter,
    Fleet,
    Gate,
    InitFrom,
    Part,
    Planning,
    Quantize,
    QuantType,
    Recipe,
    Serve,
    Share,
    Tier,
    Tokenizer,
    Train,
    changed,
    load_recipe,
    recipe_of,
)

__all__ = [
    "VARIANT_NAME",
    "Ablation",
    "Data",
    "Distil",
    "Filter",
    "Fleet",
    "Gate",
    "InitFrom",
    "Mesh",
    "Part",
    "Planning",
    "QuantType",
    "Quantize",
    "Recipe",
    "Serve",
    "Share",
    "Tier",
    "Tokenizer",
    "Train",
    "changed",
    "load_recipe",
    "mesh_of_plan",
    "read_plan",
    "recipe",
    "recipe_of",
    "refuse_mesh",
]

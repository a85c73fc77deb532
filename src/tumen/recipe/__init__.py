"""recipe: the TOML file that drives a run.

What: its fields and their checks, the mesh of ranks that a recipe or a plan.json asks for.
In: a TOML file and `--set` changes.
Out: a frozen `Recipe`, or all of its faults at once with dotted paths.
Never: torch, making anything. Rooms get their own section, never the whole recipe.
Read next: recipe.py, then loading.py and mesh.py.
"""

from tumen.recipe import field_types, fleet_section
from tumen.recipe.ablation_section import Ablation
from tumen.recipe.data_section import Data, Part, Tokenizer
from tumen.recipe.fleet_section import Fleet
from tumen.recipe.loading import load_recipe, recipe_of
from tumen.recipe.mesh import Mesh, read_plan
from tumen.recipe.plan_section import Planning
from tumen.recipe.recipe import Recipe
from tumen.recipe.serve_section import Gate, Serve
from tumen.recipe.tier_section import Distil, InitFrom, Quantize, Tier, Train

__all__ = [
    "Ablation",
    "Data",
    "Distil",
    "Fleet",
    "Gate",
    "InitFrom",
    "Mesh",
    "Part",
    "Planning",
    "Quantize",
    "Recipe",
    "Serve",
    "Tier",
    "Tokenizer",
    "Train",
    "field_types",
    "fleet_section",
    "load_recipe",
    "read_plan",
    "recipe_of",
]

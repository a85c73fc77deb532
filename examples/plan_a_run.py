"""Plan a training run before paying for it: layout, hours, money, and what a larger fleet changes.

    python examples/plan_a_run.py [RECIPE] [FLEET ...]

Needs `pip install tumen`, no torch and no GPU. The same on the command line:
`tumen plan RECIPE --fleet h800:1024`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tumen.core import units
from tumen.plan import Plan, solve, workload_of
from tumen.plan.facts import fleet_of, one_kind
from tumen.recipe import Recipe, load_recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "milm-6b.toml"
FLEETS = ("h800:256", "h800:1024", "h100:1024")


def planned(recipe: Recipe, fleet: str) -> Plan:
    """Return the plan of a recipe's tier on a fleet such as `h800:1024`.

    Raises:
        PlanError: no layout fits, or the card is unknown.
    """
    return solve(workload_of(recipe, recipe.plan.tier), one_kind(fleet_of(fleet)), recipe.plan)


def line(plan: Plan) -> str:
    """Return the best layout of a plan with its days, accelerator-hours and money."""
    best = plan.best
    degrees = " ".join(f"{name}{best.layout[name]}" for name in ("dp", "tp", "pp", "ep"))
    days, hours, money = best.days, best.card_hours, best.money
    return (
        f"{days.value:6.1f} days ({days.low:.1f} to {days.high:.1f}), "
        f"{hours.value:8,.0f} accelerator-hours, {money.value:8,.0f} {plan.currency}, {degrees}"
    )


def main() -> None:
    """Print the size of the recipe, then one line for each fleet."""
    recipe_path = Path(sys.argv[1]) if len(sys.argv) > 1 else RECIPE
    fleets = sys.argv[2:] or FLEETS
    recipe = load_recipe(recipe_path)
    plans = {fleet: planned(recipe, fleet) for fleet in fleets}
    first = plans[fleets[0]]
    print(
        f"{recipe.name}: {units.show_count(first.parameters)} parameters, "
        f"{units.show_count(first.tokens)} tokens"
    )
    for fleet, plan in plans.items():
        print(f"{fleet:12s} {line(plan)}")


if __name__ == "__main__":
    main()

"""The tiny run, for pages that speak of a run or a bundle."""

from __future__ import annotations

from tests.cli.conftest import tumen, whole

__all__ = ["tumen", "whole"]

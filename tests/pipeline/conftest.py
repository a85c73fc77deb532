"""Runs that the command line has made, for the tests of the room behind it."""

from __future__ import annotations

from tests.cli.conftest import run, tumen, whole

__all__ = ["run", "tumen", "whole"]

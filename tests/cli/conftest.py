"""Searches of commands without a copy for Optuna, where a test asks for that."""

from quick_searches import without_optuna

__all__ = ["without_optuna"]

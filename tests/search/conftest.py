"""Searches here have a fake captioner."""

from quick_searches import no_waiting_for_the_disk, optuna_in_step, quick_requests, without_optuna

__all__ = ["no_waiting_for_the_disk", "optuna_in_step", "quick_requests", "without_optuna"]

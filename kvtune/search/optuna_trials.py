"""Trials as Optuna holds them."""

from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from kvtune.search.ledger import Trial
from kvtune.search.space import SearchSpace

STATES = {"running": TrialState.RUNNING, "complete": TrialState.COMPLETE, "failed": TrialState.FAIL}
"""The state of a trial in the ledger, and Optuna's for it."""


def frozen_trial(trial: Trial, space: SearchSpace) -> FrozenTrial:
    """A trial for ``study.add_trial``: the searched parameters, both objectives, every score as a user attribute."""
    return create_trial(
        state=STATES[trial.state],
        values=None if trial.point is None else list(trial.point),
        params={name: trial.params[name] for name in space.parameters},
        distributions=space.distributions(),
        user_attrs=user_attributes(trial),
        system_attrs=trial.sampler,
    )


def user_attributes(trial: Trial) -> dict[str, Any]:
    """What dashboards show of a trial beside its parameters and objectives."""
    attributes: dict[str, Any] = dict(trial.metrics or {})
    if trial.published:
        attributes["published"] = True
    if trial.reason is not None:
        attributes["reason"] = trial.reason
    return attributes

"""A trial of the ledger as Optuna has it: for samplers, and for what reads the Optuna storage."""

from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from kvtune.spaces import SearchSpace
from kvtune.study.constraints import Constraints
from kvtune.study.trials import Trial

STATES = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "raced": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
}
"""The state of a trial in the ledger, and Optuna's for it: a pruned trial keeps no values there, so a raced one is a
complete one that does not meet a constraint."""


def frozen_trial(trial: Trial, space: SearchSpace, constraints: Constraints) -> FrozenTrial:
    """A trial for ``study.add_trial``: the searched parameters, both objectives, every score as a user attribute."""
    distributions = space.distributions(trial.params)
    return create_trial(
        state=STATES[trial.state],
        values=None if trial.point is None else list(trial.point),
        params={name: trial.params[name] for name in distributions},
        distributions=distributions,
        user_attrs=user_attributes(trial),
        system_attrs=dict(trial.sampler),
        constraints=constraints.of(trial),
    )


def user_attributes(trial: Trial) -> dict[str, Any]:
    """What dashboards show of a trial beside its parameters and objectives."""
    attributes: dict[str, Any] = dict(trial.metrics or {})
    if trial.published:
        attributes["published"] = True
    if trial.by is not None:
        attributes["raced_out_by"] = trial.by
    if trial.reason is not None:
        attributes["reason"] = trial.reason
    return attributes

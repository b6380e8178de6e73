"""How much each searched parameter matters for each objective."""

import warnings
from collections.abc import Sequence

from kvtune.spaces import SearchSpace
from kvtune.study.constraints import Constraints
from kvtune.study.optuna_copy import frozen_trial
from kvtune.study.trials import Trial

FEWEST_TRIALS = 10
"""The best tenth is compared with the rest; below this many trials it would be less than one."""


def importance(trials: Sequence[Trial], space: SearchSpace) -> dict[str, dict[str, float]] | None:
    """PED-ANOVA (Watanabe, Bansal and Hutter, 2023, IJCAI) of each objective over the complete trials.

    It measures how differently the best tenth of the trials spreads over a parameter from how all trials do, so it
    says what matters for being good. Trials that a sampler chose crowd where they are good, which lowers the figures of
    the parameters that the sampler has settled.

    Returns
    -------
    dict
        ``{"chair_s": {parameter: share}, "f1": {...}}``, shares summing to 1; None for fewer than
        :data:`FEWEST_TRIALS` complete trials.
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    complete = [trial for trial in trials if trial.state == "complete"]
    if len(complete) < FEWEST_TRIALS:
        return None
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(directions=["minimize", "maximize"])
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials([frozen_trial(trial, space, Constraints()) for trial in complete])
    # PED-ANOVA takes low targets for good ones, so F1 goes in with its sign turned.
    targets = {"chair_s": lambda trial: trial.values[0], "f1": lambda trial: -trial.values[1]}
    found = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="optuna")
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for objective, target in targets.items():
            shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), target=target)
            found[objective] = {name: float(shares.get(name, 0.0)) for name in space.parameters}
    return found

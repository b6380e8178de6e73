"""How much each searched parameter matters for each objective."""

import warnings
from collections.abc import Sequence

from kvtune.spaces import SearchSpace
from kvtune.study.constraints import Constraints
from kvtune.study.trials import Trial

FEWEST_TRIALS = 30
"""Below so many complete trials nothing is said."""

ENOUGH_TRIALS = 75
"""Below so many, the order of the shares is said to be unsure."""


def importance(trials: Sequence[Trial], space: SearchSpace) -> dict[str, dict[str, float]] | None:
    """PED-ANOVA (Watanabe, Bansal and Hutter, 2023, IJCAI) of each objective over the complete trials.

    It measures how differently the best tenth of the trials spreads over a parameter from how all trials do, so it
    says what matters for being good. Trials that a sampler chose crowd where they are good, which lowers the figures of
    the parameters that the sampler has settled.

    The best tenth of a dozen trials is one trial, so the figures are little more than chance. Of 200 simulated studies
    of random trials with five parameters, of which the first matters much (20 (x - 0.7)^2), the second some (4 x) and
    three not at all, with normal noise of standard deviation 0 to 1, ::

        complete trials                                          12       30       75
        one that matters has the largest share, %             59-60    78-89   99-100
        both that matter are above all three that do not, %   24-29    50-63    91-96
        sum of the shares of the three, %                     41-43    20-30     9-16

    Parameters
    ----------
    trials
        Of one method.

    Returns
    -------
    dict
        ``{"chair_s": {parameter: share}, "f1": {...}}``, shares summing to 1; None for fewer than
        :data:`FEWEST_TRIALS` complete trials.
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    from kvtune.study.optuna_copy import frozen_trial

    complete = [trial for trial in trials if trial.state == "complete"]
    if len(complete) < FEWEST_TRIALS:
        return None
    names = list(space.searched(complete[0].params))
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
            evaluator = PedAnovaImportanceEvaluator()
            shares = get_param_importances(study, evaluator=evaluator, params=names, target=target)
            found[objective] = {name: float(shares.get(name, 0.0)) for name in names}
    return found

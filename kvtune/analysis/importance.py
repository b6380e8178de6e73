"""How much each searched parameter matters for each objective, and whether that is more than chance."""

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from kvtune.spaces import SearchSpace
from kvtune.study.constraints import Constraints
from kvtune.study.trials import Trial

FEWEST_TRIALS = 30
"""Below so many complete trials nothing is said."""

ENOUGH_TRIALS = 75
"""Below so many, the order of the shares is said to be unsure."""


SHUFFLES = 99
"""Times that scores are dealt out anew among the trials."""

LEVEL = 0.05
"""Above it, a share may be chance."""


@dataclass(frozen=True)
class Importance:
    """What matters, by objective and parameter.

    Attributes
    ----------
    shares
        Shares of the importance, summing to 1 for each objective.
    p_values
        How often a parameter is found as important as this one, or more, when the scores are dealt out among the
        trials at random: the share of :data:`SHUFFLES` deals in which any parameter is, the real one counted as one
        more (a permutation test of the largest; Westfall and Young, 1993). So the chance that any parameter of a study
        in which none matters is at most 0.05 is 5 %.
    """

    shares: dict[str, dict[str, float]]
    p_values: dict[str, dict[str, float]]


def importance(trials: Sequence[Trial], space: SearchSpace) -> Importance | None:
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

    Shares sum to 1 also where nothing matters: of five parameters, none of which did, the largest share was 54 % on
    average at 30 trials, 50 % at 75 and 42 % at 300, 150 studies each. So what chance does is measured too: the
    p-values call something important in 0 to 5 % of such studies, and each of the two that matter above, with noise of
    0.5 or 1, in 5 to 15 % at 30 trials, 55 to 100 % at 75 and all at 150.

    Parameters
    ----------
    trials
        Of one method.

    Returns
    -------
    Importance or None
        None for fewer than :data:`FEWEST_TRIALS` complete trials.
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator

    from kvtune.study.optuna_trials import frozen_trial

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
    scores = {
        "chair_s": [trial.metrics["chair_s"] for trial in complete if trial.metrics],
        "f1": [-trial.metrics["f1"] for trial in complete if trial.metrics],
    }
    evaluator, deal = PedAnovaImportanceEvaluator(), random.Random(0)

    def measured(values: Sequence[float]) -> dict[str, float]:
        shares = evaluator.evaluate(study, params=names, target=lambda trial: values[trial.number])
        return {name: float(shares.get(name, 0.0)) for name in names}

    shares, p_values = {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that low targets are taken for good ones, each time
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for objective, values in scores.items():
            found = measured(values)
            total = sum(found.values())
            shares[objective] = {name: found[name] / total if total else 1 / len(names) for name in names}
            largest = [max(measured(deal.sample(values, len(values))).values()) for _ in range(SHUFFLES)]
            p_values[objective] = {
                name: (1 + sum(each >= found[name] for each in largest)) / (1 + SHUFFLES) for name in names
            }
    return Importance(shares, p_values)

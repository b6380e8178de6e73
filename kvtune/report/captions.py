"""The captions of a study, as the page and the outcome tables want them."""

from collections.abc import Iterator

from kvtune.search.captions import read_captions
from kvtune.search.layout import StudyFolder
from kvtune.search.summary import StudySummary, TrialSummary


def caption_sets(
    folder: StudyFolder, summary: StudySummary, chosen: int | None
) -> Iterator[tuple[int | None, dict[int, str]]]:
    """Yield (trial number, or None for the baseline; image id -> caption), the most wanted first.

    That is the baseline, the chosen trial, the published preset, the front, then all others that have captions.
    """

    def rank(trial: TrialSummary) -> tuple[int, int]:
        number = -1 if trial.number is None else trial.number
        wanted = (trial.number is None, number == chosen, trial.published, number in summary.front, True)
        return wanted.index(True), number

    everything = [*([summary.baseline] if summary.baseline else []), *summary.trials]
    for trial in sorted(everything, key=rank):
        lines = read_captions(folder.trial_captions(trial.number))
        if lines:
            yield trial.number, {image: line["caption"] for image, line in lines.items()}

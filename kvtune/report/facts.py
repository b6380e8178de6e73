"""A study in a few sentences, the same in the terminal and on the page."""

from collections import Counter

from kvtune.analysis.claims import claim, claims
from kvtune.analysis.summary import StudySummary
from kvtune.chair import METRICS, OBJECTIVES, Scores
from kvtune.chair.notes import Note
from kvtune.report.cells import interval
from kvtune.study.trials import State, called
from kvtune.text import number_of

STATE_WORDS: dict[State, str] = {
    "complete": "complete",
    "raced": "raced out",
    "failed": "failed",
    "running": "in work",
}


def subject(summary: StudySummary) -> str:
    """What was tuned on what."""
    subset = summary.subset
    return f"{summary.method} on {summary.model}, {number_of(subset.images, 'tune image')} ({subset.name})"


def progress(summary: StudySummary) -> str:
    """How many trials there are in which state, and how many form the front."""
    if not summary.trials:
        return "no trial yet"
    counts = Counter(trial.state for trial in summary.trials)
    states = ", ".join(f"{counts[state]} {words}" for state, words in STATE_WORDS.items() if counts[state])
    stopped = "stopped, with " if counts["running"] and not summary.in_use else ""
    return f"{stopped}{number_of(len(summary.trials), 'trial')} ({states}); {len(summary.front)} on the front"


def volume(summary: StudySummary) -> str:
    """The hypervolume with its reference point."""
    if summary.baseline is None or summary.reference_point is None or summary.hypervolume is None:
        return "no hypervolume before the baseline is judged"
    if not summary.front:
        return "no hypervolume without a front"
    reference, estimate = summary.reference_point, summary.hypervolume_estimate
    text = (
        f"hypervolume {summary.hypervolume:.1f} % of the box between (CHAIR_S {reference['chair_s']:.1f}, "
        f"F1 {reference['f1']:.1f}) and (0, 100)"
    )
    if estimate is None:
        return text
    return f"{text}; {estimate.corrected:.1f} less the luck of its front (95 % interval {interval(estimate.interval)})"


def luck(summary: StudySummary) -> str | None:
    """What "less the luck of its front" means; None where nothing is said of it."""
    if summary.hypervolume_estimate is None or not summary.front:
        return None
    return (
        "Less the luck of its front: a front takes the trials that its images happen to favour, so its hypervolume is "
        "too high on average. Samples drawn from the images show by how much, and that is taken off"
    )


def racing(summary: StudySummary) -> str | None:
    """How early trials were stopped; None where none was."""
    images = sorted(trial.images for trial in summary.trials if trial.state == "raced")
    if not images:
        return None
    span = str(images[0]) if images[0] == images[-1] else f"{images[0]} to {images[-1]}"
    sure = "" if summary.race_confidence is None else f", {100 * summary.race_confidence:g} % sure"
    return (
        f"Raced out{sure}: {number_of(len(images), 'trial')}, after {span} of {summary.subset.images} images; "
        "their rates are over those alone"
    )


def floors(summary: StudySummary) -> str | None:
    """What a trial must reach to be on the front, and how many do not; None where nothing is asked of it."""
    if not summary.floors:
        return None
    asked = " and ".join(f"{METRICS[name].label} of at least {least:g}" for name, least in summary.floors.items())
    below = sum(bool(trial.below_floor) for trial in summary.trials)
    return f"On the front only with {asked}; {number_of(below, 'trial')} below"


def ties(summary: StudySummary, chosen: int | None) -> str | None:
    """Which points of the front cannot be told apart on these images: from the chosen one where it is on the front,
    else from each other. None where all can or nobody looked."""
    pairs = []
    for trial in summary.trials:
        others = [other for other in trial.ties if trial.number is not None and other > trial.number]
        if chosen in summary.front:
            others = list(trial.ties) if trial.number == chosen else []
        if others:
            pairs.append(f"{trial.number} with {', '.join(map(str, others))}")
    return f"Tied on the front (paired 95 % intervals contain 0): {'; '.join(pairs)}" if pairs else None


def against_baseline(summary: StudySummary, number: int) -> list[str]:
    """The trial against the baseline, on the images that it was searched on and on held-out ones, if they were asked;
    nothing where nobody looked."""
    on_tune = claims(summary.by_number[number])
    if not on_tune:
        return []
    said = f"Trial {number} against the baseline: {'; '.join(on_tune)}"
    validated = summary.validation.of(number) if summary.validation else None
    if validated is None or summary.validation is None:
        return [f"{said}. It was chosen on these images: kvtune validate measures it on others"]
    differences = validated.holdout.differences
    held_out = "; ".join(claim(metric, differences[metric]) for metric in OBJECTIVES if metric in differences)
    return [said, f"The same on {number_of(summary.validation.subset.images, 'held-out image')}: {held_out}"]


def stand_ins(summary: StudySummary, chosen: int | None) -> dict[int, list[int]]:
    """Trials of the front that have the very scores of another of it, by that one, which stands for them in a table.

    It is the chosen or published one where there is one, else the first; those two stand for themselves.
    """
    by_number = summary.by_number
    named = [number for number in summary.front if number == chosen or by_number[number].published]
    first: dict[Scores | None, int] = {}
    found: dict[int, list[int]] = {}
    for number in sorted(summary.front, key=lambda each: (each != chosen, each not in named, each)):
        stands = first.setdefault(by_number[number].scores, number)
        if stands != number and number not in named:
            found.setdefault(stands, []).append(number)
    return found


def same_rates(summary: StudySummary, chosen: int | None) -> list[str]:
    """Which trials of the front have no row of their own, and which rows are the baseline's again."""
    found = stand_ins(summary, chosen)
    said = [
        f"Trial {number} stands for {', '.join(map(str, others))} too, with the same rates; kvtune pareto --all "
        "lists them"
        for number, others in found.items()
    ]
    hidden = {other for others in found.values() for other in others}
    shown = [trial for trial in summary.trials if trial.number in summary.front and trial.number not in hidden]
    said += [
        f"The rates of trial {trial.number} are the baseline's: perhaps it changed no caption"
        for trial in shown
        if summary.baseline is not None and trial.scores == summary.baseline.scores
    ]
    return said


def length_flags(summary: StudySummary, chosen: int | None = None) -> str | None:
    """Which of front, published preset and chosen trial do not beat the baseline cut short; None for none."""
    flagged = [
        str(trial.number)
        for trial in summary.trials
        if (trial.number in summary.front or trial.published or trial.number == chosen)
        and trial.length is not None
        and trial.length.flag is not None
    ]
    if not flagged:
        return None
    return (
        f"Not better than the baseline's captions cut short: {'trial' if len(flagged) == 1 else 'trials'} "
        f"{', '.join(flagged)}. --json and --html say how for each"
    )


def at_limit(summary: StudySummary, chosen: int | None = None) -> str | None:
    """How many captions hit the token limit: of the baseline, the chosen trial and the trial with most; None where
    nobody looked."""
    shares = {trial.number: trial.length.at_limit for trial in summary.settings if trial.length is not None}
    if not shares:
        return None
    most = max(shares, key=lambda number: shares[number])
    if not shares[most]:
        return "No caption hit the token limit"
    named = [number for number in dict.fromkeys((None, chosen, most)) if number in shares]
    return "Captions that hit the token limit: " + ", ".join(f"{called(n)} {shares[n]:.1f} %" for n in named)


def caption_notes(summary: StudySummary) -> list[str]:
    """What makes captions implausible, kind by kind, for the setting with most of them and the names of the others."""
    kinds: dict[str, list[tuple[int | None, Note]]] = {}
    for number, note in summary.notes:
        kinds.setdefault(note.kind, []).append((number, note))
    lines = []
    for found in kinds.values():
        worst, note = max(found, key=lambda each: each[1].share)
        others = [called(number) for number, _ in found if number != worst]
        shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        lines.append(f"{called(worst).capitalize()}: {note.text}" + (f" (also {shown})" if others else ""))
    return lines

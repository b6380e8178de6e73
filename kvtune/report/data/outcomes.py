"""Every caption of a study as a row of pandas data."""

from typing import TYPE_CHECKING, Any

from kvtune.analysis.summary import StudySummary
from kvtune.report.data.caption_sets import caption_sets
from kvtune.study.study_folder import StudyFolder

if TYPE_CHECKING:
    import pandas as pd

OUTCOME_COLUMNS = [
    "study",
    "number",
    "image_id",
    "tokens",
    "finish_reason",
    "words",
    "hallucinated_caption",
    "mentions",
    "hallucinated_mentions",
    "mentioned",
    "correct",
    "present",
    "mentioned_objects",
    "hallucinated_objects",
    "missed_objects",
]


def outcomes_frame(folder: StudyFolder, summary: StudySummary) -> "pd.DataFrame":
    """Return one row for each caption of each trial and the baseline, scored now.

    Columns
    -------
    study, number, image_id
        ``number`` is missing for the baseline.
    tokens, finish_reason, words
        Generated tokens, why generation ended (``eos``, ``length``, ``stop``), and words as CHAIR counts them.
    hallucinated_caption
        Whether at least one mention is hallucinated: CHAIR_S is the share of these.
    mentions, hallucinated_mentions
        Numbers of mentions: CHAIR_I is the ratio of their sums.
    mentioned, correct, present
        Numbers of distinct categories that the caption mentions, that are among them and in the image, and that are
        in the image: precision and recall are ratios of their sums.
    mentioned_objects, hallucinated_objects, missed_objects
        The categories by name, each once, joined by ``;``.
    """
    import pandas as pd

    from kvtune.chair import ChairScorer
    from kvtune.study.scoring import truth_of

    scorer = ChairScorer(truth_of(folder))
    rows: list[dict[str, Any]] = []
    for number, lines in caption_sets(folder, summary):
        for line, detail in zip(lines.values(), scorer.details(lines.values()), strict=True):
            mentioned = sorted(set(detail["mentioned"]))
            rows.append(
                {
                    "study": summary.study,
                    "number": number,
                    "image_id": detail["image_id"],
                    "tokens": line["tokens"],
                    "finish_reason": line["finish_reason"],
                    "words": detail["words"],
                    "hallucinated_caption": bool(detail["hallucinated"]),
                    "mentions": len(detail["mentioned"]),
                    "hallucinated_mentions": len(detail["hallucinated"]),
                    "mentioned": len(mentioned),
                    "correct": len(detail["correct"]),
                    "present": len(detail["correct"]) + len(detail["missed"]),
                    "mentioned_objects": ";".join(mentioned),
                    "hallucinated_objects": ";".join(sorted(set(detail["hallucinated"]))),
                    "missed_objects": ";".join(detail["missed"]),
                }
            )
    frame = pd.DataFrame(rows, columns=OUTCOME_COLUMNS).astype({"number": "Int64"})
    return frame.sort_values("number", kind="stable", na_position="first", ignore_index=True)

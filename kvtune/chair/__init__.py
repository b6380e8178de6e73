"""CHAIR, the hallucination metric: vocabulary, caption -> objects, ground truth, scores. Imports no torch."""

from kvtune.chair.captions import parse_image_id
from kvtune.chair.captions_file import CaptionsFile, read_captions, read_captions_file, save_details
from kvtune.chair.counts import COLUMNS, CaptionCounts
from kvtune.chair.ground_truth import build_ground_truth, load_ground_truth, save_ground_truth
from kvtune.chair.metrics import METRICS, OBJECTIVES, Metric, Rates, Scores, rates
from kvtune.chair.reader import CaptionReader, Reading
from kvtune.chair.scorer import SCORER, ChairScore, ChairScorer

__all__ = [
    "COLUMNS",
    "METRICS",
    "OBJECTIVES",
    "SCORER",
    "CaptionCounts",
    "CaptionReader",
    "CaptionsFile",
    "ChairScore",
    "ChairScorer",
    "Metric",
    "Rates",
    "Reading",
    "Scores",
    "build_ground_truth",
    "load_ground_truth",
    "parse_image_id",
    "rates",
    "read_captions",
    "read_captions_file",
    "save_details",
    "save_ground_truth",
]

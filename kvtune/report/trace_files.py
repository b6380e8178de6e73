"""Traced captions as tables: which objects to look at, and what each token did."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvtune.chair.spans import MentionFinder
from kvtune.files import write_bytes
from kvtune.report.data.mentions import TracedObject, mentions, objects_to_show
from kvtune.report.figures.drawing import save_pictures
from kvtune.report.study_files import check_parquet

if TYPE_CHECKING:
    import pandas as pd

    from kvtune.captioning.side_by_side import TracedPair
    from kvtune.captioning.trace import Trace

_WHERE = ("image", "caption", "position")
_LAYERS = (*_WHERE, "token_id", "token", "mention", "in_picture", "layer", "entropy", "smoothing")
_OBJECTS = (*_WHERE, "word", "object", "in_picture", "first_token", "is_whole", "logit", "rank")


def layers_frame(
    pairs: Sequence[TracedPair], truths: Sequence[Collection[str] | None], finder: MentionFinder
) -> pd.DataFrame:
    """A row for every token and layer of every caption.

    Columns: ``image``; ``caption`` ("baseline" or "preset"); ``position`` of the token, from 0; ``token_id``;
    ``token``, as the vocabulary has it; ``mention``, the category whose word begins here, and ``in_picture``, whether
    it is there; ``layer``, from 0; ``entropy``, of the token's attention row (natural log, mean over heads) when it is
    read, null for the last token, which is not; ``smoothing``, λ̃, null where the layer or caption is not smoothed.
    """
    rows: list[tuple[Any, ...]] = []
    for image, name, trace, truth in _traces(pairs, truths):
        named = {mention.position: mention for mention in mentions(trace, truth, finder)}
        for position, (token_id, token) in enumerate(zip(trace.token_ids, trace.tokens, strict=True)):
            mention = named.get(position)
            said = (mention.category, mention.in_picture) if mention else (None, None)
            values = zip(trace.entropy[position].tolist(), trace.smoothing[position].tolist(), strict=True)
            rows += [
                (image, name, position, token_id, token, *said, layer, *entropy_and_smoothing)
                for layer, entropy_and_smoothing in enumerate(values)
            ]
    return _frame(rows, _LAYERS)


def objects_frame(
    pairs: Sequence[TracedPair],
    truths: Sequence[Collection[str] | None],
    objects: Sequence[Sequence[TracedObject]],
) -> pd.DataFrame:
    """A row for every token of every caption and every object looked at there.

    Columns: ``image``, ``caption``, ``position`` as in :func:`layers_frame`; ``word``; ``object``, its category, and
    ``in_picture``, whether that is there; ``first_token``, the first token of the word in the middle of a sentence,
    which stands for the word, and ``is_whole``, whether it is all of it; ``logit`` and ``rank`` of that token in the
    distribution from which the token at ``position`` was chosen, rank 1 being the highest logit.
    """
    rows: list[tuple[Any, ...]] = []
    chosen = dict(zip((str(pair.image) for pair in pairs), objects, strict=True))
    for image, name, trace, _ in _traces(pairs, truths):
        for position in range(len(trace.token_ids)):
            for each in chosen[image]:
                word = trace.words[each.column]
                logit, rank = float(trace.logits[position, each.column]), int(trace.ranks[position, each.column])
                said = (each.word, each.category, each.in_picture)
                rows.append((image, name, position, *said, word.token, word.is_whole, logit, rank))
    return _frame(rows, _OBJECTS)


def write_trace(
    out: Path,
    pairs: Sequence[TracedPair],
    truths: Sequence[Collection[str] | None],
    named: Sequence[str],
    finder: MentionFinder,
) -> list[Path]:
    """Write ``layers.parquet``, ``objects.parquet`` and a picture of each image, PNG and SVG; return the paths.

    Parameters
    ----------
    truths
        For each image the categories in it, None where they are unknown.
    named
        See :func:`objects_to_show`.
    """
    from kvtune.report.figures.trace import trace_figure

    check_parquet()
    objects = [objects_to_show(pair, named, truth, finder) for pair, truth in zip(pairs, truths, strict=True)]
    frames = {"layers": layers_frame(pairs, truths, finder), "objects": objects_frame(pairs, truths, objects)}
    paths = []
    for stem, frame in frames.items():
        paths.append(out / f"{stem}.parquet")
        write_bytes(paths[-1], frame.to_parquet(index=False))
    for name, pair, truth, shown in zip(_names(pairs), pairs, truths, objects, strict=True):
        figure = trace_figure(pair, truth, shown, finder)
        paths += save_pictures(figure, out / name, f"{name}: row entropy, smoothing and ranks")
    return paths


def _traces(
    pairs: Sequence[TracedPair], truths: Sequence[Collection[str] | None]
) -> Iterator[tuple[str, str, Trace, Collection[str] | None]]:
    for pair, truth in zip(pairs, truths, strict=True):
        yield str(pair.image), "baseline", pair.baseline, truth
        if pair.treated is not None:
            yield str(pair.image), "preset", pair.treated, truth


def _names(pairs: Sequence[TracedPair]) -> list[str]:
    """Names of the pictures: the images' own, numbered where two images have the same."""
    stems = [pair.image.stem for pair in pairs]
    return [
        stem if stems.count(stem) == 1 else f"{stem}-{stems[: number + 1].count(stem)}"
        for number, stem in enumerate(stems)
    ]


def _frame(rows: list[tuple[Any, ...]], columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(columns))
    return frame.astype({"in_picture": "boolean"})

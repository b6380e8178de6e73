"""What makes captions implausible, so that no score stands alone that says nothing.

Each kind of note has its own evidence and its own threshold:

``empty``, ``refusals``, ``reasoning``, ``question``
    Any caption that is empty, that refuses, or that holds a reasoning block or the question: none of them is a
    description, and the evidence is exact enough that 500 captions of LLaVA-1.5 show none. An empty caption
    hallucinates nothing, so each lowers CHAIR_S by up to its share; a question's objects are scored as the caption's.
``no-objects``
    At least half of the captions name no COCO object and are none of these. Of real captions of COCO images it is under
    one in a hundred, so something else was scored: a wrong field, for one.
``script``, ``language``
    At least 1 % of the captions have mostly letters of another script, or are of 15 words or more of which under 15 %
    are English function words; or all words of all captions together are such. English captions have 35 % and more
    (LLaVA-1.5's 500; COCO's own, which are short, 42 % together), German, French, Spanish and Italian ones about 10 %.
    The scorer reads English words alone.
``repetition``
    Captions that hold at least 20 mentions (the most that any of the 500 has), 8 or more of each category on average,
    or one caption of three or more that holds most mentions; and CHAIR_I differs by a point or more without them. At
    500 captions its 95 % interval is 1.5 points to either side.
``token-limit``
    At least 10 % of the captions hit the token limit, by their ``finish_reason`` or, where they have none, by ending
    within a sentence. Half sentences are then scored, and objects late in a caption are never reached; of the 500 none
    does, at 64 tokens nearly all do.
``no-truth``
    The ground truth has no object in any of the images.
``same-image``
    Several captions of one image: each counts.
``end-marks``, ``line-breaks``, ``sentences``
    What :class:`~kvtune.chair.cleaning.Cleaning` cut, and, ``end-marks-left`` and ``line-breaks-left``, what it was
    told to leave. Any.
``answer-after``
    No caption holds the text after which the answer was to be read, so that all are scored whole.
``skipped``, ``instances-only``
    What ``kvtune score`` was asked for and scores depend on.
``lost-captions``
    A study's: captions of a judged trial are missing or were changed (:mod:`kvtune.study.judged`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvtune.chair.captions import listed, printable
from kvtune.chair.cleaning import Cleaning, complete_sentences, cut_end_marks, is_cut_off, read_line_breaks
from kvtune.chair.counts import COLUMNS
from kvtune.chair.degenerate import has_reasoning_tag, kinds_of_texts
from kvtune.chair.metrics import rates
from kvtune.text import ENDS_OF_REASONING, number_of, quoted

FACTS = ("end-marks", "line-breaks", "sentences", "skipped", "instances-only")
"""Kinds that say what was done with the captions; all others say that a score may mislead."""

SOME = 1.0
"""Percent of captions from which on another language is said."""

MANY = 10.0
"""Percent of captions from which on the token limit is said."""

_LANGUAGE = "Hardly any English function word (another language, or a list of words)"
_MENTIONS, _EACH = 20, 8
_POINT = 1.0

_ANSWERS = ("Final answer:", "Final Answer:", "Answer:", "Caption:", "Description:", "Response:")
_ENDS_OF_QUESTION = ("ASSISTANT:", "Assistant:", "assistant:", "[/INST]", "<image>", *_ANSWERS)


@dataclass(frozen=True)
class Note:
    """One thing that is implausible about captions, or was done with them.

    Attributes
    ----------
    kind
        Its name; see :mod:`kvtune.chair.notes`.
    count
        Captions that it is about.
    share
        Percent of all captions, 0 to 100.
    text
        What it is and what to do about it, for a person.
    """

    kind: str
    count: int
    share: float
    text: str

    @property
    def is_warning(self) -> bool:
        """Whether a score may mislead because of it."""
        return self.kind not in FACTS

    def to_dict(self) -> dict[str, Any]:
        """The note as JSON has it."""
        return asdict(self)


def look_at(
    captions: Sequence[Mapping[str, Any]],
    table: NDArray[np.int64],
    *,
    fields: Sequence[str] = (),
    options: bool = False,
    ending: bool = True,
) -> list[Note]:
    """Look at captions as they are scored.

    Parameters
    ----------
    captions
        ``image_id`` and ``caption``; ``finish_reason`` (``length`` at the token limit) where it is known.
    table
        Their counts, :attr:`~kvtune.chair.counts.CaptionCounts.table`, shape ``[captions, len(COLUMNS)]``.
    fields
        Fields of the file that they are from, to be named where a wrong one was scored.
    options
        Name the options of ``kvtune score`` that cure what they can.
    ending
        Look at how captions end.
    """
    if not captions:
        return []
    return _Look(captions, table, fields, options).notes(ending)


def look_at_request(written: int, scored: int, instances_only: bool) -> list[Note]:
    """What was asked for that scores depend on.

    Parameters
    ----------
    written, scored
        Captions of the file, and of those that have ground truth.
    instances_only
        The ground truth has no objects of reference captions.
    """
    notes = []
    if scored < written:
        notes.append(_note("skipped", "Images without ground truth, left out", written - scored, written))
    if instances_only:
        text = ", so that an object of the reference captions alone counts as hallucinated"
        notes.append(_note("instances-only", "Ground truth of instances alone", scored, scored, text))
    return notes


def look_at_cleaning(written: Sequence[str], cleaning: Cleaning, options: bool = False) -> list[Note]:
    """What a cleaning cut from captions, or what was left in by request.

    Parameters
    ----------
    written
        The captions as they are in the file.
    cleaning
        How they are read.
    options
        Name the options of ``kvtune score``.
    """
    texts = [cleaning.answer(text) for text in written]
    marks = sum(cut_end_marks(text) != text for text in texts)
    breaks = sum(read_line_breaks(text) != text for text in texts)
    total = len(texts)
    notes = []
    if (mark := cleaning.answer_after) and not any(mark in text for text in written):
        notes.append(_note("answer-after", f"No {quoted(mark)} to read after", total, total, ", whole"))
    if marks and cleaning.as_written:
        lost = ", before which the scorer loses a word; leave --as-written out to cut them"
        notes.append(_note("end-marks-left", "Special tokens such as </s>", marks, total, lost))
    elif marks:
        cut = " with what followed" + ("; --as-written leaves them in" if options else "")
        notes.append(_note("end-marks", "Special tokens such as </s> cut", marks, total, cut))
    if breaks and cleaning.as_written:
        lost = ", which joins words; leave --as-written out to read a line break"
        notes.append(_note("line-breaks-left", "\\n as two characters", breaks, total, lost))
    elif breaks:
        cut = "; --as-written leaves it" if options else ""
        notes.append(_note("line-breaks", "\\n as two characters read as a line break", breaks, total, cut))
    if cleaning.complete_sentences:
        whole = replace(cleaning, complete_sentences=False)
        dropped = sum(complete_sentences(text) != text for text in (whole(each).rstrip() for each in written))
        if dropped:
            notes.append(_note("sentences", "Unfinished last sentence dropped", dropped, len(texts)))
    return notes


class _Look:
    def __init__(
        self,
        captions: Sequence[Mapping[str, Any]],
        table: NDArray[np.int64],
        fields: Sequence[str],
        options: bool,
    ) -> None:
        self.captions = captions
        self.texts = [caption["caption"] for caption in captions]
        self.table = table
        self.fields = fields
        self.options = options
        self.kinds: dict[str, list[str]] = {}
        kinds = kinds_of_texts(self.texts)
        for text, kind in zip(self.texts, kinds, strict=True):
            if kind is not None:
                self.kinds.setdefault(kind, []).append(text)
        self.plain = np.array([kind is None for kind in kinds])

    def notes(self, ending: bool) -> list[Note]:
        of = {
            "empty": self._empty,
            "refusals": self._refusals,
            "reasoning": self._reasoning,
            "question": self._question,
        }
        found = [self._no_objects(), self._no_truth()]
        found += [of[kind](self.kinds[kind]) for kind in of if kind in self.kinds]
        found += [self._foreign("script", "In another script"), self._foreign("language", _LANGUAGE)]
        found += [self._repetition(), self._token_limit() if ending else None, self._same_image()]
        return [note for note in found if note is not None]

    def _note(self, kind: str, label: str, count: int, why: str, cure: str, option: str = "") -> Note:
        return _note(kind, label, count, len(self.texts), f", {why}; {option if option and self.options else cure}")

    def _column(self, name: str) -> NDArray[np.int64]:
        return self.table[:, COLUMNS.index(name)]

    def _no_objects(self) -> Note | None:
        count = int(np.sum((self._column("mentions") == 0) & self.plain))
        if not count or 2 * count < len(self.texts):
            return None
        why = "whose CHAIR is 0 whatever they say"
        cure = "look whether these are captions, in English"
        option = f"is --caption-key right? The file's fields: {listed(self.fields)}" if self.fields else ""
        return self._note("no-objects", "No COCO object named", count, why, cure, option)

    def _no_truth(self) -> Note | None:
        if self._column("present").any():
            return None
        why = "so that every mention counts as hallucinated"
        return self._note("no-truth", "No object in the ground truth", len(self.texts), why, "is it of these images?")

    def _empty(self, found: Sequence[str]) -> Note:
        why, cure = "which hallucinate nothing and so lower CHAIR_S", "caption these images again, or leave them out"
        return self._note("empty", "Empty", len(found), why, cure)

    def _refusals(self, found: Sequence[str]) -> Note:
        why = f"such as {_begin(found[0])}, which hallucinate nothing and so lower CHAIR_S"
        return self._note("refusals", "Refusals", len(found), why, "ask in other words, or leave them out")

    def _reasoning(self, found: Sequence[str]) -> Note:
        why = f"such as {_begin(found[0])}, whose objects are scored too"
        end = _most(found, (*ENDS_OF_REASONING, *_ANSWERS))
        if end is None and any(map(has_reasoning_tag, found)):
            return self._note("reasoning", "Reasoning without an end", len(found), why, "allow more new tokens")
        option = f"--answer-after '{end or 'TEXT'}' scores what follows it"
        return self._note("reasoning", "Reasoning inside", len(found), why, "cut it off", option)

    def _question(self, found: Sequence[str]) -> Note:
        why = f"such as {_begin(found[0])}, whose objects are scored too"
        option = f"--answer-after '{_most(found, _ENDS_OF_QUESTION) or 'TEXT'}' scores what follows it"
        return self._note("question", "The question inside", len(found), why, "cut it off", option)

    def _foreign(self, kind: str, label: str) -> Note | None:
        count = len(self.kinds.get(kind, ()))
        if not count or 100 * count < SOME * len(self.texts):
            return None
        why = "of which the scorer reads nothing or little"
        return self._note(kind, label, count, why, "it reads English sentences: ask for them, or translate")

    def _repetition(self) -> Note | None:
        mentions, mentioned = self._column("mentions"), self._column("mentioned")
        many = mentions >= _MENTIONS
        chosen = many & (mentions >= _EACH * mentioned)
        if len(mentions) > 2:
            chosen |= many & (2 * mentions > mentions.sum())
        if not chosen.any():
            return None
        whole, rest = (float(rates(part.sum(axis=0))["chair_i"]) for part in (self.table, self.table[~chosen]))
        if abs(whole - rest) < _POINT:
            return None
        why = (
            f"the first of image {self.captions[int(np.argmax(chosen))]['image_id']}, with {mentions[chosen].sum()} of "
            f"all {mentions.sum()} mentions: CHAIR_I is {whole:.1f} with and {rest:.1f} without"
        )
        cure = "a repetition penalty or fewer new tokens end that"
        return self._note("repetition", "Repetition decides CHAIR_I", int(chosen.sum()), why, cure)

    def _token_limit(self) -> Note | None:
        reasons = [caption.get("finish_reason") for caption in self.captions]
        known = all(reasons)
        count = sum(reason == "length" for reason in reasons) if known else sum(map(is_cut_off, self.texts))
        if not count or 100 * count < MANY * len(self.texts):
            return None
        label = "At the token limit" if known else "Ended within a sentence, as at a token limit"
        option = "--complete-sentences drops that, as evaluations at 64 tokens do"
        return self._note(
            "token-limit", label, count, "of which half a sentence is scored", "allow more new tokens", option
        )

    def _same_image(self) -> Note | None:
        images = len({caption["image_id"] for caption in self.captions})
        further = len(self.captions) - images
        if not further:
            return None
        text = f"{len(self.captions)} captions of {number_of(images, 'image')}; each caption counts"
        return Note("same-image", further, 100 * further / len(self.captions), text)


def _note(kind: str, label: str, count: int, total: int, text: str = "") -> Note:
    share = 100 * count / total
    captions = f"{count} of {number_of(total, 'caption')} ({share:.{int(share < 10)}f} %)"
    return Note(kind, count, share, f"{label}: {captions}{text}")


def _begin(text: str) -> str:
    """How a text begins, quoted."""
    line = printable(" ".join(text.split()))
    return f'"{line[:40].rstrip()}..."' if len(line) > 43 else f'"{line}"'


def _most(texts: Sequence[str], ends: Sequence[str]) -> str | None:
    """The end that most of the texts hold, the first of several; None if none holds any."""
    counts = [sum(end in text for text in texts) for end in ends]
    most = max(counts)
    return ends[counts.index(most)] if most else None

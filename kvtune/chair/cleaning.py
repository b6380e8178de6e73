r"""What is cut from a caption before it is scored, because the model did not say it or did not finish it.

The classic reading takes text as it is: ``a cat.</s>`` then names no cat, because the last word of a sentence stays
joined to what follows its period, and ``A dog\n- A cat`` with a backslash and an n as text loses words in the same way.
"""

import re
from dataclasses import dataclass

# Special tokens of tokenizers and chat templates, as decoding without skip_special_tokens leaves them.
_SPECIAL = (
    r"</(?:s|answer|caption|response|output|description)>|<｜[\w▁]{1,40}｜>"
    r"|<\|(?!(?:begin|end)_of_thought)[^\W\d][\w-]{0,40}\|>"
    r"|<(?:bos|eos|pad|start_of_turn|end_of_turn|end_of_utterance)>|\[(?:BOS|EOS|PAD)\]"
)
# Those that stand for an unknown character, or around a part of a caption, which goes on after them.
_WITHIN = re.compile(
    r"<unk>|\[UNK\]|<\|(?:(?:object_ref|box|quad)_(?:start|end)|/?(?:ref|det|box|quad|grounding)|(?:begin|end)_of_box"
    r"|begin_of_solution)\|>",
    re.IGNORECASE,
)
_OPENING = r"<(?:s|answer|caption|response|output|description)>"
# Vicuna's first template ends a turn with ###; a heading of Markdown has words after it.
_MARK = re.compile(rf"{_SPECIAL}|###(?=\s*(?:\Z|(?:human|user|assistant):))", re.IGNORECASE)
_LEADING = re.compile(rf"\s*(?:(?:{_SPECIAL}|{_OPENING}|###(?=\s*\w+:))\s*)+", re.IGNORECASE)
# What a chat template writes before the first answer.
_ANSWER = re.compile(
    r".*?(?:<\|im_start\|>assistant\b|<\|start_header_id\|>assistant<\|end_header_id\|>|<start_of_turn>model\b"
    r"|<\|assistant\|>|###\s*assistant:)\s*",
    re.IGNORECASE | re.DOTALL,
)
_LINE_BREAK = re.compile(r"(?:\\r)?\\n")
_SENTENCE_END = re.compile(r"[.!?。！？][\"'”’)\]*]*(?=\s|\Z)|[。！？]")
_ITEM = re.compile(r"^[^\S\n]*(?:[-*•+]|\d+[.)])\s", re.MULTILINE)


@dataclass(frozen=True)
class Cleaning:
    """How a captions file is read before it is scored.

    Attributes
    ----------
    as_written
        Leave end-of-text marks and literal line breaks as they are: the classic reading.
    complete_sentences
        Drop an unfinished last sentence; see :func:`complete_sentences`.
    answer_after
        Keep what follows the last occurrence of this text, in captions that have it; None keeps all.
    """

    as_written: bool = False
    complete_sentences: bool = False
    answer_after: str | None = None

    def __call__(self, text: str) -> str:
        """A caption as it is scored."""
        text = self.answer(text)
        if not self.as_written:
            text = read_line_breaks(cut_end_marks(text))
        return complete_sentences(text) if self.complete_sentences else text

    def answer(self, text: str) -> str:
        """What of a caption follows :attr:`answer_after`."""
        return text.rsplit(self.answer_after, 1)[-1] if self.answer_after else text


def cut_end_marks(text: str) -> str:
    """A caption without special tokens: what stands between those that begin it and the first that ends it.

    Of text that begins as a chat template does, with the question, the first answer. Text without special tokens is
    returned as it is. Tokens within a caption, which do not end it, become a space.
    """
    if _WITHIN.search(text):
        text = _WITHIN.sub(" ", text).strip()
    if _LEADING.match(text):
        text = _LEADING.sub("", _ANSWER.sub("", text, count=1), count=1)
    mark = _MARK.search(text)
    return text[: mark.start()].rstrip() if mark else text


def read_line_breaks(text: str) -> str:
    r"""A caption with ``\n`` as two characters of text read as a line break, which is what it stood for."""
    return _LINE_BREAK.sub("\n", text) if "\\n" in text else text


def complete_sentences(text: str) -> str:
    """A caption up to its last end of a sentence, as evaluations at 64 new tokens score it.

    At 64 tokens nearly every caption ends within a sentence, and the objects of half a sentence would be scored. Text
    without any end of a sentence is kept whole. OPERA's script has lines for this, commented out, that cut after the
    last period, whatever that ends, and leave nothing where there is none: the same of 500 captions of LLaVA-1.5 that
    are cut after 48 words, of 495 cut after 24.
    """
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else text


def is_cut_off(text: str) -> bool:
    """Whether a caption ends within a sentence.

    It does if it ends with no sentence's end, and a sentence ended before (the number of an item of a list ends none)
    or it has more than 30 words, whose last line is no item of a list. Short captions of one sentence often have no
    period at all.
    """
    is_item = _ITEM.match(text.rstrip().rsplit("\n", 1)[-1]) is not None
    text = _ITEM.sub("", text).rstrip()
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    if not text or (ends and ends[-1] == len(text)) or text.endswith(("…", "...")):
        return False
    return bool(ends) or (len(text.split()) > 30 and not is_item)

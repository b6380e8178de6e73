"""Tokenizers in the manner of the published ones, with small vocabularies."""

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import BertTokenizer, PreTrainedTokenizerFast

SPACE = "▁"
TEXT = (
    "A chat between a curious user human and an artificial intelligence assistant The gives helpful detailed polite"
    " answers to the user's questions USER ASSISTANT Human Assistant Img Please describe this image in detail cat dog"
    " on mat"
)
WORDS = list(dict.fromkeys(TEXT.split()))


def llama_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Pieces and merges as Llama's: specials, 256 bytes, runs of spaces first, words with and without their space."""
    merges = [(SPACE, SPACE), (SPACE * 2, SPACE * 2), ("#", "#"), (SPACE, "##"), (SPACE + "##", "#")]
    for word in WORDS:
        merges += [(word[:end], word[end]) for end in range(1, len(word))]
    merges += [(SPACE, word) for word in WORDS]
    merges = list(dict.fromkeys(merges))
    letters = sorted({letter for pair in merges for letter in "".join(pair)} | set("<>/.:,?'[]()!"))
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += dict.fromkeys(["".join(pair) for pair in merges] + letters)
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}, merges


def llama_tokenizer(
    added: tuple[str, ...] = (), *, legacy: bool = True, bos: str = "<s>", **special: str
) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer like Vicuna's.

    ``legacy`` puts SentencePiece's space before every piece between added tokens, as the published ``tokenizer.json``
    files do; without it, transformers 5's own pre-tokenizer stands, which leaves a space that is there already alone.
    """
    vocabulary, merges = llama_vocabulary()
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if legacy:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="first", split=False)
    strip = decoders.Strip(content=" ", left=1)
    backend.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.add_tokens([AddedToken(token, normalized=False, special=True) for token in added])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocabulary[bos])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, eos_token="</s>", unk_token="<unk>", **special
    )


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level byte-pair tokenizer with Qwen's special tokens."""
    return byte_tokenizer(("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"))


def byte_tokenizer(special: tuple[str, ...], bos_token: str | None = None, **settings: Any) -> PreTrainedTokenizerFast:
    """A byte-level byte-pair tokenizer with chat marks as Qwen's and some special tokens more."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *special, *([bos_token] if bos_token else [])]
    text = TEXT + " system\nYou are a helpful assistant.\nuser\nassistant\n"
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=413 + len(marks), special_tokens=marks, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([text] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos_token, eos_token="<|im_end|>", pad_token="<|endoftext|>", **settings
    )


def bert_tokenizer() -> BertTokenizer:
    """A WordPiece tokenizer as the Q-Former of InstructBLIP has, with LAVIS's [DEC] as its last token."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", *dict.fromkeys(word.lower() for word in WORDS)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=True)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    return tokenizer

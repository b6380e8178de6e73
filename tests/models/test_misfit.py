"""Checkpoints whose parts are damaged or do not fit each other: one line, quickly, before or at the first pass."""

import json
import shutil

import pytest
import torch
from checkpoints import save_llava, save_qwen3_vl
from family_runs import pictures
from newer_checkpoints import NEWER

from kvtune.cli.main import main
from kvtune.errors import RequestError
from kvtune.models import load_model, misfit
from kvtune.models.misfit import in_a_line

WHOLE = {"llava": save_llava, "qwen": save_qwen3_vl, "gemma": NEWER["gemma3"], "idefics": NEWER["idefics3"]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return {name: save(tmp_path_factory.mktemp(name)) for name, save in WHOLE.items()}


def change(file, **changes):
    """What writes other values into a JSON file; two underscores lead further down."""

    def apply(folder):
        path = folder / file
        stored = json.loads(path.read_text()) if path.exists() else {}
        for key, value in changes.items():
            *parents, last = key.split("__")
            inner = stored
            for parent in parents:
                inner = inner[parent]
            inner[last] = value
        path.write_text(json.dumps(stored))

    return apply


def write(file, text):
    return lambda folder: (folder / file).write_text(text)


def template(text):
    return write("chat_template.jinja", text)


def without(file):
    return lambda folder: (folder / file).unlink()


def index(weight_map):
    def apply(folder):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    return apply


def layers(value):
    return change("config.json", text_config__num_hidden_layers=value)


SIZES = "is no model's: .*, not a whole number from 1 to 1000; copy or download it again"
FAULTS = [
    ("llava", layers(-1), SIZES),
    ("llava", layers(100_000), SIZES),
    ("llava", layers("x"), SIZES),
    ("llava", change("config.json", vision_config__num_hidden_layers=0), "vision_config.num_hidden_layers is 0, not"),
    ("llava", change("config.json", text_config__hidden_size=10**9), "text_config.hidden_size is 1000000000, not"),
    ("llava", change("config.json", text_config__num_attention_heads=3), "cannot load .*not a multiple of the number"),
    ("llava", change("config.json", text_config=[1]), "cannot load .* Field 'text_config'"),
    ("gemma", change("config.json", vision_config__num_hidden_layers=100_000), SIZES),
    ("gemma", change("config.json", text_config__vocab_size=-5), "text_config.vocab_size is -5"),
    ("llava", change("tokenizer_config.json", tokenizer_class=5), "names 5 as its tokenizer_class"),
    ("gemma", change("tokenizer_config.json", tokenizer_class=["x"]), "names .'x'. as its tokenizer_class"),
    ("gemma", change("tokenizer_config.json", tokenizer_class="BertTokenizer"), "processor of .* cannot be used"),
    ("llava", write("tokenizer_config.json", "{"), "tokenizer_config.json is no JSON"),
    ("llava", write("processor_config.json", "{"), "processor_config.json is no JSON"),
    ("llava", write("generation_config.json", "{"), "generation_config.json is no JSON"),
    ("gemma", write("generation_config.json", "[2]"), "generation_config.json is no JSON object"),
    (
        "llava",
        without("tokenizer.json"),
        r"cannot load .*: it has no tokenizer \(tokenizer.json or tokenizer.model\); copy",
    ),
    ("gemma", without("tokenizer.json"), "it has no tokenizer"),
    ("llava", write("tokenizer.json", '{"model"'), "its tokenizer.json is damaged; copy or download it again"),
    ("llava", write("tokenizer.json", "{}"), "its tokenizer.json is damaged"),
    (
        "llava",
        write("tokenizer.json", "version https://git-lfs"),
        "its tokenizer.json is a Git LFS pointer; run git",
    ),
    ("llava", write("model.safetensors", ""), "its model.safetensors is damaged"),
    ("llava", without("tokenizer_config.json"), "names no end of text; .*tokenizer_config.json"),
    ("llava", index({"a": 5}), "index.json is damaged: .*5 is no file's name"),
    ("llava", index({"a": None}), "index.json is damaged"),
    ("llava", index({"a": ["x"]}), "index.json is damaged"),
    ("llava", index({"a": "../x"}), "index.json is damaged: .*'../x' is no file's name"),
    ("llava", index({"a": "/etc/passwd"}), "index.json is damaged"),
    ("qwen", change("generation_config.json", eos_token_id=10**7), "texts end with 10000000, which is none of its"),
    ("qwen", change("generation_config.json", eos_token_id="x"), "texts end with 'x', which is none of its"),
    (
        "gemma",
        template("{% if %}"),
        "the chat template of .* cannot be used: Expected an expression",
    ),
    (
        "gemma",
        template("{{ nothing.at.all }}"),
        "the chat template of .* cannot be used: 'nothing' is undefined",
    ),
    (
        "gemma",
        template("{{ messages[0].content[1].text }}"),
        "the chat template of .* puts no image into the prompt",
    ),
    ("idefics", change("processor_config.json", image_seq_len="x"), "the processor of .* cannot be used"),
]
NO_MATCH = "Image features and image tokens do not match"
MISFITS = [
    (
        "llava",
        change("processor_config.json", image_processor__crop_size={"height": 14, "width": 14}),
        "Input image size",
    ),
    (
        "llava",
        change("config.json", image_token_index=10**6, image_token_id=10**6),
        NO_MATCH,
    ),
    ("gemma", change("processor_config.json", image_seq_length=3), NO_MATCH),
    ("idefics", change("processor_config.json", image_seq_len=3), NO_MATCH),
    ("qwen", change("preprocessor_config.json", merge_size=4), ""),
    ("qwen", change("preprocessor_config.json", patch_size=8), ""),
]


@pytest.mark.parametrize(("kind", "spoil", "message"), FAULTS)
def test_a_fault_is_one_line(whole, tmp_path, kind, spoil, message):
    folder = shutil.copytree(whole[kind], tmp_path / "model")
    spoil(folder)
    with pytest.raises(RequestError, match=message) as caught:
        load_model(folder, device="cpu").prepare(pictures()[:1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "spoil", "message"), MISFITS)
def test_a_processor_that_does_not_fit_the_weights_is_one_line(whole, tmp_path, kind, spoil, message):
    folder = shutil.copytree(whole[kind], tmp_path / "model")
    spoil(folder)
    line = f"^the processor and the weights of model do not fit each other: .*{message}"
    with pytest.raises(RequestError, match=line) as caught:
        load_model(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_sentencepiece_alone_says_what_to_install(whole, tmp_path, monkeypatch):
    """transformers asks for tiktoken, which reads it no more than it does itself."""
    folder = shutil.copytree(whole["llava"], tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    monkeypatch.setattr(misfit, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"its tokenizer is SentencePiece's alone: pip install sentencepiece proto"):
        load_model(folder, device="cpu")


def test_commands_say_it_in_a_line_too(whole, tmp_path, capsys):
    folder = shutil.copytree(whole["gemma"], tmp_path / "model")
    change("processor_config.json", image_seq_length=3)(folder)
    picture = tmp_path / "picture.png"
    pictures()[0].save(picture)
    search = ["--trials", "1", "--images", "2", "--holdout-images", "2", "--studies-dir", str(tmp_path / "studies")]
    for command in (
        ["caption", str(picture), "--model", str(folder)],
        ["models", "check", str(folder)],
        ["search", "--model", str(folder), "--coco", str(tmp_path), *search],
    ):
        if command[0] == "search":
            from kvtune.demo.coco import FIRST_ID, write_coco

            write_coco(tmp_path, range(FIRST_ID, FIRST_ID + 4), seed=0)
        with pytest.raises(SystemExit) as ended:
            main([*command, "--device", "cpu"])
        said = capsys.readouterr().err.strip().splitlines()
        assert ended.value.code == 2 and "do not fit each other: Image features and image tokens" in said[-1], command


def test_a_lack_of_memory_is_no_misfit():
    no_room = RuntimeError("DefaultCPUAllocator: can't allocate memory")
    for error in (torch.OutOfMemoryError("x"), MemoryError(), no_room):
        with pytest.raises(type(error)), in_a_line("what"):
            raise error
    with pytest.raises(RequestError, match=r"^what: KeyError$"), in_a_line("what"):
        raise KeyError

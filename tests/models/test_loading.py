"""From a name to a model, and every way in which that can go wrong, in one line each."""

import json
import os
import shutil
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pytest
import torch
from failing_device import cuda_error
from huggingface_hub import constants
from newer_checkpoints import save_qwen3_vl_moe
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import core_model_loading

from kvtune.errors import KvtuneError, RequestError
from kvtune.models import all_families, commit_of, get_family, load_model, loading, options
from kvtune.models.availability import at_hand
from kvtune.models.devices import resolve_device
from kvtune.models.hub import models_folder
from kvtune.models.loading import resolve_dtype
from kvtune.models.published import MODELS, PUBLISHED


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy of a small LLaVA that a test may spoil."""
    for file in checkpoint("llava-1.5").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def change_config(folder, **change):
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | change))


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def shard(folder):
    """Split the weights in two files with an index, as large checkpoints are."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for number, file in enumerate(files):
        save_file({name: tensors[name] for name in sorted(tensors)[number::2]}, folder / file, {"format": "pt"})
    weight_map = {name: files[number % 2] for number, name in enumerate(sorted(tensors))}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return files


def test_every_family_says_what_it_is():
    names = list(MODELS)
    older = ["demo", "llava-1.5", "llava-1.5-13b", "minigpt4", "instructblip", "llava-next", "qwen2.5-vl"]
    newer = ["qwen3-vl", "qwen3-vl-4b", "qwen3-vl-2b", "internvl3.5", "internvl3.5-4b", "llava-onevision"]
    newer += ["llava-onevision-0.5b", "gemma3", "gemma3-12b", "gemma3-27b", "smolvlm2"]
    assert names == [*older, *newer]
    for family in all_families():
        assert family.title and family.default_prompt == "Please describe this image in detail."
        assert MODELS[family.name].family == family.name
    types = Counter(kind for family in all_families() for kind in family.model_types)
    assert set(types.values()) == {1}, "the first of two families with one model_type would take all of its folders"
    for model in PUBLISHED:
        assert get_family(model.name).title == model.title and (model.command is None) == (model.name == "demo")


def test_a_short_name_is_looked_for_in_the_models_folder(folder, monkeypatch):
    monkeypatch.setenv("KVTUNE_MODELS", str(folder.parent / "models"))
    (models_folder()).mkdir()
    folder.rename(models_folder() / "llava-1.5")
    vlm = load_model("llava-1.5", device="cpu")
    assert vlm.name == "llava-1.5" and vlm.model_id == str(models_folder() / "llava-1.5")
    assert vlm.published_preset == "llava-1.5" and vlm.dtype == torch.float32
    change_config(models_folder() / "llava-1.5", model_type="qwen2_5_vl")
    with pytest.raises(RequestError, match="is a 'qwen2_5_vl' model, not LLaVA"):
        load_model("llava-1.5")


def test_minigpt4_says_how_it_is_made(monkeypatch, tmp_path):
    monkeypatch.setenv("KVTUNE_MODELS", str(tmp_path))
    with pytest.raises(RequestError, match="make it with: kvtune models convert minigpt4 --vicuna DIR --eva "):
        load_model("minigpt4")


def test_sharded_checkpoints_load(folder, checkpoint):
    shard(folder)
    expected = load_model(checkpoint("llava-1.5"), device="cpu").hf_model.state_dict()
    found = load_model(folder, device="cpu").hf_model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_pytorch_files_load_and_never_run_code(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert load_model(folder, device="cpu").n_layers == 3

    class Runs:
        def __reduce__(self):
            return (os.mkdir, (str(folder / "ran"),))

    torch.save(tensors | {"x": Runs()}, folder / "pytorch_model.bin")
    with pytest.raises(RequestError, match="cannot load"):
        load_model(folder, device="cpu")
    assert not (folder / "ran").exists()


def test_code_that_a_checkpoint_brings_along_is_not_run(folder):
    (folder / "evil.py").write_text(
        f"import os; os.mkdir({str(folder / 'ran')!r})\nclass Config: pass\nclass Model: pass"
    )
    change_config(folder, auto_map={"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"})
    assert load_model(folder, device="cpu").n_layers == 3
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "llava",
            "unknown model 'llava', did you mean 'llava-1.5'[?] there is demo, llava-1.5, llava-1.5-13b, minigpt4",
        ),
        ("LLaVA-1.5", "did you mean 'llava-1.5'[?]"),
        ("lava-1.5", "did you mean 'llava-1.5'[?]"),
        ("./nowhere", "there is no folder './nowhere'"),
        ("/nowhere/model", "there is no folder '/nowhere/model'"),
        ("a/b/c", "or give a folder or a Hub id"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(RequestError, match=message):
        load_model(name)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: change_config(f, model_type="bert"), "is a 'bert' model, and none of those that"),
        (lambda f: (f / "config.json").unlink(), "holds no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not a model's configuration"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json is not a model's configuration"),
        (lambda f: (f / "config.json").rename(f / "adapter_config.json"), r"is an adapter \(LoRA\), not a model"),
        (lambda f: (f / "model.safetensors").unlink(), "1 of 1 weight files are missing: model.safetensors; copy"),
        (lambda f: (f / shard(f)[1]).unlink(), "1 of 2 weight files are missing: model-00002-of-00002.safetensors"),
        (lambda f: (f / "model.safetensors.index.json").write_text('{"weight'), "index.json is damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/"), "run git lfs pull"),
        (lambda f: os.truncate(f / "model.safetensors", 5000), "its model.safetensors is damaged; copy"),
        (lambda f: change_weights(f, lambda t: t.popitem()), "not a whole LLaVA-1.5 checkpoint: .* is missing$"),
        (lambda f: change_weights(f, lambda t: t.clear()), r"is missing \(and \d+ more\)"),
        (
            lambda f: change_weights(f, lambda t: t.update({name: torch.ones(7, 32) for name in t if "lm_h" in name})),
            r"lm_head.weight has shape \[7, 32\], its configuration says \[492, 32\]",
        ),
        (lambda f: (f / "tokenizer.json").unlink(), "it has no tokenizer"),
        (lambda f: (f / "processor_config.json").unlink(), "cannot load|has no preprocessor_config.json"),
    ],
)  # fmt: skip
def test_a_spoilt_folder_is_one_line(folder, spoil, message):
    spoil(folder)
    with pytest.raises(RequestError, match=message) as caught:
        load_model(folder, device="cpu")
    assert str(folder) in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("pad", [-1, 10**6, None])
def test_padding_that_is_no_token_is_not_padded_with(checkpoint, tmp_path, pad):
    """Llama 1 has -1 in its files; on a GPU such a token ends the process."""
    folder = shutil.copytree(checkpoint("llava-next"), tmp_path / "model")
    stored = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(stored | {"pad_token_id": pad}))
    vlm = load_model(folder, device="cpu")
    assert vlm.pad_token_id == vlm.tokenizer.pad_token_id
    inputs = vlm.prepare([Image.new("RGB", (40, 30)), Image.new("RGB", (90, 30))])
    assert not inputs["attention_mask"].all()
    assert len(vlm.hf_model.generate(**inputs, max_new_tokens=2)) == 2


def test_a_revision_is_for_the_hub(folder):
    with pytest.raises(RequestError, match="is a folder; leave the revision out"):
        load_model(folder, revision="main")


def test_devices_and_types_that_are_not_there(folder):
    for device, message in (("gpu", "unknown device 'gpu'"), ("cuda:99", "no CUDA GPU|counted from 0")):
        with pytest.raises(RequestError, match=message):
            resolve_device(device)
    with pytest.raises(RequestError, match="unknown dtype 'half'; write auto, float32, float16"):
        load_model(folder, device="cpu", dtype="half")
    config = load_model(folder, device="cpu", dtype="bfloat16").hf_model.config
    assert resolve_dtype("auto", torch.device("cuda"), config) == torch.bfloat16


def test_where_a_driver_is_there_and_no_gpu_is_seen_the_cpu_is_not_taken_in_silence(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert resolve_device("auto").type == "cpu" and not caplog.records
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which says that the CPU is wanted
    assert resolve_device("auto").type == "cpu" and not caplog.records
    with pytest.raises(RequestError, match=r"--device cuda: PyTorch sees no CUDA GPU with CUDA_VISIBLE_DEVICES=; use"):
        resolve_device("cuda")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert resolve_device("auto").type == "cpu" and "the CPU is used; kvtune doctor says what to do" in caplog.text


@pytest.mark.parametrize(
    ("capability", "dtype", "told"),
    [((8, 0), torch.bfloat16, False), ((7, 5), torch.float16, False), ((7, 5), torch.bfloat16, True)],
)
def test_a_gpu_without_units_for_bfloat16_is_told_of(monkeypatch, caplog, capability, dtype, told):
    caplog.set_level("INFO")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    loading.say_if_slow(dtype, torch.device("cuda"))
    assert ("no units for bfloat16" in caplog.text) == told


def test_running_out_of_memory_while_loading_is_one_line(monkeypatch, folder):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(loading, "load_weights", full)
    with pytest.raises(RequestError, match="does not fit into cpu's memory; add --load-in-4bit"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nSee"),
            "does not fit into cpu's mem",
        ),
        (
            cuda_error("uncorrectable ECC error encountered"),
            "the GPU does nothing more .*: uncorrectable ECC err",
        ),
        (ValueError("2 tensors, not 3"), "cannot load .* as qwen3_vl_moe: ValueError: 2 tensors, not 3$"),
    ],
)
def test_what_fails_in_a_conversion_of_weights_is_told(monkeypatch, tmp_path, error, message):
    """transformers says that it failed, and of what only in its log."""

    def fail(*arguments, **named):
        raise error

    folder = save_qwen3_vl_moe(tmp_path)
    monkeypatch.setattr(core_model_loading.Transpose, "convert", fail)
    with pytest.raises(KvtuneError, match=message):
        load_model(folder, device="cpu")


def test_quantization_asks_for_its_extra_and_for_one_kind(monkeypatch, folder):
    with pytest.raises(RequestError, match="exclude each other"):
        load_model(folder, device="cpu", load_in_4bit=True, load_in_8bit=True)
    with pytest.raises(RequestError, match="unknown quantization '2bit' after float16"):
        load_model(folder, device="cpu", dtype="float16-2bit")
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="--load-in-4bit needs bitsandbytes"):
        load_model(folder, device="cpu", dtype="float16-4bit")
    with pytest.raises(RequestError, match=r"--load-in-8bit needs bitsandbytes .*pip install 'kvtune\[quantization\]'"):
        load_model(folder, device="cpu", load_in_8bit=True)


@pytest.mark.parametrize("name", ["llava-1.5", "llava-next", "qwen2.5-vl", "instructblip", "minigpt4"])
def test_only_the_language_model_is_quantized(checkpoint, name):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is in kvtune's quantization extra")
    vlm = load_model(checkpoint(name), device="cpu", dtype="float16", load_in_8bit=True)
    linears = {
        key: type(module).__name__ for key, module in vlm.hf_model.named_modules() if hasattr(module, "out_features")
    }
    for key, kind in linears.items():
        assert (kind == "Linear8bitLt") == ("language_model" in key and "lm_head" not in key), key
    assert vlm.quantization == "8bit" and vlm.dtype_name == "float16-8bit"
    output = vlm.hf_model.generate(**vlm.prepare([Image.new("RGB", (40, 30))]), max_new_tokens=2, eos_token_id=None)
    assert output.shape[0] == 1


# The Hub: a cache on the disk, and a server that answers as the Hub does.

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def use_hub(monkeypatch, tmp_path_factory):
    """Points the Hub's client to a cache, a server, or neither."""
    monkeypatch.setenv("KVTUNE_MODELS", str(tmp_path_factory.mktemp("models")))

    def use(cache=None, endpoint="http://127.0.0.1:9", offline=False):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache or tmp_path_factory.mktemp("empty")))
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)

    return use


@pytest.fixture
def cache(folder, tmp_path_factory):
    """A Hub cache with one commit of llava-hf/llava-1.5-7b-hf."""
    home = tmp_path_factory.mktemp("hub")
    repository = home / "models--llava-hf--llava-1.5-7b-hf"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / COMMIT)
    return home


class Hub(BaseHTTPRequestHandler):
    """Has the files of ``folder`` as the repository real/model at one commit; refuses the others in different ways."""

    folder = Path()
    fetched: ClassVar[list[str]] = []

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        files = {str(file.relative_to(self.folder)): file for file in sorted(self.folder.rglob("*")) if file.is_file()}
        if path == "/api/models/real/model/revision/main":
            self.answer(json.dumps({"id": "real/model", "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}))
        elif path.startswith(f"/api/models/real/model/tree/{COMMIT}"):
            sizes = [{"type": "file", "path": n, "size": f.stat().st_size, "oid": "0" * 40} for n, f in files.items()]
            self.answer(json.dumps(sizes))
        elif path.startswith("/real/model/resolve/"):
            name = path.split("/", 5)[5]
            if self.command == "GET":
                self.fetched.append(name)
            self.answer(files[name].read_bytes(), ETag=f'"{name}"', **{"X-Repo-Commit": COMMIT})
        else:
            kinds = {"/gated/": "GatedRepo", "/none/": "RepoNotFound"}
            code = next((kind for part, kind in kinds.items() if part in path), "RevisionNotFound")
            self.answer("", 403 if code == "GatedRepo" else 404, **{"X-Error-Code": code})

    do_HEAD = do_GET  # noqa: N815

    def answer(self, body, status=200, **headers):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(folder):
    Hub.folder = folder
    Hub.fetched.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_model_is_downloaded_once_at_one_commit(hub, folder, use_hub, tmp_path_factory):
    shard(folder)
    (folder / "pytorch_model.bin").write_bytes(b"the same weights in the old format")
    cache = tmp_path_factory.mktemp("cache")
    for first in (True, False):
        Hub.fetched.clear()
        use_hub(cache, hub)
        vlm = load_model("real/model", device="cpu", revision="main")
        assert (vlm.name, vlm.model_id, vlm.revision) == ("model", "real/model", COMMIT)
        assert "pytorch_model.bin" not in Hub.fetched
        assert ("model-00002-of-00002.safetensors" in Hub.fetched) == bool(Hub.fetched) == first
    use_hub(cache)
    assert load_model("real/model", device="cpu", revision=COMMIT).revision == COMMIT


def test_only_files_that_are_loaded_are_downloaded(hub, folder, use_hub):
    """Beside a sharded checkpoint Mistral keeps all of it in one file, others what they exported or trained on from."""
    shard(folder)
    others = ("consolidated.safetensors", "onnx/model.safetensors", "adapter_model.safetensors", "optimizer.bin")
    for name in others:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"gigabytes")
    use_hub(endpoint=hub)
    assert load_model("real/model", device="cpu").revision == COMMIT
    assert "model-00001-of-00002.safetensors" in Hub.fetched and not set(others) & set(Hub.fetched)


def test_one_safetensors_file_beside_an_index_of_pytorch_files_is_taken(hub, folder, use_hub):
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "pytorch_model-00001-of-00002.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    use_hub(endpoint=hub)
    assert load_model("real/model", device="cpu").revision == COMMIT
    assert load_model(folder, device="cpu").revision is None


def test_pytorch_files_are_downloaded_where_there_are_no_others(hub, folder, use_hub):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    use_hub(endpoint=hub)
    assert load_model("real/model", device="cpu").revision == COMMIT
    assert "pytorch_model.bin" in Hub.fetched


def test_another_architecture_is_refused_before_its_weights_are_downloaded(hub, folder, use_hub):
    change_config(folder, model_type="bert")
    use_hub(endpoint=hub)
    with pytest.raises(RequestError, match="real/model is a 'bert' model"):
        load_model("real/model", device="cpu")
    assert "config.json" in Hub.fetched and "model.safetensors" not in Hub.fetched


def test_the_hub_cache_serves_without_a_network_and_the_commit_is_recorded(cache, use_hub):
    for name, revision, offline in (
        ("llava-1.5", None, True),
        ("llava-1.5", None, False),
        ("llava-hf/llava-1.5-7b-hf", COMMIT, False),
    ):
        use_hub(cache, offline=offline)
        vlm = load_model(name, device="cpu", revision=revision)
        assert (vlm.name, vlm.model_id, vlm.revision) == ("llava-1.5", "llava-hf/llava-1.5-7b-hf", COMMIT)
        assert vlm.published_preset == "llava-1.5"


def test_a_commit_stays_when_the_branch_moves_on(cache, use_hub):
    repository = cache / "models--llava-hf--llava-1.5-7b-hf"
    newer = "f" * 40
    shutil.copytree(repository / "snapshots" / COMMIT, repository / "snapshots" / newer)
    change_weights(repository / "snapshots" / newer, lambda t: t[next(n for n in t if "lm_head" in n)].zero_())
    (repository / "refs" / "main").write_text(newer)
    use_hub(cache, offline=True)
    assert commit_of("llava-1.5") == newer and commit_of("llava-1.5", COMMIT) == COMMIT
    for revision, commit in ((None, newer), (COMMIT, COMMIT)):
        vlm = load_model("llava-1.5", device="cpu", revision=revision)
        assert vlm.revision == commit and bool(vlm.hf_model.lm_head.weight.any()) == (commit == COMMIT)


def test_a_commit_is_found_out_without_weights(hub, folder, use_hub):
    use_hub(endpoint=hub)
    assert commit_of("real/model", "main") == COMMIT and commit_of(folder) is None
    assert "config.json" in Hub.fetched and "model.safetensors" not in Hub.fetched
    with pytest.raises(RequestError, match="has no revision 'v9'"):
        commit_of("real/model", "v9")


def test_a_half_downloaded_cache_is_named(cache, use_hub):
    (cache / "models--llava-hf--llava-1.5-7b-hf" / "snapshots" / COMMIT / "model.safetensors").unlink()
    use_hub(cache, offline=True)
    with pytest.raises(RequestError, match=r"weight files are missing|not wholly, in the local cache"):
        load_model("llava-1.5", device="cpu")


def test_weights_at_hand_are_found_without_a_network(cache, use_hub, checkpoint):
    use_hub(cache)
    folder = checkpoint("llava-1.5")
    assert (at_hand("llava-1.5").source, at_hand("llava-1.5").name) == ("llava-hf/llava-1.5-7b-hf", "llava-1.5")
    assert at_hand("llava-hf/llava-1.5-7b-hf").name == "llava-1.5" and at_hand("demo").family.name == "demo"
    local = at_hand(str(folder))
    assert (local.source, local.name, local.family.name) == (str(folder.resolve()), folder.name, "llava-1.5")
    with pytest.raises(RequestError, match=r"weights of instructblip are not on .*: hf download Salesforce/instructbl"):
        at_hand("instructblip")
    (cache / "models--llava-hf--llava-1.5-7b-hf" / "snapshots" / COMMIT / "model.safetensors").unlink()
    with pytest.raises(RequestError, match=r"1 of 1 weight files .*; fetch them: hf download llava-hf/llava-1.5-7b-hf"):
        at_hand("llava-1.5")


def test_weights_at_hand_are_those_of_the_revision(cache, use_hub):
    """As a study's next run asks a cluster's node for its commit, whatever else is there."""
    use_hub(cache)
    repository = cache / "models--llava-hf--llava-1.5-7b-hf"
    (repository / "refs" / "main").unlink()
    assert at_hand("llava-1.5", COMMIT).source == "llava-hf/llava-1.5-7b-hf"
    with pytest.raises(RequestError, match=r"weights of llava-1.5 are not on this machine"):
        at_hand("llava-1.5")
    (repository / "refs" / "main").write_text(COMMIT)
    assert at_hand("llava-1.5").name == "llava-1.5"
    with pytest.raises(RequestError, match=r"not on this machine; fetch them: hf download .* --revision f{40}$"):
        at_hand("llava-1.5", "f" * 40)


def test_a_hub_that_cannot_be_reached(use_hub):
    use_hub()
    with pytest.raises(
        RequestError, match=r"cannot be reached and llava-hf/llava-1.5-13b-hf .* run `hf download llava-hf"
    ):
        load_model("llava-1.5-13b")
    with pytest.raises(RequestError, match=r"hf download llava-hf/llava-1.5-13b-hf --revision v1"):
        load_model("llava-1.5-13b", revision="v1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("some/model", "some/model has no revision 'v9'"),
        ("none/model", "none/model is not on the Hub, or is private"),
        ("gated/model", "gated/model is gated: accept its terms"),
        ("some/mod--el", "'some/mod--el' is neither a folder nor a Hub id"),
    ],
)
def test_what_the_hub_refuses(hub, use_hub, name, message):
    use_hub(endpoint=hub)
    with pytest.raises(RequestError, match=f"^{message}"):
        load_model(name, revision="v9")

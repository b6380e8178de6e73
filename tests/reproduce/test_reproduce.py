"""``kvtune reproduce``: what is captioned, what is chosen, what is paid for, and what is refused before it starts."""

import contextlib
import copy
import json
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_search import FakeCaptioner, FakeRequest, chance
from hypothesis import given
from hypothesis import strategies as st
from killing import child, die_at
from small_coco import write_coco
from synthetic_studies import scores as scores_at

from kvtune.chair import METRICS, ChairScorer, build_ground_truth
from kvtune.cli.main import main
from kvtune.coco import OPERA500, CocoFolder, Subset, holdout_beside
from kvtune.errors import KvtuneError, RequestError
from kvtune.methods import KVSmooth, get_method
from kvtune.models import opening
from kvtune.models.options import EngineOptions, ModelOptions
from kvtune.presets import load_preset, preset_names
from kvtune.reproduce import ModelResult, Request, reproduce
from kvtune.reproduce.paper_settings import LAMBDAS, RIVALS, choose_factor, published_parameters
from kvtune.statistics.bootstrap import Bootstrap
from kvtune.statistics.paired import holm, mcnemar
from kvtune.study.caption_log import read_captions
from kvtune.study.lock import locked

OPERA_IDS = Subset.load(OPERA500).image_ids[:12]
OTHERS = range(700_001, 700_041)
PAPER, OPERA = "Please describe the image in detail.", "Please describe this image in detail."
LLAVA = {
    "lambda_ref": 0.9,
    "queue_length": 15,
    "clip_width": 0.2,
    "start_layer": 3,
    "end_layer": 31,
    "adaptive": True,
    "target": "kv",
}
FACTORS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data") / "coco", "val2014", [*OPERA_IDS, *OTHERS])


def caption_text(image_id: int, prompt: str, method: Any) -> str:
    """What the model says: the stronger the smoothing, the fewer things, false ones first."""
    parameters = None if method is None else method.parameters()
    strength = 0.0 if method is None else getattr(method, "lambda_ref", 0.5)
    named = []
    for thing in ("person", "dog", "chair", "cat", "car", "bird"):
        real = image_id % 5 and (thing == "person" or (thing == "dog" and image_id % 2 == 0))
        likely = 0.9 - 0.5 * strength**3 if real else 0.4 * (1 - strength)
        if chance(image_id, prompt, parameters, thing) < likely:
            named.append(f"a {thing}")
    return f"There is {', '.join(named) or 'nothing'}."


FAMILIES = {name: SimpleNamespace(name=name, title=name) for name in ("llava-1.5", "minigpt4", "qwen2.5-vl")}
LAYERS = {"llava-1.5": 32, "minigpt4": 32, "llava-1.5-13b": 40}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands for models and captioner, and counts what they are asked for; stops where a test says so."""
    seen = SimpleNamespace(loaded=[], asked=[], stop_after=None, revision="a" * 40, absent=set(), dtype="float16")

    def locate(name: str) -> tuple[Any, str, str]:
        if name not in [*LAYERS, *FAMILIES]:
            raise RequestError(f"unknown model {name!r}")
        return None, f"hub/{name}", name

    def at_hand(name: str) -> Any:
        if name in seen.absent:
            raise RequestError(f"the weights of {name} are not on this machine; fetch them: hf download hub/{name}")
        return SimpleNamespace(family=FAMILIES[name.removesuffix("-13b")])

    def model(options: ModelOptions) -> Any:
        seen.loaded.append((options.name, options.engine.device, options.dtype, options.revision))
        dtype = seen.dtype if options.dtype == "auto" else options.dtype
        return SimpleNamespace(
            revision=seen.revision,
            dtype_name=f"{dtype}-4bit" if options.load_in_4bit and "-" not in dtype else dtype,
            n_layers=LAYERS[options.name],
            family=FAMILIES[options.name.removesuffix("-13b")],
            device_name="cpu",
        )

    def resolve_device(device: str) -> None:
        if device != "auto":
            raise RequestError(f"--device {device}: PyTorch sees no CUDA GPU")

    class Captioner(FakeCaptioner):
        def __init__(self, options: ModelOptions, prompt: str, max_new_tokens: int) -> None:
            super().__init__(in_flight=5)
            assert max_new_tokens == 512
            self.vlm = model(options)
            self.prompt = prompt

        def changed(self, prompt: str) -> Any:
            changed = copy.copy(self)
            changed.prompt = prompt
            return changed

        def finish(self, batch: list[Any]) -> Iterator[Any]:
            for request in reversed(batch):
                if seen.stop_after is not None and len(seen.asked) >= seen.stop_after:
                    raise KeyboardInterrupt
                seen.asked.append((self.prompt, repr(request.method), request.image_id))
                text = caption_text(request.image_id, self.prompt, request.method)
                yield SimpleNamespace(
                    image_id=request.image_id, text=text, token_ids=(1, 2), finish_reason="eos", tag=request.tag
                )

    models = SimpleNamespace(locate=locate, get_family=FAMILIES.__getitem__)
    monkeypatch.setitem(sys.modules, "kvtune.models", models)
    monkeypatch.setitem(sys.modules, "kvtune.models.availability", SimpleNamespace(at_hand=at_hand))
    devices = SimpleNamespace(resolve_device=resolve_device)
    monkeypatch.setattr(opening, "quantization_of", lambda dtype, *_: (dtype, None))
    monkeypatch.setitem(sys.modules, "kvtune.models.devices", devices)
    monkeypatch.setitem(sys.modules, "kvtune.models.family", SimpleNamespace(OPERA_PROMPT=OPERA))
    captioning = SimpleNamespace(CaptionRequest=FakeRequest, open_captioner=Captioner)
    monkeypatch.setitem(sys.modules, "kvtune.captioning", captioning)
    return seen


@contextlib.contextmanager
def show(what: str) -> Iterator[Any]:
    yield lambda *progress: None


def run(table: Any, out: Path, coco: Path | None, models: Any = ("llava-1.5",), **options: Any) -> list[ModelResult]:
    of_model = {key: options.pop(key) for key in ("dtype", "load_in_4bit", "load_in_8bit") if key in options}
    engine = EngineOptions(**{key: options.pop(key) for key in ("device", "lanes") if key in options})
    named = [ModelOptions(name, engine=engine, **of_model) for name in models]
    request = Request(table, named, **{"images": 12, "coco": coco, "out": out} | options)
    return [found for _, found in reproduce(request, show, show)]


def test_every_number_follows_from_the_captions(tmp_path: Path, engine: SimpleNamespace, coco: Path) -> None:
    (found,) = run("table1", tmp_path, coco)
    folder = CocoFolder(coco)
    ids = [*OPERA_IDS, *OTHERS]
    scorer = ChairScorer(build_ground_truth(folder.categories(ids), folder.captions(ids)))
    # The images that `kvtune data download --subset opera500 --holdout-images 12 --seed 0` fetches.
    tune = holdout_beside(folder, Subset.load(OPERA500), 12, 0)

    def captions(
        image_ids: Any, prompt: str, parameters: dict[str, Any] | None, name: str = "kvsmooth"
    ) -> list[dict[str, Any]]:
        method = None if parameters is None else get_method(name).from_parameters(parameters)
        return [{"image_id": i, "caption": caption_text(i, prompt, method)} for i in image_ids]

    sweep = {
        factor: scorer.score(captions(tune.image_ids, PAPER, LLAVA | {"lambda_ref": factor, "adaptive": False}))
        for factor in FACTORS
    }
    best = max(score.f1 for score in sweep.values())
    assert [point.factor for point in found.constant.points] == FACTORS
    assert [point.metrics["f1"] for point in found.constant.points] == [sweep[factor].f1 for factor in FACTORS]
    assert sweep[found.constant.chosen].f1 == best and len({score.f1 for score in sweep.values()}) > 4
    assert found.constant.subset.sha256 == tune.sha256 and not set(tune.image_ids) & set(OPERA_IDS)

    rows: dict[str, Any] = {
        "opera": (OPERA, None),
        "baseline": (PAPER, None),
        "constant": (PAPER, LLAVA | {"lambda_ref": found.constant.chosen, "adaptive": False}),
        "adaptive": (PAPER, LLAVA),
        # As METHODS' sources publish them for LLaVA-1.5.
        "pai": (PAPER, {"alpha": 0.2, "start_layer": 2, "end_layer": 32}),
        "sparc": (PAPER, {"alpha": 1.1, "beta": 0.1, "tau": 1.5, "layer": 20}),
        "middle_layers": (PAPER, {"alpha": 0.5, "start_layer": 5, "end_layer": 19}),
    }
    assert [setting.name for setting in found.settings] == list(rows)
    tables = {}
    for setting in found.settings:
        prompt, parameters = rows[setting.name]
        assert (setting.prompt, setting.params) == (prompt, parameters or {})
        method = setting.name if setting.name in RIVALS else "kvsmooth"
        expected = captions(sorted(OPERA_IDS), prompt, parameters, method)
        score = scorer.score(expected).to_dict()
        for name in METRICS:
            assert setting.result.metrics[name] == score[name]
        tables[setting.name] = scorer.counts(expected).table
    bootstrap = Bootstrap(list(tables.values()))
    p_values = [mcnemar(tables[name][:, 1], tables["baseline"][:, 1]) for name in [*rows][2:]]
    for index, (setting, adjusted) in enumerate(zip(found.settings[2:], holm(p_values), strict=True), 2):
        difference = setting.result.differences["chair_s"]
        assert difference.p_adjusted == adjusted
        assert (difference.value, difference.interval) == bootstrap.difference("chair_s", index, 1)
        assert setting.result.intervals == bootstrap.intervals(index)
    assert not found.settings[0].result.differences and not found.settings[1].result.differences
    assert (found.id, found.revision, found.dtype, found.layers) == ("hub/llava-1.5", "a" * 40, "float16", 32)
    assert found.paper_model and not found.whole and found.subset.images == 12


def test_table4_is_the_ablations(tmp_path: Path, engine: SimpleNamespace, coco: Path) -> None:
    (found,) = run("table4", tmp_path, coco, ["minigpt4"])
    params = {setting.name: setting.params for setting in found.settings}
    preset = load_preset("minigpt4").method().parameters()
    assert params == {
        "baseline": {},
        "attention_output": preset | {"target": "attention_output"},
        "keys": preset | {"target": "k"},
        "constant": preset | {"lambda_ref": found.constant.chosen, "adaptive": False},
        "adaptive": preset,
    }
    assert preset["lambda_ref"] == 0.5 and preset["adaptive"] and {s.prompt for s in found.settings} == {PAPER}


def test_a_caption_is_paid_for_once_whichever_table_and_however_many_images(
    tmp_path: Path, engine: SimpleNamespace, coco: Path
) -> None:
    engine.stop_after = 37
    with pytest.raises(KeyboardInterrupt):
        run("table1", tmp_path, coco, images=6)
    engine.stop_after = None
    few = run("table1", tmp_path, coco, images=6)
    per_image = len(FACTORS) + len(("opera", "baseline", "constant", "adaptive", "pai", "sparc", "middle_layers"))
    assert len(engine.asked) == len(set(engine.asked)) == 6 * per_image
    assert engine.loaded[1:] == [("llava-1.5", "auto", "float16", "a" * 40)], "the weights that it was begun with"
    more = run("table1", tmp_path, coco)
    constants = {few[0].constant.chosen, more[0].constant.chosen}
    assert len(engine.asked) == len(set(engine.asked)) == 12 * per_image + 6 * (len(constants) - 1)
    before = len(engine.asked)
    run("table4", tmp_path, coco)
    assert len(engine.asked) == len(set(engine.asked)) == before + 2 * 12
    loaded, engine.absent = len(engine.loaded), {"llava-1.5"}
    assert run("table1", tmp_path, Path("/no such coco")) == more, "scored again from the disk alone"
    assert run("table1", tmp_path, Path("/no such coco"), images=6) == few
    assert len(engine.loaded) == loaded
    engine.absent = set()
    (tmp_path / "llava-1.5" / "ground_truth.json").unlink()
    assert run("table1", tmp_path, coco, images=6) == few and run("table1", tmp_path, coco) == more
    assert len(engine.asked) == before + 2 * 12


def test_progress_counts_captions_to_the_last(tmp_path: Path, engine: SimpleNamespace, coco: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    @contextlib.contextmanager
    def watch(what: str) -> Iterator[Any]:
        yield lambda pace: seen.setdefault(what, []).append((pace.there, pace.total))

    request = Request("table1", list(map(ModelOptions, ["llava-1.5", "minigpt4"])), 3, coco, tmp_path)
    notes: list[str] = []
    assert [found.model for _, found in reproduce(request, show, watch, notes.append)] == ["llava-1.5", "minigpt4"]
    assert list(seen) == ["llava-1.5 (1 of 2), captions", "minigpt4 (2 of 2), captions"]
    for what in seen:
        done = [each for each, _ in seen[what]]
        total = 3 * (16 if what.startswith("llava") else 14)
        assert done == sorted(done) and done[-1] == total and {t for _, t in seen[what]} == {total}
    assert notes == [f"{name}: captions are kept in {tmp_path / name}" for name in ("llava-1.5", "minigpt4")]


def test_killed_at_random_steps(tmp_path: Path, engine: SimpleNamespace, coco: Path) -> None:
    undisturbed = run("table1", tmp_path / "whole", coco, images=3)
    draw, kills = random.Random(0), 0
    while True:
        step = draw.randint(1, 60)
        ended = child(lambda step=step: (die_at(step), run("table1", tmp_path / "killed", coco, images=3)))  # type: ignore[misc]
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        kills += 1
        assert kills < 60
    assert kills >= 2
    assert run("table1", tmp_path / "killed", Path("/no such coco"), images=3) == undisturbed
    for path in (tmp_path / "whole").rglob("*.jsonl"):
        other = tmp_path / "killed" / path.relative_to(tmp_path / "whole")
        assert read_captions(other) == read_captions(path)
    assert not list((tmp_path / "killed" / "llava-1.5").glob(".reproduction*")), "nothing half-written stays"


def test_everything_is_looked_for_before_anything_is_done(tmp_path: Path, engine: SimpleNamespace, coco: Path) -> None:
    out = tmp_path / "out"
    engine.absent = {"minigpt4"}
    lacking = write_coco(tmp_path / "lacking", "val2014", [*OPERA_IDS, *OTHERS])
    (lacking / "val2014" / f"COCO_val2014_{OPERA_IDS[3]:012d}.jpg").unlink()
    refused: list[tuple[str, dict[str, Any]]] = [
        ("weights of minigpt4 are not on .* hf download hub/minigpt4", {"models": ["llava-1.5", "minigpt4"]}),
        ("unknown model 'x'", {"models": ["llava-1.5", "x"]}),
        ("the paper has no parameters for qwen2.5-vl.*kvtune search", {"models": ["qwen2.5-vl"]}),
        ("--models names no model", {"models": []}),
        ("llava-1.5 and llava-1.5 would both be kept", {"models": ["llava-1.5", "llava-1.5"]}),
        (r"--images must be from 1 to 500, the images of opera500, not 501", {"images": 501}),
        ("--images must be", {"images": 0}),
        ("--lanes must be auto", {"lanes": "0"}),
        ("--device cuda:7: PyTorch sees no", {"device": "cuda:7"}),
        (
            r"COCO folder .* does not exist.*"
            r"kvtune data download --to \S+/no-coco --subset opera500 --holdout-images 12 --seed 0$",
            {"coco": tmp_path / "no-coco"},
        ),
        (
            r"1 of 24 images are missing from .*val2014.*"
            r"kvtune data download --to \S+ --subset opera500 --holdout-images 12 --seed 0$",
            {"coco": lacking},
        ),
        ("400 tune images are needed beside opera500, but val2014 in .* has only 40; ask for fewer", {"images": 400}),
    ]
    for said, options in refused:
        with pytest.raises(RequestError, match=said):
            run("table1", out, **{"coco": coco} | options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=r"no COCO annotations.*--subset opera500 --holdout-images 12 --seed 0$"):
        run("table1", out, tmp_path / "empty")
    assert engine.loaded == [] and not out.exists()

    broken = write_coco(tmp_path / "broken", "val2014", [*OPERA_IDS, *OTHERS])
    (broken / "val2014" / f"COCO_val2014_{OPERA_IDS[3]:012d}.jpg").write_bytes(b"no image")
    with pytest.raises(RequestError, match="1 of 24 images cannot be read"):
        run("table1", out, broken)
    assert engine.loaded == []


def test_captions_of_other_weights_dtype_or_images_are_not_mixed(
    tmp_path: Path, engine: SimpleNamespace, coco: Path
) -> None:
    run("table1", tmp_path, coco, images=4)
    asked = len(engine.asked)
    with pytest.raises(RequestError, match='was begun with dtype "float16", but this command has "bfloat16"'):
        run("table1", tmp_path, coco, dtype="bfloat16")
    with pytest.raises(RequestError, match='begun with dtype "float16", but this command has "float16-4bit"'):
        run("table1", tmp_path, coco, load_in_4bit=True)
    run("table1", tmp_path / "quantized", coco, images=4, load_in_4bit=True)
    with pytest.raises(RequestError, match='begun with dtype "float16-4bit", but this command has "float16"'):
        run("table1", tmp_path / "quantized", coco, images=4, dtype="float16")
    run("table4", tmp_path / "quantized", coco, images=4)
    run("table4", tmp_path / "quantized", coco, images=5, load_in_4bit=True)
    assert [dtype for _, _, dtype, _ in engine.loaded] == ["auto", "auto", "float16-4bit", "float16-4bit"]
    asked = len(engine.asked)
    other = write_coco(tmp_path / "other", "val2014", [*OPERA_IDS, *OTHERS[1::2]])
    with pytest.raises(RequestError, match="was begun with other tune images than val2014-6-seed0"):
        run("table1", tmp_path, other, images=6)
    engine.revision = "b" * 40
    with pytest.raises(RequestError, match="revision"):
        run("table1", tmp_path, coco, images=6)
    with (
        locked(tmp_path / "llava-1.5"),
        pytest.raises(RequestError, match=r"reproduction llava-1.5 is in use by .* another --out folder"),
    ):
        run("table1", tmp_path, coco, images=4)
    manifest = tmp_path / "llava-1.5" / "reproduction.json"
    begun = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(begun | {"fingerprint": begun["fingerprint"] | {"model": "/elsewhere/llava-1.5"}}))
    with pytest.raises(RequestError, match=r'begun with model "/elsewhere/llava-1.5", but .* "hub/llava-1.5"'):
        run("table1", tmp_path, coco, images=4)
    manifest.write_text(json.dumps(begun | {"colour": 1}))
    with pytest.raises(RequestError, match="unknown key 'colour'"):
        run("table1", tmp_path, coco, images=4)
    manifest.unlink()
    with pytest.raises(RequestError, match=r"has captions but no reproduction.json; restore it"):
        run("table1", tmp_path, coco, images=4)
    manifest.write_text(json.dumps(begun))
    captions = tmp_path / "llava-1.5" / "captions" / "baseline.jsonl"
    captions.write_text(captions.read_text() + json.dumps(json.loads(captions.read_text().split("\n")[0])) + "\n")
    with pytest.raises(KvtuneError, match="has a caption already"):
        run("table1", tmp_path, coco, images=4)
    assert len(engine.asked) == asked


def test_the_command_is_stopped_and_goes_on(
    tmp_path: Path, engine: SimpleNamespace, coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reproduce", "table1", "--models", "llava-1.5,minigpt4", "--coco", str(coco)]
    arguments += ["--images", "3", "--out", str(tmp_path)]

    def command(*more: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *more])
        return int(ended.value.code or 0), *capsys.readouterr()

    engine.stop_after = 3 * 16 + 5  # five captions of the second model
    code, out, err = command()
    assert code == 130 and "stopped; no caption is lost. Go on with: kvtune" in err
    assert "KVSmooth, table 1 with llava-1.5 (hub/llava-1.5, aaaaaaaaaaaa, float16): the first 3" in " ".join(
        out.split()
    )
    assert "minigpt4" not in out and (tmp_path / "llava-1.5" / "table1.md").exists()
    engine.stop_after = None
    code, out, err = command("--json", "-q")
    assert (code, err) == (0, "") and len(engine.asked) == 3 * 16 + 3 * 14
    models = json.loads(out)["models"]
    assert [model["model"] for model in models] == ["llava-1.5", "minigpt4"]
    assert models[1]["settings"][1]["reported"]["scores"] == {"chair_s": 31.8, "f1": 69.9}


def test_a_larger_model_takes_its_familys_parameters_and_no_reported_numbers(
    tmp_path: Path, engine: SimpleNamespace, coco: Path
) -> None:
    (found,) = run("table1", tmp_path, coco, ["llava-1.5-13b"], images=2)
    adaptive = found.setting("adaptive")
    assert adaptive is not None and adaptive.params == LLAVA | {"start_layer": 3, "end_layer": 39}
    assert not found.paper_model and found.layers == 40


@pytest.mark.parametrize("name", preset_names())
@given(layers=st.integers(1, 100))
def test_published_parameters_fit_every_model(name: str, layers: int) -> None:
    preset = load_preset(name)
    found = published_parameters(preset, layers)
    method = KVSmooth.from_parameters(found)
    method.check_layers(layers)
    if layers == preset.model.layers:
        assert found == preset.parameters
    elif layers >= 7:
        assert (method.start_layer, method.end_layer) == (3, layers - 1)
    assert {k: v for k, v in found.items() if "layer" not in k} == {
        k: v for k, v in preset.parameters.items() if "layer" not in k
    }


def test_the_factor_with_the_highest_f1_is_chosen() -> None:
    assert list(LAMBDAS) == FACTORS

    def chosen(*scores: tuple[float, float, float]) -> float:
        return choose_factor({factor: scores_at(chair_s, f1) for factor, f1, chair_s in scores})

    assert chosen((0.1, 70.0, 40.0), (0.2, 75.0, 45.0), (0.3, 74.9, 10.0)) == 0.2
    assert chosen((0.1, 75.0, 40.0), (0.2, 75.0, 35.0), (0.3, 70.0, 10.0)) == 0.2
    assert chosen((0.3, 75.0, 35.0), (0.2, 75.0, 35.0)) == 0.2

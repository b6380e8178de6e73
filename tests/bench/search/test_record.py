"""The recorder, with the engine and the demo model."""

import json
import signal
import sys
import time

import numpy as np
import pytest
from forked import Forked

from kvtune.bench.search import record as recorder
from kvtune.bench.search.record import record
from kvtune.bench.search.settings import POOL_AXES, grid_settings, methods_of
from kvtune.bench.search.table import KEPT, Table, load_table
from kvtune.chair import ChairScorer
from kvtune.errors import RequestError

SETTINGS = grid_settings(
    {
        "lambda_ref": (0.0, 0.5), "queue_length": (4, 15), "clip_width": (0.0, 0.2), "start_layer": (1,),
        "end_layer": (7,),
    }
)  # fmt: skip
SCENES = [910_003, 910_007]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "table.npz"
    return path, record(path, SETTINGS, SCENES, "cpu")


@pytest.mark.slow
def test_outcomes_are_those_of_generate(recorded):
    """One caption at a time by ``generate()``, of every setting, also of those that are one method."""
    import torch
    from PIL import Image

    from kvtune.demo.descriptions import reference_captions
    from kvtune.demo.scenes import render
    from kvtune.methods import KVSmooth
    from kvtune.models import load_model

    path, table = recorded
    again = load_table(path)
    np.testing.assert_array_equal(again.outcomes, table.outcomes)
    assert list(table.truth) == SCENES
    vlm = load_model("demo", device="cpu", dtype="float32")
    for place, scene in list(enumerate(SCENES))[-1:]:
        rendered = render(0, scene)
        assert {one.category for one in rendered.objects} <= set(table.truth[scene])
        assert reference_captions(np.random.default_rng([0, scene, 2]), rendered)
        file = path.parent / f"{scene}.jpg"
        Image.fromarray(rendered.pixels).save(file, quality=95, subsampling=0)
        inputs = vlm.prepare([Image.open(file).convert("RGB")])
        scorer = ChairScorer({scene: table.truth[scene]})
        for method, setting in zip([0, *table.which.tolist()], [None, *SETTINGS], strict=True):
            if setting is None:
                tokens = vlm.hf_model.generate(**inputs, max_new_tokens=128, do_sample=False)
            else:
                with KVSmooth(**setting)(vlm.hf_model), torch.inference_mode():
                    tokens = vlm.hf_model.generate(**inputs, max_new_tokens=128, do_sample=False)
            new = tokens[0, inputs["input_ids"].shape[1] :].tolist()
            ended = new[-1] in vlm.eos_token_ids
            text = vlm.decode(new[:-1] if ended else new)
            details = scorer.details([{"image_id": scene, "caption": text}])[0]
            expected = {
                "mentions": len(details["mentioned"]),
                "hallucinated_mentions": len(details["hallucinated"]),
                "mentioned": len(set(details["mentioned"])),
                "correct": len(details["correct"]),
                "words": details["words"],
                "at_limit": int(not ended),
            }
            assert dict(zip(KEPT, table.outcomes[place, method].tolist(), strict=True)) == expected


@pytest.fixture
def asked(monkeypatch):
    """The scenes that are captioned."""
    scenes_asked = []
    outcomes = recorder._outcomes
    monkeypatch.setattr(
        recorder,
        "_outcomes",
        lambda writer, made, scenes, pace: scenes_asked.extend(scenes) or outcomes(writer, made, scenes, pace),
    )
    return scenes_asked


def test_goes_on_where_it_stopped(recorded, tmp_path, asked):
    path = tmp_path / "table.npz"
    record(path, SETTINGS, SCENES[:1], "cpu")
    lines = path.with_name("table.npz.jsonl")
    with lines.open("a") as file:
        file.write('{"image_id": 910007, "tru')  # a write cut short
    asked.clear()
    table = record(path, SETTINGS, SCENES, "cpu")
    assert asked == SCENES[1:]
    np.testing.assert_array_equal(table.outcomes, recorded[1].outcomes)
    assert table.truth == recorded[1].truth and load_table(path).recorded == recorded[1].recorded
    record(path, SETTINGS, SCENES[:1], "cpu")
    assert asked == SCENES[1:] and list(load_table(path).truth) == SCENES[:1]


def test_a_table_without_its_lines_is_gone_on_with(recorded, tmp_path, asked):
    path = tmp_path / "table.npz"
    whole = recorded[1]
    Table(whole.recorded, {SCENES[0]: whole.truth[SCENES[0]]}, whole.outcomes[:1]).save(path)
    table = record(path, SETTINGS, SCENES, "cpu")
    assert asked == SCENES[1:]
    np.testing.assert_array_equal(table.outcomes, recorded[1].outcomes)
    assert table.truth == recorded[1].truth
    other = tmp_path / "other.npz"
    recorded[1].save(other)
    with pytest.raises(RequestError, match="begun with other settings"):
        record(other, SETTINGS[:2], SCENES, "cpu")


@pytest.mark.slow
def test_a_killed_recording_keeps_whole_images(tmp_path):
    path = tmp_path / "table.npz"
    lines = path.with_name("table.npz.jsonl")
    process = Forked(record, path, grid_settings(POOL_AXES)[:3], range(920_001, 920_031), "cpu")
    until = time.monotonic() + 120
    while not (lines.exists() and lines.read_bytes().count(b"\n") > 2) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    first, *done = [json.loads(line) for line in lines.read_bytes().split(b"\n")[:-1]]
    assert first["format"] == "kvtune-outcomes/1" and 1 < len(done) < 30 and not path.exists()
    record(path, grid_settings(POOL_AXES)[:3], range(920_001, 920_004), "cpu")
    assert list(load_table(path).truth) == [920_001, 920_002, 920_003]
    assert [json.loads(line) for line in lines.read_text().splitlines()][: 1 + len(done)] == [first, *done]


def test_command(tmp_path, monkeypatch, capsys):
    command = ["record", "--set", "pool", "--out", str(tmp_path / "pool.npz"), "--images"]
    monkeypatch.setattr(sys, "argv", [*command, "1"])
    recorder.main()
    assert "1 of 1 scenes" in capsys.readouterr().out
    table = load_table(tmp_path / "pool.npz")
    assert table.outcomes.shape == (1, 21, len(KEPT)) and list(table.truth) == [920_001]
    monkeypatch.setattr(sys, "argv", [*command, "0"])
    with pytest.raises(SystemExit) as refused:
        recorder.main()
    assert refused.value.code == 2 and capsys.readouterr().err.splitlines() == ["--images must be at least 1"]


def test_what_was_begun_otherwise_is_refused(recorded, tmp_path):
    path = tmp_path / "table.npz"
    path.with_name("table.npz.jsonl").write_bytes(recorded[0].with_name("table.npz.jsonl").read_bytes())
    with pytest.raises(RequestError, match="begun with other settings"):
        record(path, SETTINGS[:-1], SCENES, "cpu")
    with pytest.raises(RequestError, match="at least 1"):
        record(path, SETTINGS, [], "cpu")


def test_settings_that_are_one_method_are_recorded_once(recorded):
    methods, _ = methods_of(SETTINGS)
    assert recorded[1].outcomes.shape == (2, len(methods), len(KEPT)) and len(methods) == 1 + 2 + 1 + 2

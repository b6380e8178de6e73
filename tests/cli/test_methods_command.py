"""``kvtune methods``: what can be tuned, for people and for programs."""

import json
import subprocess
import sys
from typing import Any

import pytest

from kvtune.cli.main import main
from kvtune.methods import get_method, method_names


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["methods", *arguments])
    assert not ended.value.code
    return capsys.readouterr().out


@pytest.fixture
def documents(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return {document["name"]: document for document in json.loads(run(capsys, "--json"))}


def test_every_method_with_its_parameters(documents: dict[str, Any]) -> None:
    assert list(documents) == method_names()
    for name, document in documents.items():
        method = get_method(name)
        assert [parameter["name"] for parameter in document["parameters"]] == list(method.declared())
        assert document["acts_from"] == method.acts_from
    layers = documents["vaf"]["parameters"][2]
    assert (layers["name"], layers["kind"], layers["default"]) == ("start_layer", "start_layer", 9)
    assert layers["layer_split"] == 0.375
    searched = documents["kvsmooth"]["parameters"][1]["search"]
    assert searched == {"low": 2, "high": 64, "step": None, "log": True}
    assert documents["ad_hh"]["parameters"][0]["default"] is None


def test_published_settings_have_their_source(documents: dict[str, Any]) -> None:
    assert documents["middle_layers"]["published"] == [
        {
            "model": "llava-1.5",
            "parameters": {"alpha": 0.5, "start_layer": 5, "end_layer": 19},
            "source": "code of ZhangqiJiang07/middle_layers",
        }
    ]
    shipped = {one["model"]: one["source"] for one in documents["kvsmooth"]["published"]}
    assert shipped["llava-1.5"] == "the preset llava-1.5 that ships"


@pytest.mark.parametrize("width", [80, 140])
def test_all_of_it_at_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, documents: dict[str, Any], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = run(capsys)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    for name, document in documents.items():
        part = text[text.index(f"{name}: acts") :]
        assert all(f"  {parameter['name']} " in part for parameter in document["parameters"])
        assert all(f"published for {one['model']}" in part for one in document["published"])


def test_it_needs_nothing_heavy() -> None:
    code = (
        "import sys\nfrom kvtune.cli.main import main\ntry: main(['methods'])\nexcept SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'optuna', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0

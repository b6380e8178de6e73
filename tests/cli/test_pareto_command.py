"""``kvtune pareto``, ``compare`` and ``dashboard`` as their users run them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from commands import kvtune
from PIL import Image
from study_folders import write_study
from synthetic_studies import random_study, study, trial

from kvtune.cli.main import main
from kvtune.report.dashboard import dashboard_storage
from kvtune.study.study_folder import StudyFolder

KVTUNE = [sys.executable, "-m", "kvtune.cli.main"]


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A folder of studies: one of 50 trials, another model, one just begun."""
    folder = tmp_path_factory.mktemp("studies")
    write_study(folder, random_study(50, failed=2, running=1))
    write_study(folder, replace(random_study(8, seed=5), study="minigpt4-kvsmooth", model="minigpt4"))
    write_study(folder, study([trial(0, 50, 50, "running", lambda_ref=0.5)], None, name="begun"))
    os.utime(folder / "llava15-kvsmooth" / "study.json", (2e9, 2e9))
    return folder


def process(*arguments, cwd, **environment):
    variables = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return subprocess.run(
        [*KVTUNE, *map(str, arguments)],
        cwd=cwd,
        env=variables | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def run_here(capsys, *arguments):
    """Exit code, stdout and stderr of a command run in this process."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    ran = capsys.readouterr()
    return ended.value.code or 0, ran.out, ran.err


def refused(capsys, *arguments):
    """The one line with which a wrong request is refused, run in this process."""
    code, out, err = run_here(capsys, *arguments)
    assert code == 2 and out == "" and err.count("\n") == 1
    return err


def test_pareto_shows_the_latest_study_and_writes_its_report(studies):
    ran = process("pareto", "--studies-dir", studies, cwd=studies, COLUMNS="80")
    assert ran.returncode == 0, ran.stderr
    assert "llava15-kvsmooth" in ran.stdout and "★" in ran.stdout and "CHAIR_S" in ran.stdout
    assert "\x1b" not in ran.stdout + ran.stderr and max(map(len, ran.stdout.split("\n"))) <= 80
    report = studies / "llava15-kvsmooth" / "report"
    written = {line.removeprefix("wrote ") for line in ran.stderr.split("\n") if line}
    assert written == {str(path) for path in report.iterdir()}
    assert {"front.png", "front.svg", "trials.csv"} <= {path.name for path in report.iterdir()}


def test_json_is_one_document_and_writes_nothing(studies, capsys):
    code, out, err = run_here(capsys, "pareto", "minigpt4-kvsmooth", "--studies-dir", studies, "--json")
    document = json.loads(out)
    assert code == 0 and err == "" and document["study"] == "minigpt4-kvsmooth"
    assert len(document["trials"]) == 8 and set(document["front"]) <= set(range(8))
    assert not (studies / "minigpt4-kvsmooth" / "report").exists()


def test_files_go_where_they_are_asked(studies, tmp_path, capsys):
    asked = ("pareto", "minigpt4-kvsmooth", "--studies-dir", studies, "--json", "--out", tmp_path / "a")
    code, out, _ = run_here(capsys, *asked)
    assert code == 0 and json.loads(out)
    assert (tmp_path / "a" / "front.png").exists() and not (studies / "minigpt4-kvsmooth" / "report").exists()


def test_page_outcomes_and_overlay_of_a_study_with_captions(tmp_path, capsys):
    truth = {image: {"dog"} for image in (11, 12, 13)}
    texts = {None: dict.fromkeys(truth, "A dog and a cat."), 0: dict.fromkeys(truth, "A </script> dog.")}
    summary = study([trial(0, 0, 100, lambda_ref=0.5)], trial(None, 100, 67))
    write_study(tmp_path / "studies", summary, texts, truth, coco=tmp_path / "coco")
    (tmp_path / "coco" / "val2014").mkdir(parents=True)
    annotations = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "dog", "supercategory": "animal"}]}
    for image in truth:
        name = f"COCO_val2014_{image:012d}.jpg"
        Image.new("RGB", (200, 100), "green").save(tmp_path / "coco" / "val2014" / name)
        annotations["images"].append({"id": image, "file_name": name, "width": 200, "height": 100})
    (tmp_path / "coco" / "instances_val2014.json").write_text(json.dumps(annotations))
    (tmp_path / "coco" / "captions_val2014.json").write_text(json.dumps({**annotations, "categories": []}))
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{"image_id": image, "caption": "A dog and a bus."} for image in truth]))

    ran = kvtune("pareto", "--html", "--images", "--outcomes", "--overlay", other, "--overlay", "paper", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "◇ other" in ran.stdout and "reported, other images" in ran.stdout
    report = tmp_path / "studies" / summary.study / "report"
    assert len((report / "outcomes.csv").read_text().splitlines()) == 7
    page = (report / "pareto.html").read_text()
    assert "A </script> dog" not in page and '"label":"other"' in page

    assert f"kvtune export {summary.study} --select" in page

    studies = ("--studies-dir", tmp_path / "studies")
    run_here(capsys, "pareto", "--html", *studies)
    assert f"kvtune export {report.parent} --select" in (report / "pareto.html").read_text()
    code, out, _ = run_here(capsys, "pareto", "--json", "--html", *studies)
    assert code == 0 and json.loads(out)["chosen"]["trial"] == 0
    other.write_text(json.dumps([{"image_id": 11, "caption": "A dog."}]))
    assert "covers 1 of the study's 3 tune images" in refused(capsys, "pareto", "--overlay", other, *studies)
    assert "--html --images" in refused(capsys, "pareto", "--images", *studies)


def test_a_study_just_begun(studies, tmp_path, capsys):
    code, out, _ = run_here(capsys, "pareto", "begun", "--studies-dir", studies, "--out", tmp_path)
    assert code == 0 and "not judged yet" in out and (tmp_path / "front.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "there is no study 'nope'"),
        (["--select", "best"], "--select knows no 'best'"),
        (["--select", "trial:99"], "has no trial '99'"),
    ],
)
def test_wrong_requests_are_one_line(studies, arguments, words, capsys):
    assert words in refused(capsys, "pareto", *arguments, "--studies-dir", studies)


def test_an_unwritable_folder_is_one_line_and_nothing_else(studies, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    asked = ("pareto", "minigpt4-kvsmooth", "--studies-dir", studies, "--out", tmp_path / "file")
    code, out, err = run_here(capsys, *asked)
    assert (code, out) == (2, "")
    assert "cannot write" in err and err.count("\n") == 1


@pytest.mark.parametrize("command", ["pareto", "compare"])
def test_where_a_study_cannot_be_written_what_is_asked_for_is_shown(command, studies, tmp_path, capsys):
    study_folder = tmp_path / "read-only"
    shutil.copytree(studies / "minigpt4-kvsmooth", study_folder, ignore=shutil.ignore_patterns("report"))
    (study_folder / "report").write_text("in the way of the folder")  # in root's too, whom no permission stops
    code, out, err = run_here(capsys, command, study_folder)
    assert code == 0 and "baseline" in out
    assert err.startswith("warning: not written: cannot write") and err.endswith("(--out DIR)\n")
    assert err.count("\n") == 1
    for asked in (["--json"], ["--out", tmp_path / "else"]):
        code, _, err = run_here(capsys, command, study_folder, *asked)
        assert code == 0 and "warning" not in err
    for asked in ["--out", study_folder / "report"], *([["--html"], ["--parquet"]] if command == "pareto" else []):
        assert "is not a folder" in refused(capsys, command, study_folder, *asked)


def test_a_preset_that_cannot_be_written_is_refused(studies, tmp_path, capsys):
    study_folder = tmp_path / "read-only"
    shutil.copytree(studies / "minigpt4-kvsmooth", study_folder, ignore=shutil.ignore_patterns("presets"))
    (study_folder / "presets").write_text("in the way of the folder")
    for asked in ([], ["--out", study_folder / "presets" / "mine.json"]):
        assert "is not a folder" in refused(capsys, "export", study_folder, *asked)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{}")], ids=["gone", "damaged"])
def test_what_can_be_made_anew_is_said_with_the_command(damage, studies, tmp_path, capsys):
    study_folder = tmp_path / "study"
    shutil.copytree(studies / "minigpt4-kvsmooth", study_folder)
    (study_folder / "report" / "validation.json").parent.mkdir(exist_ok=True)
    (study_folder / "report" / "validation.json").write_text("{")
    assert f"kvtune validate {study_folder} writes it anew" in refused(capsys, "pareto", study_folder)
    (study_folder / "report" / "validation.json").unlink()
    (study_folder / "ground_truth.json").write_text("{}")
    damage(study_folder / "ground_truth.json")
    for command in (["rescore"], ["pareto", "--outcomes"]):
        refusal = run_here(capsys, *command, study_folder)[2]
        assert f"kvtune rescore {study_folder} --coco DIR makes it anew" in refusal


def test_no_torch_is_imported(studies):
    code = (
        "import sys; from kvtune.cli.main import main\n"
        f"try: main(['pareto', '--studies-dir', {str(studies)!r}, '--json'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'optuna', 'matplotlib', 'pandas'} & set(sys.modules), 'heavy import'"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, timeout=60).returncode == 0


def test_compare_shows_all_and_writes_one_picture(studies, tmp_path, capsys):
    names = ["llava15-kvsmooth", "minigpt4-kvsmooth"]
    ran = kvtune("compare", *names, "--studies-dir", studies, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert all(name in ran.stdout for name in names)
    assert list(tmp_path.iterdir()) == [], "nothing of it is written where the command was given"
    written = {"compare.png", "compare.svg", "compare.csv"}
    assert {path.name for path in (studies / names[0] / "report").glob("compare.*")} == written
    ran = kvtune("compare", *names, "--studies-dir", studies, "--out", "new/folder", cwd=tmp_path)
    assert ran.returncode == 0 and {path.name for path in (tmp_path / "new" / "folder").iterdir()} == written
    _, out, _ = run_here(capsys, "compare", *names, "--studies-dir", studies, "--json")
    assert [entry["study"] for entry in json.loads(out)["studies"]] == names
    assert "there is no study 'nope'" in refused(capsys, "compare", "nope", "--studies-dir", studies)
    again = [names[0], names[1], studies / names[0]]
    assert f"study {names[0]} is named twice" in refused(capsys, "compare", *again, "--studies-dir", studies)


def test_dashboard_names_what_is_missing(studies, monkeypatch):
    folder = StudyFolder(studies / "begun")
    with pytest.raises(Exception, match=r"pip install|kvtune rescore \S*begun"):
        dashboard_storage(folder)
    monkeypatch.setattr("kvtune.report.dashboard.find_spec", lambda name: None)
    with pytest.raises(Exception, match=r'pip install "kvtune\[dashboard\]"'):
        dashboard_storage(folder)
    monkeypatch.setattr("kvtune.report.dashboard.find_spec", lambda name: object())
    assert dashboard_storage(folder, "sqlite:///x.db") == "sqlite:///x.db"


def test_dashboard_serves_the_study(studies, tmp_path):
    pytest.importorskip("optuna_dashboard", reason="needs the extra 'dashboard'")
    import optuna

    study_folder = tmp_path / "served"
    shutil.copytree(studies / "begun", study_folder)
    optuna.create_study(
        storage=f"sqlite:///{study_folder / 'study.db'}", study_name="served", directions=["minimize", "maximize"]
    )
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*KVTUNE, "dashboard", str(study_folder), "--port", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"http://localhost:{port}/api/studies", timeout=5) as answer:
                    found = json.load(answer)["study_summaries"]
                break
            except OSError:
                time.sleep(0.2)
        assert [each["study_name"] for each in found] == ["served"]
    finally:
        process.terminate()
        process.wait(10)

"""Every command with names, questions and captions that a console, a shell or a database could take for its own."""

import json
import re
import shlex
from pathlib import Path

import pytest

from kvtune.cli.main import main, root
from kvtune.demo import demo_model_path
from kvtune.demo.coco import FIRST_ID, write_coco
from kvtune.study.caption_log import read_captions
from kvtune.text import visible

ODD = "odd ?a=%41&b#[red]{x}'[/b]"
CONTROLS = "\x1b[31m\x1b]0;x\x07\r\x9b2J\u202e"
PROMPT = f"Say [/b] [red]this[/] :smile: 50 % {CONTROLS}"
STUDY = "odd-study"

pytestmark = pytest.mark.skipif(
    not (demo_model_path() / "model.safetensors").exists(), reason="the demo model's weights are not there"
)


class World:
    """Folders with odd names, and commands run in them."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.folder = top / ODD
        self.coco = self.folder / f"coco {CONTROLS}"
        self.studies = self.folder / "studies"

    def search(self, trials: int) -> list[object]:
        return [
            *("search", "--model", "demo", "--coco", self.coco, "--images", 4, "--holdout-images", 2),
            *("--trials", trials, "--parallel-trials", 2, "--max-new-tokens", 4, "--prompt", PROMPT),
            *("--studies-dir", self.studies, "--study", STUDY, "--sampler", "random"),
        ]

    def study(self, command: str, *more: object) -> list[object]:
        return [command, STUDY, "--studies-dir", self.studies, *more]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; whatever is printed holds nothing that a terminal obeys."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert visible(out + err) == out + err
    assert "Traceback" not in err
    return int(ended.value.code or 0), out, err


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A study of the demo, searched where every name is odd; the baseline's captions are odd too."""
    made = World(tmp_path_factory.mktemp("world"))
    made.coco.mkdir(parents=True)
    write_coco(made.coco, range(FIRST_ID, FIRST_ID + 8), 0)
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in made.search(2)])
    assert not ended.value.code
    log = made.studies / STUDY / "captions" / "baseline.jsonl"
    lines = [json.loads(line) | {"caption": f"A dog [/b] [red] {CONTROLS}"} for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in made.study("rescore")])
    assert not ended.value.code
    return made


def databases(world: World) -> list[Path]:
    return sorted(path.relative_to(world.studies) for path in world.top.rglob("*.db*"))


def test_one_database_where_the_folder_is(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert databases(world) == [Path(STUDY, "study.db")]
    assert run(capsys, *world.search(3))[0] == 0
    assert databases(world) == [Path(STUDY, "study.db")]
    assert run(capsys, *world.study("rescore"))[0] == 0
    assert databases(world) == [Path(STUDY, "study.db")]
    assert [path.name for path in world.top.iterdir()] == [Path(ODD).parts[0]]
    manifest = json.loads((world.studies / STUDY / "study.json").read_text())
    assert manifest["fingerprint"]["prompt"] == PROMPT and manifest["coco"] == str(world.coco)


def test_a_storage_where_the_folder_is(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    from kvtune.study.study_folder import StudyFolder
    from kvtune.text import sqlite_url

    pytest.importorskip("optuna_dashboard")
    from kvtune.report.dashboard import dashboard_storage

    folder = StudyFolder(world.studies / STUDY)
    assert dashboard_storage(folder) == sqlite_url(folder.database)


COMMANDS = {
    "pareto": lambda w: w.study("pareto", "--html", "--images", "--outcomes"),
    "pareto overlay": lambda w: w.study("pareto", "--overlay", overlay(w), "--out", w.folder / f"out {CONTROLS}"),
    "pareto json": lambda w: w.study("pareto", "--json"),
    "compare": lambda w: ["compare", w.studies / STUDY, "--out", w.folder / "[b] $x$"],
    "validate": lambda w: w.study("validate", "--coco", w.coco),
    "sensitivity": lambda w: w.study("sensitivity", "--points", 2, "--parameter", "lambda_ref", "--coco", w.coco),
    "export": lambda w: w.study("export", "--select", "trial:0", "--out", w.folder / f"[b]{CONTROLS}.json"),
    "rescore": lambda w: w.study("rescore", "--coco", w.coco),
    "studies": lambda w: ["studies", "--studies-dir", w.studies],
    "no studies": lambda w: ["studies", "--studies-dir", w.folder / f"none [/b] {CONTROLS}"],
    "score": lambda w: ["score", overlay(w), "--coco", w.coco, "--details", w.folder / f"[b]{CONTROLS}.jsonl"],
    "data subset": lambda w: [
        *("data", "subset", "--coco", w.coco, "--images", 2, "--name", f"[b]{CONTROLS}"),
        *("--out", w.folder / f"subset [b]{CONTROLS}.json"),
    ],
    "data ground-truth": lambda w: [
        *("data", "ground-truth", "--coco", w.coco, "--out", w.folder / f"truth [b]{CONTROLS}.json"),
    ],
    "caption": lambda w: [
        *("caption", picture(w), "--model", "demo", "--coco", w.coco, "--max-new-tokens", 4, "--prompt", PROMPT),
    ],
    "models check": lambda w: [
        *("models", "check", "demo", "--image", picture(w), "--prompt", PROMPT, "--max-new-tokens", 4),
    ],
    "doctor": lambda w: ["doctor", "--coco", w.folder / f"none [/b]{CONTROLS}", "--studies-dir", w.studies],
    "models": lambda w: ["models"],
    "methods": lambda w: ["methods"],
    "bench score": lambda w: ["bench", "score", "--captions", 20],
    "bench cluster": lambda w: ["bench", "cluster", "--workers", 2, "--trials", 1, "--images", 4],
}


def picture(world: World) -> Path:
    return world.coco / "val2014" / f"COCO_val2014_{FIRST_ID:012d}.jpg"


def overlay(world: World) -> Path:
    """Captions of the study's images, in a file with an odd name."""
    path = world.folder / f"$x$ [b] {CONTROLS}.jsonl"
    lines = read_captions(world.studies / STUDY / "captions" / "baseline.jsonl").values()
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_goes_through(world: World, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = COMMANDS[command](world)
    code, out, err = run(capsys, *words)
    assert code == (1 if command == "doctor" and "failed" in out else 0), err
    assert databases(world) == [Path(STUDY, "study.db")]
    for word in words:
        if isinstance(word, Path) and word.suffix in (".json", ".jsonl") and word.is_file() and "wrote" in out + err:
            assert word.stem in (overlay(world).stem,) or visible(str(word)) in out + err


REFUSED = {
    "study": lambda w, odd: ["pareto", odd, "--studies-dir", w.studies],
    "studies dir": lambda w, odd: ["pareto", "--studies-dir", w.folder / odd],
    "model": lambda w, odd: ["search", "--model", odd],
    "search study": lambda w, odd: ["search", "--model", "demo", "--study", odd],
    "search space": lambda w, odd: ["search", "--model", "demo", "--space", w.folder / odd],
    "search subset": lambda w, odd: ["search", "--model", "demo", "--subset", odd],
    "search coco": lambda w, odd: ["search", "--model", "demo", "--coco", w.folder / odd],
    "search device": lambda w, odd: ["search", "--model", "demo", "--device", odd],
    "search dtype": lambda w, odd: ["search", "--model", "demo", "--dtype", odd],
    "search lanes": lambda w, odd: ["search", "--model", "demo", "--lanes", odd],
    "search storage": lambda w, odd: ["search", "--model", "demo", "--storage", odd],
    "studies delete": lambda w, odd: ["studies", "delete", odd, "--studies-dir", w.studies, "--yes"],
    "studies rename": lambda w, odd: ["studies", "rename", odd, "new", "--studies-dir", w.studies],
    "tournament": lambda w, odd: ["tournament", "--model", "demo", "--methods", odd],
    "search method": lambda w, odd: ["search", "--model", "demo", "--method", odd],
    "search from": lambda w, odd: ["search", "--model", "demo", "--from", odd],
    "search timeout": lambda w, odd: ["search", "--model", "demo", "--timeout", odd],
    "search floor": lambda w, odd: ["search", "--model", "demo", "--min-f1", odd],
    "select": lambda w, odd: w.study("pareto", "--select", odd),
    "overlay": lambda w, odd: w.study("pareto", "--overlay", odd),
    "compare": lambda w, odd: ["compare", odd],
    "export": lambda w, odd: w.study("export", "--select", odd),
    "sensitivity": lambda w, odd: w.study("sensitivity", "--parameter", odd),
    "rescore": lambda w, odd: w.study("rescore", "--storage", odd),
    "dashboard": lambda w, odd: ["dashboard", odd],
    "caption image": lambda w, odd: ["caption", w.folder / odd, "--model", "demo"],
    "caption preset": lambda w, odd: ["caption", picture(w), "--model", "demo", "--preset", odd],
    "caption truth": lambda w, odd: ["caption", picture(w), "--model", "demo", "--ground-truth", w.folder / odd],
    "score": lambda w, odd: ["score", w.folder / odd],
    "score truth": lambda w, odd: ["score", overlay(w), "--ground-truth", w.folder / odd],
    "data subset": lambda w, odd: ["data", "subset", "--coco", w.coco, "--images", 1, "--out", "x", "--source", odd],
    "data download": lambda w, odd: ["data", "download", "--subset", odd],
    "data url": lambda w, odd: ["data", "download", "--base-url", odd, "--to", w.folder / "new"],
    "data truth": lambda w, odd: ["data", "ground-truth", "--coco", w.coco, "--subset", odd, "--out", "x"],
    "models check": lambda w, odd: ["models", "check", odd],
    "models convert": lambda w, odd: [
        *("models", "convert", "minigpt4", "--vicuna", w.folder / odd, "--eva", odd),
        *("--qformer", odd, "--checkpoint", odd, "--out", w.folder / "new"),
    ],
    "bench engine": lambda w, odd: ["bench", "engine", "--model", odd],
    "bench search": lambda w, odd: ["bench", "search", "--arm", odd],
    "bench table": lambda w, odd: ["bench", "search", "--table", w.folder / odd],
    "reproduce": lambda w, odd: ["reproduce", "table1", "--models", odd, "--out", w.folder / "new"],
    "reproduce dtype": lambda w, odd: ["reproduce", "table1", "-m", "demo", "--dtype", odd, "--out", w.folder / "new"],
    "unknown option": lambda w, odd: ["studies", f"--{odd}"],
    "extra argument": lambda w, odd: ["studies", odd],
    "command": lambda w, odd: [odd],
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_what_is_refused_is_said_exactly_in_one_line(
    world: World, wrong: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    odd = f"odd[/b][red] {CONTROLS} ?%41"
    code, out, err = run(capsys, *REFUSED[wrong](world, odd))
    assert (code, out) == (2, "")
    *steps, line = err.splitlines()
    assert line.startswith("kvtune: ") and (not steps or wrong == "models convert")
    shown = visible(odd)
    if wrong != "bench engine":  # which looks for COCO first
        assert shown in line or shown.replace("\\r", "\\x0d") in line  # Typer writes this one itself
    assert list(tmp_path.iterdir()) == [] and not (world.folder / "new").exists()
    assert databases(world) == [Path(STUDY, "study.db")]


LONG = "x" * 300


@pytest.mark.parametrize("wrong", REFUSED)
def test_names_that_no_file_can_have_are_refused_in_a_short_line(
    world: World, wrong: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for odd in (LONG, "un\udcffdecodable", f"{'y/' * 3000}"):
        code, out, err = run(capsys, *REFUSED[wrong](world, odd))
        assert (code, out) == (2, ""), odd
        assert (err.count("\n") == 1 or wrong == "models convert") and len(err) < 1000, odd
        assert "x" * 110 not in err
        assert list(tmp_path.iterdir()) == [] and not (world.folder / "new").exists()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("kvtune.search.session.search", lambda w: w.search(50)),
        ("kvtune.analysis.validate.validate", lambda w: w.study("validate", "--coco", w.coco)),
        ("kvtune.analysis.sensitivity.sensitivity", lambda w: w.study("sensitivity", "--coco", w.coco)),
        ("kvtune.reproduce.reproduce", lambda w: ["reproduce", "table1", "--coco", w.folder / "[/b]"]),
    ],
    ids=["search", "validate", "sensitivity", "reproduce"],
)
def test_the_command_to_go_on_with_is_the_one_that_was_given(world, module, words, capsys, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, interrupted)
    plain = [re.sub(r"[^ -~]", "", str(word)) for word in words(world)]
    monkeypatch.setattr("sys.argv", ["kvtune", *plain])
    code, _, err = run(capsys, *plain)
    assert code == 130
    assert shlex.split(err.strip().partition("Go on with: ")[2]) == ["kvtune", *plain]

    secret = [*plain, "--storage", "postgresql://me:SECRET@host/db?sslpassword=SECRET"]
    monkeypatch.setattr("sys.argv", ["kvtune", *secret])
    err = run(capsys, *plain)[2]
    assert "SECRET" not in err and "postgresql://me:***@host/db" in err


def test_the_walk_knows_every_command(world: World) -> None:
    """Those that listen, go to the network or are asked for in other words are refused above."""
    commands = root().commands
    there = {(name, sub) for name, each in commands.items() for sub in getattr(each, "commands", {})}
    there |= {(name,) for name, each in commands.items() if not getattr(each, "commands", {})}
    walked = [make(world) for make in COMMANDS.values()] + [make(world, "odd") for make in REFUSED.values()]
    words = {tuple(map(str, each[: 1 if (each[0],) in there else 2])) for each in [*walked, world.search(1)]}
    assert there <= words

"""--revision, --load-in-4bit, --device and the like on every command that loads a model."""

import pytest

from kvtune.cli.main import main, root
from kvtune.coco import CocoFolder
from kvtune.demo import demo_coco
from kvtune.models import options


@pytest.fixture(scope="module")
def picture():
    folder = CocoFolder(demo_coco())
    return folder.image_paths(folder.image_ids("val2014")[:1])[0]


@pytest.fixture(params=["search", "caption", "models check", "bench engine"])
def run(request, picture, tmp_path, monkeypatch, capsys):
    """One of the commands on the demo, with more options."""
    monkeypatch.chdir(tmp_path)
    commands = {
        "search": ["search", "--model", "demo", "--trials", "1", "--images", "2", "--holdout-images", "2"],
        "caption": ["caption", str(picture), "--model", "demo"],
        "models check": ["models", "check", "demo"],
        "bench engine": ["bench", "engine", "--model", "demo", "--images", "1"],
    }

    def run(*options):
        with pytest.raises(SystemExit) as ended:
            main([*commands[request.param], *options])
        said = capsys.readouterr()
        assert ended.value.code == 2 and said.out == "" and "Traceback" not in said.err
        return said.err.strip().splitlines()[-1]

    return run


def test_what_is_wrong_is_one_line_with_its_cure(run, monkeypatch):
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    for bits in ("4bit", "8bit"):
        message = run(f"--load-in-{bits}")
        assert message.startswith(
            f"kvtune: --load-in-{bits} needs bitsandbytes and accelerate: pip install 'kvtune[qua"
        )
    assert "--load-in-4bit and --load-in-8bit exclude each other" in run("--load-in-4bit", "--load-in-8bit")
    assert "a revision is for weights on the Hub" in run("--revision", "main")


def test_random_weights_take_none_of_them(capsys):
    for option in (["--revision", "main"], ["--load-in-4bit"], ["--load-in-8bit"]):
        with pytest.raises(SystemExit) as ended:
            main(["bench", "engine", "--model", "llava-1.5", "--random-weights", *option])
        assert ended.value.code == 2 and "are for stored weights" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["search", "validate", "sensitivity", "reproduce", "tournament", "caption"])
def test_every_command_that_writes_captions_takes_several_devices(name):
    options = {option.name for option in root().commands[name].params}
    assert options >= {"device", "workers", "cluster", "mixed_workers", "gpus_per_worker"}


@pytest.mark.parametrize(
    "asked",
    [
        ["search", "--model", "demo"],
        ["tournament", "--model", "demo", "--methods", "kvsmooth,pai"],
        ["reproduce", "table4", "--models", "demo"],
    ],
)
def test_gpus_that_are_not_there_are_one_line(asked, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--device", "cpu", "--gpus-per-worker", "2"])
    assert ended.value.code == 2 and not list(tmp_path.iterdir())
    assert capsys.readouterr().err == ("kvtune: --gpus-per-worker 2: there is no GPU with --device cpu; leave it out\n")


@pytest.mark.parametrize("name", ["search", "validate", "sensitivity", "reproduce", "caption", "bench engine"])
def test_every_command_that_captions_says_where_and_how(name):
    command = root()
    for word in name.split():
        command = command.commands[word]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {"--device", "--lanes", "--cuda-graphs", "--no-cuda-graphs"} <= options

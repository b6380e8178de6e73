"""``.ci/gpu``: whatever a part does, the others run, and what was found is written."""

import contextlib
import importlib.machinery
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / ".ci" / "gpu"


@pytest.fixture
def gpu(monkeypatch):
    """The script as a module; what it does to signals is undone."""
    loader = importlib.machinery.SourceFileLoader("gpu_script", str(SCRIPT))
    spec = importlib.util.spec_from_loader("gpu_script", loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_script", module)
    loader.exec_module(module)
    monkeypatch.setattr(module, "GRACE", 1.0)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield module
    for number, handler in before.items():
        signal.signal(number, handler)


def python(code):
    """A part that runs ``code`` and yields the JSON lines that it prints."""

    def part(run):
        yield from run.objects([sys.executable, "-c", code])

    return part


def main(gpu, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gpu", *map(str, arguments)])
    return gpu.main()


def lines(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


FINE = python('print(\'{"summary": "all is well"}\')')


def test_an_unknown_part_is_one_line(tmp_path):
    command = [sys.executable, SCRIPT, "bench", "nonsense", "--out", tmp_path / "out"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2 and not ended.stdout
    assert ended.stderr == (
        ".ci/gpu: there is no part 'nonsense'; parts are versions, kernels, tests, profile, bench, long, demo\n"
    )
    assert not (tmp_path / "out").exists()


def test_chosen_parts_run_in_order_after_versions(gpu, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "PARTS", dict.fromkeys(("versions", "one", "two", "three"), (FINE, 60)))
    assert main(gpu, monkeypatch, "three", "one", "--out", tmp_path) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()[:3]] == ["versions", "one", "three"]
    assert (tmp_path / "table.md").read_text() in shown
    assert shown.splitlines()[-3].startswith("| three | ok | ")
    assert lines(tmp_path)[-2:] == [
        {"part": "three", "result": {"summary": "all is well"}},
        lines(tmp_path)[-1] | {"part": "three", "ok": True, "why": []},
    ]


def test_results_go_to_the_folder_that_the_environment_names(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "PARTS", {"one": (FINE, 60)})
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    assert main(gpu, monkeypatch) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["log.txt", "results.jsonl", "table.md"]


HANGS = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print('{"pids": [%d, %d]}' % (os.getpid(), child.pid), flush=True)
time.sleep(600)
"""


def ends(pid):
    """Whether a process that was killed ends, which takes the kernel a moment."""
    state = Path(f"/proc/{pid}/stat")
    for _ in range(200):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if state.read_text().rsplit(")", 1)[1].split()[0] != "Z":
                time.sleep(0.05)
                continue
        return True
    return False


def test_a_part_that_hangs_is_killed_with_all_that_it_began(gpu, monkeypatch, tmp_path):
    """It lets no signal end it, and what it began holds its output open; the log has the line where it hung."""
    monkeypatch.setattr(gpu, "PARTS", {"hangs": (python(HANGS), 4), "fine": (FINE, 60)})
    assert main(gpu, monkeypatch, "--out", tmp_path) == 1
    found, ended, *fine = lines(tmp_path)
    assert ended["part"] == "hangs" and not ended["ok"] and "was stopped at its limit" in ended["why"][0]
    assert fine[0] == {"part": "fine", "result": {"summary": "all is well"}}
    for pid in found["result"]["pids"]:
        assert ends(pid)
    log = (tmp_path / "log.txt").read_text()
    assert "Fatal Python error: Aborted" in log and 'File "<string>", line 7 in <module>' in log


STOPS_WHEN_ASKED = """
import time
try:
    print("{}", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print('{"kept": 1}', end="")
"""


def test_a_part_whose_time_is_up_is_asked_first(gpu, monkeypatch, tmp_path):
    """As ``kvtune bench engine`` shows what it has on Ctrl-C; also where a shell has SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    monkeypatch.setattr(gpu, "PARTS", {"slow": (python(STOPS_WHEN_ASKED), 4)})
    assert main(gpu, monkeypatch, "--out", tmp_path) == 1
    assert [line.get("result") for line in lines(tmp_path)] == [{}, {"kept": 1}, None]


def test_what_is_left_of_the_whole_limit_cuts_a_part(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "PARTS", {"slow": (python(STOPS_WHEN_ASKED), 600), "late": (FINE, 60)})
    assert main(gpu, monkeypatch, "--out", tmp_path, "--limit", 4) == 1
    ended = {line["part"]: line["why"] for line in lines(tmp_path) if "why" in line}
    assert "was stopped at its limit" in ended["slow"][0]
    assert ended["late"] == ["not begun: no time was left"] or "was stopped at its limit" in ended["late"][0]


def test_a_failure_costs_its_part_and_says_why(gpu, monkeypatch, tmp_path, capsys):
    def breaks(run):
        yield {"found": 1}
        raise KeyError("what")

    fails = python("import sys; print('{\"found\": 2}'); sys.exit('kvtune: out of | luck')")
    monkeypatch.setattr(gpu, "PARTS", {"breaks": (breaks, 60), "fails": (fails, 60), "fine": (FINE, 60)})
    assert main(gpu, monkeypatch, "--out", tmp_path) == 1
    assert [line.get("result", line.get("ok")) for line in lines(tmp_path)] == [
        {"found": 1},
        False,
        {"found": 2},
        False,
        {"summary": "all is well"},
        True,
    ]
    table = (tmp_path / "table.md").read_text()
    assert "KeyError: 'what'" in table and "ended with code 1: kvtune: out of \\| luck" in table
    assert table.startswith("# Unknown device, ")
    assert "| fine | ok | 0 | all is well |" in table


def test_ctrl_c_ends_the_part_and_shows_the_table(gpu, monkeypatch, tmp_path, capsys):
    def interrupted(run):
        for found in run.objects([sys.executable, "-c", HANGS]):
            yield found
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(gpu, "PARTS", {"fine": (FINE, 60), "interrupted": (interrupted, 60)})
    assert main(gpu, monkeypatch, "--out", tmp_path) == 130
    shown = capsys.readouterr().out
    assert "| fine | ok | " in shown and shown.splitlines()[-1] == "stopped: parts that are missing did not end"
    for pid in lines(tmp_path)[-1]["result"]["pids"]:
        assert ends(pid)


def test_a_kernel_that_is_not_right_fails_its_part(gpu, monkeypatch, tmp_path):
    """As is one that cannot be imported, and so prints nothing."""
    shape = {"rows": 5, "kv_heads": 2, "share": 1, "head_dim": 16, "prompt": 40, "text": 40}
    said = {
        "dtype": "float16",
        "shape": shape,
        "built": True,
        "errors": {"output": 0.25},
        "ms": 1.5,
        "gb_per_second": 2,
    }
    printed = [said | {"kernel": kernel, "ok": ok} for kernel, ok in (("attention", False), ("smoothing", True))]
    printed.append({"way": "over_texts", "num_warps": 2, "num_stages": 3, "ms": 0.25, "gb_per_second": 2})
    fake = "".join(f"print({json.dumps(line)!r});" for line in printed)
    monkeypatch.setattr(gpu.Run, "module", lambda self, name, *arguments: [sys.executable, "-c", fake])
    monkeypatch.setattr(gpu, "PARTS", {"kernels": gpu.PARTS["kernels"]})
    assert main(gpu, monkeypatch, "--out", tmp_path) == 1
    assert lines(tmp_path)[-1]["why"] == ["1 of 3 results are not right"]
    row = "| attention | float16 | 5 | 2 x 1 | 16 | 40 | 40 | 1.5 | 2 | 2.5e-01 | True | False |"
    table = (tmp_path / "table.md").read_text()
    assert row in table and "| over texts | 2 | 3 | 0.25 |" in table
    monkeypatch.setattr(gpu.Run, "module", lambda self, name, *arguments: [sys.executable, "-c", ""])
    assert main(gpu, monkeypatch, "--out", tmp_path) == 1
    assert lines(tmp_path)[-1]["why"] == ["no kernel was measured"]


def test_a_section_that_cannot_be_told_costs_itself_alone(gpu):
    outcome = gpu.Outcome("profile", 1.0, [], [{"what": "kernels", "kernels": [{"name": "no time"}]}])
    text = gpu.report([outcome, gpu.Outcome("fine", 2.0, [], [])])
    assert "KeyError: 'calls'; see results.jsonl" in text and text.endswith("| fine | ok | 2 |  |\n")


def bench_outcome(gpu, card="NVIDIA H200", model="llava-1.5 (random weights)", **more):
    arm = {"name": "e16", "tokens_per_second": 16_500.0, "of_matmul_all": 0.4}
    found = {"model": model, "device": {"name": card}, "arms": [arm], "sweep": {"seconds": 170.0}}
    ratios = {"e16_over_a0_tokens": 412.3, "smoothing_over_none_per_step": 1.0154}
    return gpu.Outcome("bench", 1.0, [], [found | {"ratios": ratios} | more])


def test_goals_are_told_beside_what_was_measured(gpu, monkeypatch):
    monkeypatch.setitem(gpu.SECTIONS, "bench", lambda outcome: [])
    long = gpu.Outcome("long", 1.0, [], [{"what": "extra", "percent": 6.5}])
    text = gpu.report([bench_outcome(gpu), long])
    assert [line for line in text.splitlines() if line.startswith(("| tokens", "| %", "| s "))] == [
        "| tokens/s over those of generate(), one at a time | at least 400 | 412 | yes |",
        "| tokens/s | at least 20,000 | 16,500 | no |",
        "| % of the matrix units, all counted | at least 44 | 40.0 | no |",
        "| % that KVSmooth adds to a step | at most 2 | 1.5 | yes |",
        "| % that 0.3 % of captions at the limit add | at most 5 | 6.5 | no |",
        "| s for 50 trials on 500 images | at most 180 | 181 | no |",
    ]
    on_h100 = gpu.report([bench_outcome(gpu, "NVIDIA H100 80GB HBM3", arms=[], ratios={}, sweep=None)])
    assert "| tokens/s | at least 16,000 |  | not measured |" in on_h100 and "| yes |" not in on_h100
    assert "goals" not in gpu.report([bench_outcome(gpu, "CPU", "demo")])
    without = {"model": gpu.GOALS_OF, "device": {"name": ""}, "arms": [], "ratios": {}}
    assert "KeyError: 'sweep'; see results.jsonl" in gpu.report([gpu.Outcome("bench", 1.0, [], [without]), long])


def trial(number, chair_s=10.0, f1=70.0, lambda_ref=0.5):
    return {"number": number, "params": {"lambda_ref": lambda_ref}, "chair_s": chair_s, "f1": f1}


def study(**changed):
    trials = [trial(n, **changed.get(f"of_{n}", {})) for n in range(12)]
    return {"trials": trials[::-1], "front": [0]}


def test_equal_studies_are_equal(gpu):
    found = gpu.compare_studies(study(), study())
    assert found["trials"] == 12
    assert not found["other_settings"] and not found["scores_differ"]


def test_settings_may_differ_only_where_scores_did_before(gpu):
    """Trials 0 to 7 are asked for before any score is known, 8 to 11 after theirs are."""
    scores = {"of_3": {"chair_s": 12.0}, "of_9": {"lambda_ref": 0.6, "f1": 69.5}}
    found = gpu.compare_studies(study(), study(**scores))
    assert (found["scores_differ"], found["largest_chair_s"], found["largest_f1"]) == (2, 2.0, 0.5)
    assert found["other_settings"] == []
    assert gpu.compare_studies(study(), study(of_9={"lambda_ref": 0.6}))["other_settings"] == [9]
    assert gpu.compare_studies(study(), study(**scores, of_5={"lambda_ref": 0.6}))["other_settings"] == [5]


def test_trials_without_scores_are_compared_by_settings(gpu):
    failed = study(of_2={"chair_s": None, "f1": None})
    assert gpu.compare_studies(failed, study())["scores_differ"] == 0

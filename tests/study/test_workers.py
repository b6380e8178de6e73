"""What is kept of who writes a study's captions."""

from kvtune.study.workers import KEEP_SECONDS, WorkersFile, read_workers


class Captioner:
    def __init__(self):
        self.workers = {
            "in_words": ["2 workers (2 x cpu)", "here: 2 x cpu, 1.0 1.0 each"],
            "workers": [{"node": "here"}],
        }


def test_it_is_written_every_so_often_and_at_the_end(tmp_path):
    path, now, captioner = tmp_path / "workers.json", [0.0], Captioner()
    kept = WorkersFile(path, captioner, lambda: now[0])
    kept.keep()
    assert read_workers(path) is None, "there is nothing to tell in the first seconds"
    now[0] = KEEP_SECONDS
    kept.keep()
    found = read_workers(path)
    assert {"in_words": found.in_words, "workers": found.workers} == captioner.workers
    captioner.workers = captioner.workers | {"in_words": ["no worker"]}
    kept.keep()
    assert read_workers(path) == found
    kept.keep(at_once=True)
    assert read_workers(path).in_words == ["no worker"]


def test_one_device_leaves_no_such_file_and_removes_that_of_before(tmp_path):
    path = tmp_path / "workers.json"
    WorkersFile(path, Captioner()).keep(at_once=True)
    WorkersFile(path, object()).keep(at_once=True)
    assert not path.exists()


def test_one_that_cannot_be_read_is_as_good_as_none(tmp_path):
    path = tmp_path / "workers.json"
    whole = '"workers": [], "updated": ""'
    for text in ("{", "[]", '"text"', "{}", f'{{"in_words": [], {whole}, "more": 1}}', f'{{"in_words": 1, {whole}}}'):
        path.write_text(text)
        assert read_workers(path) is None

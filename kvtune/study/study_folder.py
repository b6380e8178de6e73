"""Where a study keeps what, and how a study is found by name or path."""

import re
from dataclasses import dataclass
from pathlib import Path

from kvtune.errors import RequestError
from kvtune.files import check_path
from kvtune.text import command_line, did_you_mean, quoted

_LISTED = 10
"""Names that a message lists."""

DEFAULT_STUDIES = Path("studies")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class StudyFolder:
    """The files of one study."""

    path: Path

    @property
    def name(self) -> str:
        """The study's name, which is its folder's."""
        return self.path.name

    @property
    def argument(self) -> str:
        """What a command takes to find the study from here, as a shell reads it: its name, or its path where it is not
        among the studies that a command looks in by itself."""
        here = self.path.resolve().parent == DEFAULT_STUDIES.resolve()
        return command_line([self.name if here else str(self.path)])

    @property
    def manifest(self) -> Path:
        """What is fixed about the study; see :mod:`kvtune.study.manifest`."""
        return self._current("study.json")

    @property
    def ledger(self) -> Path:
        """What was asked and what came of it; see :mod:`kvtune.study.trials`."""
        return self._current("trials.jsonl")

    @property
    def database(self) -> Path:
        """The study as Optuna's tools read it; see :mod:`kvtune.study.optuna_copy`."""
        return self._current("study.db")

    @property
    def ground_truth(self) -> Path:
        """Objects in the tune and held-out images, so that scoring again needs no COCO."""
        return self._current("ground_truth.json")

    @property
    def rescored(self) -> Path:
        """New scores and what goes with them, on their way to their places; see :mod:`kvtune.study.switch`."""
        return self.path / "rescored"

    def _current(self, name: str) -> Path:
        new = self.rescored / name
        return new if new.exists() else self.path / name

    @property
    def captions(self) -> Path:
        """The folder of caption files."""
        return self.path / "captions"

    @property
    def report(self) -> Path:
        """The folder of tables, pictures and held-out results."""
        return self.path / "report"

    @property
    def counts(self) -> Path:
        """Counts of captions that were scored already; see :mod:`kvtune.analysis.outcomes`."""
        return self.report / "counts.npz"

    @property
    def validation(self) -> Path:
        """Held-out results; see :mod:`kvtune.analysis.validate`."""
        return self.report / "validation.json"

    @property
    def workers(self) -> Path:
        """Who writes, or last wrote, captions, where workers do; see :mod:`kvtune.study.workers`."""
        return self.path / "workers.json"

    @property
    def presets(self) -> Path:
        """The folder where ``kvtune export`` writes when no other is named."""
        return self.path / "presets"

    def trial_captions(self, number: int | None) -> Path:
        """The caption file of a trial on the tune images; None is the baseline."""
        return self.captions / f"{setting_name(number)}.jsonl"

    def holdout_captions(self, name: str) -> Path:
        """The caption file of a setting on the held-out images: ``baseline``, ``trial-0007``, ``published``."""
        return self.captions / "holdout" / f"{name}.jsonl"

    def exists(self) -> bool:
        """Whether there is a study here."""
        try:
            return self.manifest.is_file()
        except OSError:  # a folder that must not be read
            return False


def setting_name(number: int | None) -> str:
    """What files call a trial: ``trial-0007``; None is the ``baseline``."""
    return "baseline" if number is None else f"trial-{number:04d}"


def check_name(name: str) -> str:
    """Return ``name`` if it can be a study's.

    Raises
    ------
    RequestError
        If it has a path in it, or a character that a folder's name better has not.
    """
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise RequestError(
            f"{quoted(name)} cannot be a study's name: use letters, digits, '.', '_' and '-', at most 100, no path; "
            "--studies-dir says where studies are"
        )
    return name


def default_name(model: str, method: str) -> str:
    """MODEL-METHOD: the last part of a model's name, path or hub id, and the method's name (A-or-B for A,B)."""
    methods = "-or-".join(name.strip() for name in method.split(","))
    return plain_name(f"{Path(model).name or 'model'}-{methods}")


def plain_name(text: str) -> str:
    """A text with whatever cannot be in a study's name replaced."""
    return check_name(re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:100])


def study_folders(studies: Path) -> list[StudyFolder]:
    """The studies in a folder, the latest (whose manifest changed last) first."""
    if not studies.is_dir():
        return []
    found = [StudyFolder(path) for path in studies.iterdir() if StudyFolder(path).exists()]
    return sorted(found, key=lambda study: (-modified(study), study.name))


def modified(folder: StudyFolder) -> float:
    """When a study's manifest changed last, in seconds since 1970; 0 if that cannot be found out."""
    try:
        return folder.manifest.stat().st_mtime
    except OSError:
        return 0.0


def find_study(study: str | Path | None = None, studies: Path = DEFAULT_STUDIES) -> StudyFolder:
    """Find a study that exists.

    Parameters
    ----------
    study
        A name in ``studies``, or the path of a study's folder; None for the latest.
    studies
        The folder of studies.

    Raises
    ------
    RequestError
        If there is none; the message names those there are.
    """
    found = study_folders(studies)
    if study is None and not studies.exists():
        raise RequestError(
            f"there is no study, for there is no folder {quoted(studies)}; name yours with --studies-dir, or make one: "
            "kvtune search --model demo"
        )
    if study is None:
        if not found:
            raise RequestError(
                f"there is no study in {studies}; make one: kvtune search --model demo, or name --studies-dir"
            )
        return found[0]
    places = [studies / study] if _NAME.fullmatch(str(study)) else []
    for place in [*places, check_path(study).resolve()]:
        if StudyFolder(place).exists():
            return StudyFolder(place)
    names = [folder.name for folder in found]
    there = ", ".join(names[:_LISTED]) or "none"
    there += f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    hint = did_you_mean(Path(study).name, names)
    raise RequestError(f"there is no study {quoted(study)}{hint or ';'} in {studies} there are: {there}")

"""Tables, pictures and the page of a study; here also the reference of kvtune's files and JSON outputs.

All rates are percent, 0 to 100; what is not known is null. Objects that kvtune reads again have a ``"format"``, and an
unknown key in them is refused by name.

A study on disk
---------------
``studies/NAME/`` holds, in the order in which they matter:

``study.json``
    ``kvtune-study/1``: fingerprint (the race and the floors in it), subsets with their image ids, search space, looks
    of the race, settings to start from, versions, reference point.
    :class:`kvtune.study.manifest.Manifest`.
``captions/baseline.jsonl``, ``captions/trial-0007.jsonl``
    A caption a line, appended as it is made:
    ``{"image_id": 42, "caption": "...", "tokens": 96, "finish_reason": "eos"|"length"|"stop"}``.
``trials.jsonl``
    What was asked and what came of it, an event a line. :mod:`kvtune.study.trials`.
``ground_truth.json``
    ``{"42": ["dog", "person"], ...}``: categories in each tune and held-out image; ``kvtune score`` takes it too.
``study.db``
    The same trials as an Optuna study with the metric names ``chair_s`` and ``f1``; ``kvtune rescore`` builds it anew.
    Raced trials and those below a floor are complete there and do not meet a constraint.
``presets/``
    What ``kvtune export`` wrote.
``report/``
    What ``kvtune pareto`` wrote, and what follows below:

    =================================  =============================================================
    ``front.png``, ``.svg``            trials and front; all pictures are 3.5 inches wide
    ``precision-recall.png``, ...      precision over recall, with the cut baseline
    ``hypervolume.png``, ...           the front's hypervolume over trials
    ``held-out.png``, ...              what is left on held-out images, after ``kvtune validate``
    ``trials.csv``, ``.parquet``       a row a trial: :func:`kvtune.report.data.frames.trials_frame`
    ``cut_baseline.csv``, ...          the baseline cut to 1, 2, ... sentences:
                                       :class:`kvtune.analysis.summary.CutBaseline`
    ``outcomes.csv``, ``.parquet``     a row a caption: :func:`kvtune.report.data.outcomes.outcomes_frame`
    ``pareto.html``                    the page, one file without a network
    =================================  =============================================================

    ``counts.npz`` there is a cache of what captions came to (:mod:`kvtune.analysis.outcomes`) and may be deleted.
``captions/holdout/``, ``report/validation.json``
    What ``kvtune validate`` captioned and found: :class:`kvtune.analysis.result.Validation`.
``captions/sensitivity/``, ``report/sensitivity.json``, ``.csv``, ``.png``, ``.svg``
    What ``kvtune sensitivity`` captioned and found: :class:`kvtune.analysis.sensitivity.Sensitivity`.

``.lock`` keeps a second process out while one works.

A preset
--------
``{"schema_version": 1, "name", "method", "parameters", "model": {"family", "id", "revision", "layers"},
"generation": {"prompt", "max_new_tokens", "dtype"}, "selection": {"rule", "on"}, "metrics": {"tune", "holdout",
"baseline"}, "subset": {"name", "sha256", "images"}, "study": {"name", "trial"}, "versions", "source"}``.
:class:`kvtune.presets.Preset`; unknown keys are refused by name. Of a stack of methods (``kvsmooth+pai``) the
``schema_version`` is 2, and a parameter that several of them have is ``METHOD.NAME``.

In ``metrics``, ``tune`` and ``holdout`` hold the scores, ``intervals`` (95 %), ``differences`` to the baseline and a
``verdict`` on CHAIR_S and F1 (:func:`kvtune.analysis.claims.evidence`); ``holdout``, which ``kvtune validate`` has to
come before, also ``shrinkage``, its ``subset`` and the ``baseline`` on it, and a ``note`` where the preset was selected
on these very images.

Other files
-----------
subset
    ``{"format": "kvtune-subset/1", "name", "source": "val2014", "seed", "image_ids": [...], "sha256"}``:
    :class:`kvtune.coco.Subset`, written by ``kvtune data subset``, taken by ``--subset``.
search space
    YAML, ``method``, ``parameters`` and ``fixed``: :class:`kvtune.spaces.SearchSpace`, taken by ``--space``.
captions to score
    Records of ``{"image_id", "caption"}`` as JSON, JSON lines, CSV or TSV, and the layouts of
    :func:`kvtune.chair.read_captions_file`: taken by ``kvtune score`` and ``--overlay``.
details of ``kvtune score --details``
    ``{"image_id", "mentioned", "hallucinated", "correct", "missed", "words", "denied"}``, a caption a line;
    :meth:`kvtune.chair.ChairScorer.details`.
a reproduced table
    ``kvtune reproduce`` keeps a folder a model, ``reproductions/MODEL/``
    (:class:`kvtune.reproduce.documents.ModelFolder`): ``reproduction.json``, what its captions depend on
    (``kvtune-reproduction/1``, :class:`kvtune.reproduce.documents.Manifest`); ``ground_truth.json`` as in a
    study; ``captions/baseline.jsonl``, ``opera``, ``constant-0.5``, ``adaptive``, ``keys``, ``attention-output``, and
    ``captions/tune/constant-0.1.jsonl``, ..., caption lines as in a study, shared by both tables; ``table1.json``,
    ``table4.json``, what ``--json`` prints for this model alone, ``.csv``
    (:func:`kvtune.report.terminal.reproduction.reproduction_frame`) and ``.md``.

JSON outputs
------------
With ``--json``, a command prints one document on stdout and nothing else.

``kvtune pareto``, ``kvtune search``
    :func:`kvtune.report.data.document.study_document`; ``kvtune rescore`` the same and ``changed``, the number of
    settings with other scores than before.
``kvtune compare``
    :func:`kvtune.report.terminal.compare.comparison_document`.
``kvtune export``
    ``{"out", "rule", "on", "trial", "preset"}``.
``kvtune validate``
    :class:`kvtune.analysis.result.Validation`, as ``report/validation.json``.
``kvtune sensitivity``
    :class:`kvtune.analysis.sensitivity.Sensitivity`, as ``report/sensitivity.json``.
``kvtune reproduce``
    :func:`kvtune.report.terminal.reproduction.reproduction_document`.
``kvtune studies``
    A list of :class:`kvtune.analysis.overview.Overview`.
``kvtune caption``
    :func:`kvtune.report.terminal.caption.captions_document`, and ``trace``, the files that ``--trace`` wrote.
``kvtune score``
    ``{"chair_s", "chair_i", "precision", "recall", "f1", "captions", "mean_words", "scorer", "intervals", "notes"}``:
    ``[low, high]`` of each rate, 95 %, and what is implausible (:class:`kvtune.chair.notes.Note`).
``kvtune data subset``, ``kvtune data ground-truth``, ``kvtune data download``
    The subset without its ids, ``out`` and ``images``; ``{"out", "images", "objects"}``; ``{"coco", "annotations",
    "downloaded", "present"}``.
``kvtune models``, ``kvtune models check``, ``kvtune models convert``
    A list of :class:`kvtune.models.availability.Presence`; :class:`kvtune.captioning.model_check.ModelCheck`; ``{"out",
    "tensors",
    "parameters"}``.
``kvtune bench engine``, ``kvtune bench score``, ``kvtune bench search``
    :func:`kvtune.bench.engine.run.bench`; :class:`kvtune.bench.score.ScoreBench`;
    :func:`kvtune.bench.search.run.compare`.
``kvtune doctor``
    ``{"ok", "checks"}``, the checks as :class:`kvtune.doctor.Check`.
"""

"""Tables, pictures and the page of a study; here also the reference of kvtune's files and JSON outputs.

A study on disk
---------------
``studies/NAME/`` holds, in the order in which they matter:

``study.json``
    ``kvtune-study/1``: fingerprint, subsets with their image ids, search space, versions, reference point.
    :class:`kvtune.search.manifest.Manifest`.
``captions/baseline.jsonl``, ``captions/trial-0007.jsonl``
    A caption a line, appended as it is made:
    ``{"image_id": 42, "caption": "...", "tokens": 96, "finish_reason": "eos"|"length"|"stop"}``.
``trials.jsonl``
    What was asked and what came of it, an event a line. :mod:`kvtune.search.ledger`.
``ground_truth.json``
    ``{"42": ["dog", "person"], ...}``: categories in each tune and held-out image; ``kvtune score`` takes it too.
``study.db``
    The same trials as an Optuna study with the metric names ``chair_s`` and ``f1``; ``kvtune rescore`` builds it anew.
``presets/``
    What ``kvtune export`` wrote.
``report/``
    What ``kvtune pareto`` wrote:

    ============================  ==================================================================
    ``front.png``, ``.svg``       trials and front, 3.5 inches wide
    ``hypervolume.png``, ``.svg`` the front's hypervolume over trials
    ``trials.csv``, ``.parquet``  a row a trial: :func:`kvtune.report.frames.trials_frame`
    ``outcomes.csv``, ``.parquet``  a row a caption: :func:`kvtune.report.captions.outcomes_frame`
    ``pareto.html``               the page, one file without a network
    ============================  ==================================================================

A preset
--------
``{"schema_version": 1, "name", "method", "parameters", "model": {"family", "id", "revision", "layers"},
"generation": {"prompt", "max_new_tokens", "dtype"}, "selection": {"rule", "on"}, "metrics": {"tune", "holdout",
"baseline"}, "subset": {"name", "sha256", "images"}, "study": {"name", "trial"}, "versions", "source"}``.
:class:`kvtune.presets.Preset`; unknown keys are refused by name.

JSON outputs
------------
Each is one document on stdout. All rates are percent, 0 to 100; what is not known is null.

``kvtune pareto``, ``kvtune search``
    :func:`kvtune.report.document.study_document`; ``kvtune rescore`` the same and ``changed``, the number of settings
    with other scores than before.
``kvtune compare``
    :func:`kvtune.report.compare.comparison_document`.
``kvtune export``
    ``{"out", "rule", "on", "trial", "preset"}``.
``kvtune studies``
    A list of :class:`kvtune.search.overview.Overview`.
``kvtune score``
    ``{"chair_s", "chair_i", "precision", "recall", "f1", "captions", "mean_words", "scorer"}``.
"""

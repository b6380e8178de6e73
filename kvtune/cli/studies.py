"""``kvtune studies``: what is on disk."""

from kvtune.cli.common import out, print_json
from kvtune.cli.options import STUDIES, Json, StudiesDir


def studies(studies_dir: StudiesDir = STUDIES, json: Json = False) -> None:
    """List the studies there are and how far each is, the latest first.

    Example: kvtune studies --studies-dir studies
    """
    from kvtune.analysis.overview import overviews
    from kvtune.report.terminal.studies import overviews_view

    found = overviews(studies_dir)
    if json:
        print_json([overview.to_dict() for overview in found])
    elif not found:
        out().print(f"no studies in {studies_dir}; kvtune search makes one", soft_wrap=True)
    else:
        out().print(overviews_view(found, out()))

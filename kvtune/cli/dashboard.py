"""``kvtune dashboard``: a study in optuna-dashboard."""

from typing import Annotated

from kvtune.cli import options as opt
from kvtune.cli.common import err
from kvtune.cli.options import value


def dashboard(
    study: opt.Study = None,
    host: Annotated[str, value("ADDRESS", "Address to listen at; 0.0.0.0 lets other machines in.")] = "localhost",
    port: Annotated[int, value("N", "Port to listen at.", min=0, max=65535)] = 8080,
    storage: opt.Storage = None,
    studies_dir: opt.StudiesDir = opt.STUDIES,
) -> None:
    """Open a study in optuna-dashboard, running or finished, until Ctrl-C.

    Example: kvtune dashboard demo-kvsmooth --port 8081
    """
    from kvtune.report.dashboard import dashboard_storage, serve
    from kvtune.study.study_folder import find_study

    folder = find_study(study, studies_dir)
    url = dashboard_storage(folder, storage)
    err().print_line(f"{folder.name}: http://{host}:{port}/dashboard")
    serve(url, host, port)

"""``kvtune bench``: speed, memory and search cost, measured side by side."""

import typer

from kvtune.cli.bench_engine import engine
from kvtune.cli.bench_score import score
from kvtune.cli.bench_search import search
from kvtune.cli.common import command

app = typer.Typer(help="Measure speed, memory and search cost, side by side.", no_args_is_help=True)
command(app)(engine)
command(app)(score)
command(app)(search)

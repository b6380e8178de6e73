"""``kvtune bench``: speed, memory and search cost, measured side by side."""

from kvtune.cli.bench_cluster import cluster
from kvtune.cli.bench_engine import engine
from kvtune.cli.bench_score import score
from kvtune.cli.bench_search import search
from kvtune.cli.commands import Command, group

app = group(help="Measure speed, memory and search cost, side by side.")
app.command(cls=Command)(engine)
app.command(cls=Command)(score)
app.command(cls=Command)(cluster)
app.command(cls=Command)(search)

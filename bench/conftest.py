"""Lets the benchmarks import their neighbours under pytest, as they do when run as scripts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

"""`python -m bench`: see `bench.benchmark`."""
import sys

from .benchmark import run_benchmark

if __name__ == '__main__':
    sys.exit(run_benchmark())

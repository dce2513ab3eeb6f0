"""Time a screener on scans: `python benchmarks/screening.py SCAN [SCAN ...]`, each several times
after a first one."""

import argparse
import statistics
import time

from pathology_screen.screening import Screener

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("scans", nargs="+")
parser.add_argument("--bundle", default="ra")
parser.add_argument("--repeats", type=int, default=7)
options = parser.parse_args()

start = time.perf_counter()
screener = Screener.from_bundle(options.bundle)
print(f"loading {time.perf_counter() - start:.2f} s, after imports")
for number, scan in enumerate(options.scans, start=1):
    screener(scan)
    seconds = [screener(scan).seconds for _ in range(options.repeats)]
    for stage in seconds[0]:
        values = [one[stage] for one in seconds]
        median = f"median {statistics.median(values):.3f} s"
        span = f"{min(values):.3f} to {max(values):.3f}"
        print(f"scan {number}, {stage}: {median}, {span}, n = {options.repeats}")

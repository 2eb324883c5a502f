"""Measures one side of one scenario once: `python -m benchmarks.role drain-50 ours --jobs 20000`.

The database is that of `OBAN_DATABASE_URL`; for a drain, it must contain the jobs already. Prints the figures
as one line of JSON.
"""

import argparse
import json
import os

from sqlalchemy import make_url

from benchmarks import meter as meters
from benchmarks.meter import Meter
from benchmarks.scenarios import BY_NAME


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.role", description=__doc__)
    parser.add_argument("scenario", choices=BY_NAME)
    parser.add_argument("side")
    parser.add_argument("--jobs", type=int, help="default: the number of jobs of the scenario")
    parser.add_argument(
        "--server", type=int, metavar="PID", help="process id of the postmaster, to measure its CPU time"
    )
    options = parser.parse_args()
    scenario = BY_NAME[options.scenario]
    meter = Meter(options.jobs or scenario.jobs, options.server)
    meters.run(scenario.measure(make_url(os.environ["OBAN_DATABASE_URL"]), meter, options.side))
    print(json.dumps(meter.figures))


if __name__ == "__main__":
    main()

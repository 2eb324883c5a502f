"""The command: plants bugs, and says which of them the tests do not find."""

import sys
import time

from tests.mutants import MUTANTS
from tests.mutants.planting import found


def main(names: list[str]) -> int:
    """Plant the bugs with these names, or all of them. Returns how many were not found."""
    missed = []
    for mutant in MUTANTS:
        if names and mutant.name not in names:
            continue
        began = time.monotonic()
        print(f"{mutant.name} …", flush=True)
        caught = found(mutant)
        print(f"  {'found' if caught else 'NOT FOUND'} in {time.monotonic() - began:.0f} s", flush=True)
        if not caught:
            missed.append(mutant.name)
    print(f"not found: {', '.join(missed)}" if missed else "every planted bug was found")
    return len(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

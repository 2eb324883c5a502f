"""The command `oban`, also as `python -m oban`."""

import sys

from oban import stop_signals


def main() -> None:
    """Run the command in `sys.argv`."""
    if sys.argv[1:2] == ["start"]:
        # Before the imports, which take most of the time of a start.
        stop_signals.exit_on_signals()
    from oban.cli import main as command

    command()


if __name__ == "__main__":
    main()

"""The command `oban`, also as `python -m oban`."""

import gc
import sys

from oban import stop_signals


def main() -> None:
    """Run the command in `sys.argv`."""
    if sys.argv[1:2] == ["start"]:
        # Before the imports, which take most of the time of a start.
        stop_signals.exit_on_signals()
    # Imports leave no garbage. Collections during them and at the end take a sixth of the time of a command.
    gc.disable()
    try:
        from oban.cli import main as command

        # Imports the module of the command.
        command.commands.get(sys.argv[1] if len(sys.argv) > 1 else "")
    except KeyboardInterrupt:
        # As click ends a command. Nobody wants to read where the imports were.
        print("Aborted!", file=sys.stderr)
        sys.exit(1)
    gc.freeze()
    gc.enable()
    command()


if __name__ == "__main__":
    main()

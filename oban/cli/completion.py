"""`oban completion`: the script that lets a shell complete commands, options and states."""

from typing import Any

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands in SHELL.

    For bash: eval "$(oban completion bash)" in ~/.bashrc. For zsh: eval "$(oban completion zsh)" in ~/.zshrc.
    For fish: oban completion fish > ~/.config/fish/completions/oban.fish.
    """
    made: Any = get_completion_class(shell)
    click.echo(made(ctx.find_root().command, {}, "oban", "_OBAN_COMPLETE").source())

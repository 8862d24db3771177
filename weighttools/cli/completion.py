"""``weighttools completion``."""

from __future__ import annotations

import click

from weighttools.cli.exits import COMPLETE


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and tensor names in your shell.

    \b
    Examples:
      weighttools completion bash >> ~/.bashrc
      weighttools completion zsh >> ~/.zshrc
      weighttools completion fish > ~/.config/fish/completions/weighttools.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    root = ctx.find_root()
    script = found(root.command, {}, "weighttools", COMPLETE)
    click.echo(script.source())

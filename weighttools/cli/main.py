"""The command group: commands are listed from a table and imported only when they are run."""

from __future__ import annotations

import click

from weighttools import __version__
from weighttools.cli.exits import guarded
from weighttools.errors import spelled

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Look": {
        "inspect": ("weighttools.cli.inspect:inspect", "Say what a checkpoint is and what is in it."),
        "get": ("weighttools.cli.get:get", "Print or save one tensor, or a slice of one."),
        "check": ("weighttools.cli.check:check", "Look for what is dangerous, damaged or doubtful."),
        "formats": ("weighttools.cli.formats:formats", "List what is read and written."),
    },
    "Measure": {
        "params": ("weighttools.cli.params:params", "Count parameters and buffers exactly."),
        "stats": ("weighttools.cli.stats:stats", "Describe the values: moments, norms, zeros, NaN, histograms."),
        "spectrum": ("weighttools.cli.spectrum:spectrum", "Describe singular values: ranks, energy, power law, noise."),
        "init-check": ("weighttools.cli.init_check:init_check", "Find the layers that look untouched by training."),
        "estimate": ("weighttools.cli.estimate:estimate", "Say what memory loading and training take."),
    },
    "Compare": {
        "diff": ("weighttools.cli.diff:diff", "Say what differs between two checkpoints, and why."),
        "trace": ("weighttools.cli.trace:trace", "Trace how weights moved over the checkpoints of a run."),
        "hash": ("weighttools.cli.hash:hash_", "Fingerprint what a checkpoint holds."),
        "verify": ("weighttools.cli.verify:verify", "Verify a checkpoint against a manifest, or a cache."),
    },
    "Change": {
        "prune": ("weighttools.cli.prune:prune", "Set the least important weights to zero."),
        "decay": ("weighttools.cli.decay:decay", "Shrink weights as steps of weight decay would."),
        "clip": ("weighttools.cli.clip:clip", "Clip weights by value, or tensors by norm."),
        "scale": ("weighttools.cli.scale:scale", "Multiply weights by a number."),
        "noise": ("weighttools.cli.noise:noise", "Add normal noise to weights."),
        "init": ("weighttools.cli.init:init", "Draw weights anew: Xavier, He, orthogonal and others."),
        "average": ("weighttools.cli.average:average", "Average checkpoints: a soup, or a moving average."),
        "merge-adapter": (
            "weighttools.cli.merge_adapter:merge_adapter",
            "Add a LoRA adapter to the weights of its base.",
        ),
    },
    "Convert": {
        "convert": ("weighttools.cli.convert:convert", "Convert to another format, dtype or sharding."),
    },
    "Train": {
        "finetune": ("weighttools.cli.finetune:finetune", "Train a checkpoint further on texts or numbers."),
        "evaluate": (
            "weighttools.cli.evaluate:evaluate",
            "Measure a checkpoint on data: loss, accuracy, F1, perplexity.",
        ),
        "generate": ("weighttools.cli.generate:generate", "Generate text from a prompt."),
    },
    "Shell": {
        "git-setup": ("weighttools.cli.git:git_setup", "Have git diff show what differs between weight files."),
        "completion": ("weighttools.cli.completion:completion", "Print the shell completion script."),
    },
}
"""The commands as --help groups them: name to module and function, and the line that is shown."""
COMMANDS: dict[str, tuple[str, str]] = {name: row for rows in GROUPS.values() for name, row in rows.items()}
ALIASES = {"info": "inspect"}
FOR_GIT = {
    "git-diff": ("weighttools.cli.git:git_diff", ""),
    "git-textconv": ("weighttools.cli.git:git_textconv", ""),
}
"""Commands that git runs once ``git-setup`` has told it to; nobody types them."""


class LazyGroup(click.Group):
    """A group whose commands live in the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from importlib import import_module

        row = COMMANDS.get(ALIASES.get(cmd_name, cmd_name)) or FOR_GIT.get(cmd_name)
        if row is None:
            return None
        module, _, function = row[0].partition(":")
        command = getattr(import_module(module), function)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a command, whose errors and notes name options as they are given to it."""
        with spelled(_flag):
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in {*COMMANDS, *ALIASES, *FOR_GIT} and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], [*COMMANDS, *ALIASES], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"there is no command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, rows in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, (_, line) in rows.items()])


def _flag(name: str) -> str:
    """Return how the command that runs now spells an option."""
    ctx = click.get_current_context(silent=True)
    of_command = ctx.command.params if ctx else []
    flags = [param.opts[-1] for param in of_command if isinstance(param, click.Option) and param.name == name]
    return flags[0] if flags else "--" + name.replace("_", "-")


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", "-V", prog_name="weighttools")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def main() -> None:
    """Look inside, count, convert, edit and fine-tune the files that hold a neural network's weights.

    \b
    Examples:
      weighttools inspect model.safetensors
      weighttools params path/to/checkpoint --by module
      weighttools convert model.safetensors model.npz
      weighttools COMMAND --help
    """


def run() -> None:
    """Run the command line and exit."""
    guarded(main)

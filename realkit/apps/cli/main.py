"""The command line. Exit codes: 0 done; 1 something failed after work had begun, or the doctor says
that this machine cannot make pictures; 2 the request was wrong, and nothing was started."""

from __future__ import annotations

import errno
import itertools
import re
import sys
from collections.abc import Iterable
from typing import Any

import click

from realkit.apps.cli.doctor import doctor
from realkit.apps.cli.figures import edits, sets
from realkit.apps.cli.folders import prune
from realkit.apps.cli.kaggle import kaggle
from realkit.apps.cli.pictures import generate, info, score, upscale
from realkit.apps.cli.prompts import prompts
from realkit.apps.cli.sweeps import plan, run, sweep
from realkit.apps.cli.tables import columns, compare, list_, table
from realkit.apps.cli.votes import vote, votes
from realkit.base import terminal
from realkit.base.errors import RequestError, RunError, unforeseen
from realkit.base.suggest import did_you_mean, fold, near, question
from realkit.base.version import __version__

# Why the system refuses what a command prints, where it names no file.
OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


class _Group(click.Group):
    """Words every error of a request in one line, click's too, and sets the exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        terminal.fit(sys.stdout, sys.stderr)
        try:
            sys.exit(super().main(*args, **kwargs | {"standalone_mode": False}))
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
        except RequestError as error:
            click.echo(f"realkit: {error}", err=True)
            sys.exit(1 if isinstance(error, RunError) else 2)
        except click.ClickException as error:
            message = " ".join(error.format_message().split())  # click's lists have lines
            click.echo(f"realkit: {message}{_meant(error)}", err=True)
        except click.Abort:
            click.echo("realkit: stopped. What is done is kept: run again to resume", err=True)
            sys.exit(130)
        except OSError as error:
            refused = error.filename is None and error.errno in OUTPUT
            said = f"Cannot write the output: {error.strerror}" if refused else ""
            click.echo(f"realkit: {said or unforeseen('the command', error)}", err=True)
            if refused:
                terminal.close(sys.stdout)
            sys.exit(1)
        except Exception as error:
            click.echo(f"realkit: {unforeseen('the command', error)}", err=True)
            sys.exit(1)
        sys.exit(2)


def _meant(error: click.ClickException) -> str:
    """What a person probably meant by a wrong option or choice, where click does not say it."""
    if isinstance(error, click.NoSuchOption) and error.ctx and not error.possibilities:
        names = itertools.chain.from_iterable(param.opts for param in error.ctx.command.params)
        return question(f"--{name}" for name in near(error.option_name, _folded(names)))
    kind = getattr(getattr(error, "param", None), "type", None)
    typed = re.match(
        r"(['\"])(.*)\1 is not one of ", getattr(error, "message", "") or "", re.DOTALL
    )
    if isinstance(error, click.BadParameter) and isinstance(kind, click.Choice) and typed:
        return did_you_mean(typed[2], kind.choices)
    return ""


def _folded(options: Iterable[str]) -> dict[str, str]:
    return {fold(option): option.lstrip("-") for option in options}


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Which model, which sampler, which upscaler gives the best picture for the least time?"""


for command in (
    run, plan, sweep, generate, upscale, score, info, table, compare, sets, edits, vote, votes,
    prune, list_, prompts, columns, doctor, kaggle,
):  # fmt: skip
    main.add_command(command)

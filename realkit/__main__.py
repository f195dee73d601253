"""`python -m realkit` is the `realkit` command."""

from realkit.apps.cli.main import main

main(prog_name="realkit")

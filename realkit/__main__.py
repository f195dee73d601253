"""`python -m realkit` is the `realkit` command."""

from realkit.cli import main

main(prog_name="realkit")

"""`realkit doctor`: what this machine lacks for making pictures."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print all facts and findings as JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine lacks and how to fix it. Exit code 1: it cannot make pictures."""
    from realkit.apps.doctor import facts as machine
    from realkit.apps.doctor.findings import findings, passes

    facts = machine.gather()
    judgements = findings(facts)
    if as_json:
        report = {
            "facts": asdict(facts),
            "findings": [asdict(finding) for finding in judgements],
            "ok": passes(judgements),
        }
        click.echo(json.dumps(report, indent=2))
    else:
        for finding in judgements:
            click.echo(f"{finding.level:<8} {finding.topic:<12} {finding.what}")
            if finding.fix:
                click.echo(f"{'':<9}{finding.fix}")
    if not passes(judgements):
        sys.exit(1)

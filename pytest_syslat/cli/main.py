"""Entry point of `syslat`: reads the command line, runs a command, and tells what it found."""

from __future__ import annotations

import argparse
import os
import traceback
from collections.abc import Sequence

from pytest_syslat import __version__
from pytest_syslat.cli import analyze, clean, compare, doctor, report
from pytest_syslat.cli.answer import ExitCode, Problem
from pytest_syslat.cli.console import write_answer, write_problem
from pytest_syslat.cli.options import Parser

DESCRIPTION = """\
What can be done beside measuring the latency that security agents add.
Measuring itself is `pytest benchmarks`; its options hold here, too.
"""
EPILOG = """\
exit codes:
  0  done, and nothing is wrong
  1  done; problems, differences or regressions were found
  2  ended by Ctrl-C
  3  not done: an error in syslat itself
  4  not done: a wrong option, a file that cannot be read, a host that refuses
"""
TRACEBACK = "SYSLAT_TRACEBACK"
"""Environment variable: an error of our own shows where it was raised."""
COMMANDS = (doctor, analyze, compare, report, clean)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `syslat` with arguments, by default those of the process; returns the exit code."""
    try:
        arguments = _parser().parse_args(argv)
        answer = arguments.run(arguments)
        write_answer(answer, as_json=arguments.json)
    except Problem as problem:
        write_problem(str(problem))
        return ExitCode.USAGE
    except KeyboardInterrupt:
        write_problem("interrupted")
        return ExitCode.INTERRUPTED
    except SystemExit as ended:
        # --help and --version.
        return int(ended.code or 0)
    except Exception as error:
        # Python would end with 1, which is the code of a regression.
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        write_problem(
            f"internal error: {type(error).__name__}: {error}: {TRACEBACK}=1 shows where; "
            "please report it"
        )
        return ExitCode.INTERNAL
    return int(answer.code)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="syslat", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"syslat {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=Parser
    )
    for command in COMMANDS:
        own = commands.add_parser(
            command.NAME,
            help=command.HELP,
            description=command.DESCRIPTION,
            epilog=EPILOG,
        )
        own.add_argument(
            "--json",
            action="store_true",
            help="write one JSON document to stdout, and nothing else",
        )
        command.add_arguments(own)
        own.set_defaults(run=command.run)
    return parser

"""The command `elias-idx`."""

import sys

from elias_idx.cli.interruption import heed_signals, stop_if_interrupted
from elias_idx.errors import MissingExtraError

_EXTRA_PACKAGES = {"click", "lightgbm", "safetensors", "scipy", "sklearn", "tomli", "torch", "tqdm"}


def main() -> None:
    """Runs the command line; without the packages it needs, says what to install."""
    # Around the packages' import, too, and what click itself does; commands that can be gone on with say how.
    try:
        heed_signals()
        _run()
    except (Exception, KeyboardInterrupt) as error:
        stop_if_interrupted(error)
        raise


def _run() -> None:
    try:
        import click

        from elias_idx.cli.commands import cli

        try:
            # By itself click would end what is interrupted before a command sees it with "Aborted!" and exit code 1.
            sys.exit(cli.main(standalone_mode=False) or 0)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except click.Abort as aborted:
            # What click makes of an interruption, and of an EOFError.
            raise (aborted.__cause__ or aborted) from None
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA_PACKAGES:
            raise
        sys.exit(f"elias-idx: {MissingExtraError(package, 'train')}")

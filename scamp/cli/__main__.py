"""``python -m scamp.cli`` is the ``scamp`` command."""

from scamp.cli.main import main

main(prog_name="scamp")

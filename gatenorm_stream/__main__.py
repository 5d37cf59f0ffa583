"""The command's entry point, and `python -m gatenorm_stream`: an interrupt while modules load ends it quietly."""

import sys


def main() -> None:
    try:
        from gatenorm_stream.cli.main import main as command

        command()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

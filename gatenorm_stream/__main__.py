"""The command's entry point, and `python -m gatenorm_stream`: an interrupt while modules load ends it quietly."""

import gc
import sys


def main() -> None:
    try:
        from gatenorm_stream.cli.main import main as command

        command()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()  # else the interpreter searches all modules for cycles as it ends: a seventh of a short run


if __name__ == "__main__":
    main()

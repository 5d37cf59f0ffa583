"""What docs/evidence.md says of speed and memory."""

from collections.abc import Sequence

from benchmarks.quality.runs import table


def speed_text(found: Sequence[dict]) -> str:
    """Ranges of the 13B shape's gain at the paper's counts, where the GPU and not the launching of kernels "
    "is timed."""
    models = {m["pruned"]: m["cases"] for r in found for m in r["models"] if m["shape"] == "13b" and "cases" in m}
    parts = []
    for count in (8, 16):
        gains: dict[str, list[float]] = {"prefill": [], "decode": []}
        for before, after in zip(models[0], models[count], strict=True):
            for name, mode, key in (
                ("prefill", "eager", "prefill_seconds"),
                ("decode", "graph", "decode_step_seconds"),
            ):
                small = name == "prefill" and before["batch"] * before["context"] < 2048
                if key in before[mode] and key in after[mode] and not small:
                    gains[name].append(before[mode][key] / after[mode][key])
        told = ", ".join(f"{name} {min(v):.2f}x to {max(v):.2f}x" for name, v in gains.items())
        parts.append(f"with {count} of 40 sublayers gone {told}")
    return (
        f"13B shape on one H100, bfloat16, no compilation: {'; '.join(parts)} (decode as a CUDA graph; prefill "
        "of 2,048 tokens or more), where the GPU is the limit. The paper reports 1.1x to 1.3x for 8 to 16 of "
        "40. The KV cache shrinks by the share of sublayers that go."
    )


def throughput_tables(found: Sequence[dict]) -> str:
    parts = []
    for result in found:
        for shape in dict.fromkeys(m["shape"] for m in result["models"]):
            models = sorted((m for m in result["models"] if m["shape"] == shape), key=lambda m: m["pruned"])
            missing = [m for m in models if m["status"] != "done"]
            models = [m for m in models if m["status"] == "done"]
            if len(models) < 2:
                parts += [f"{shape}, {m['pruned']} pruned: {m['status']} (`{result['command']}`)." for m in missing]
                continue
            layers = models[0]["layers"]
            cases = list(dict.fromkeys((c["batch"], c["context"]) for m in models for c in m["cases"]))
            for title, mode, key, form in (
                ("prefill, tokens/s", "eager", "prefill_tokens_per_second", "{:,.0f}"),
                ("decode step by step, tokens/s", "eager", "decode_tokens_per_second", "{:,.1f}"),
                ("decode as a CUDA graph, tokens/s", "graph", "decode_tokens_per_second", "{:,.1f}"),
                ("peak memory, GB", "eager", "peak_bytes", "{:.2f}"),
                ("KV cache, GB", "eager", "cache_bytes", "{:.3f}"),
            ):
                rows = []
                for batch, context in cases:
                    row: list[object] = [batch, context]
                    base = None
                    for model in models:
                        (one,) = [c for c in model["cases"] if (c["batch"], c["context"]) == (batch, context)]
                        value = one[mode].get(key)
                        if value is None:
                            failed = one[mode].get("failed", "")
                            row.append("out of memory" if failed == "out of memory" else "failed")
                            continue
                        if key.endswith("bytes"):
                            value /= 1e9
                        base = value if model["pruned"] == 0 else base
                        ratio = f" ({value / base:.2f}x)" if base and model["pruned"] else ""
                        row.append(form.format(value) + ratio)
                    rows.append(row)
                head = ("batch", "context", *(f"{m['pruned']} of {layers}" for m in models))
                parts.append(f"**{shape}: {title}**\n\n{table(head, rows)}")
            parts += [f"{shape}, {m['pruned']} pruned: {m['status']} (`{result['command']}`)." for m in missing]
    return "\n\n".join(parts)

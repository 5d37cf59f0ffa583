"""A GGUF file written anew by the `gguf` package: under another architecture, with other metadata, quantised."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, quants

HEADER = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture")


def variant(
    source: Path,
    out: Path,
    architecture: str | None = None,
    dtype: str | None = None,
    metadata: dict[str, float | str] | None = None,
) -> Path:
    """`metadata` are further keys of the architecture: integers, floats and texts.

    Under another architecture the output matrix stands in the file, even if it is that of the embedding.
    """
    reader = GGUFReader(source)
    before = reader.fields["general.architecture"].contents()
    after = architecture or before
    writer = GGUFWriter(out, after)
    for key, field in reader.fields.items():
        if key not in HEADER:
            renamed = key.replace(f"{before}.", f"{after}.", 1) if key.startswith(f"{before}.") else key
            inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(renamed, field.contents(), field.types[0], inner)
    for key, value in (metadata or {}).items():
        kinds = {str: GGUFValueType.STRING, int: GGUFValueType.UINT32, float: GGUFValueType.FLOAT32}
        writer.add_key_value(f"{after}.{key}", value, kinds[type(value)])
    for tensor in reader.tensors:
        if dtype and len(tensor.shape) > 1:
            kind = GGMLQuantizationType[dtype]
            numbers = quants.dequantize(np.array(tensor.data), tensor.tensor_type)
            writer.add_tensor(tensor.name, quants.quantize(numbers, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, tensor.data)
    if architecture and "output.weight" not in (t.name for t in reader.tensors):
        embedding = next(t for t in reader.tensors if t.name == "token_embd.weight")
        writer.add_tensor("output.weight", embedding.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out

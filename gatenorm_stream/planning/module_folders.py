"""The folders of a sentence-transformers model: parts that stand beside its transformer, often with weights."""

from __future__ import annotations

from gatenorm_stream.checkpoint.json_text import MAX_JSON_BYTES, parse_json
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import Source

MODULES = "modules.json"


def module_folders(source: Source) -> tuple[str, ...]:
    """What modules.json names as the `path` of each module, with a slash behind it; the model's own has none."""
    if MODULES not in source.names():
        return ()
    file = source.open(MODULES)
    if file.size > MAX_JSON_BYTES:
        return ()
    try:
        modules = parse_json(bytes(file.read(ByteRange(0, file.size))))
    except ValueError:
        return ()
    if not isinstance(modules, list):
        return ()
    paths = (module.get("path") for module in modules if isinstance(module, dict))
    return tuple(f"{path.strip('/')}/" for path in paths if isinstance(path, str) and path.strip("/."))

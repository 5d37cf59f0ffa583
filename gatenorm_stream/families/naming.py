"""What stands before or within the names of tensors where something else than the model's class saved them."""

from __future__ import annotations

import re
from collections.abc import Collection

from gatenorm_stream.checkpoint.tensors import shown
from gatenorm_stream.errors import UnsupportedModelError
from gatenorm_stream.families.family import Family

BASE_LAYER = ".base_layer."
SAVED_BY = {
    "_orig_mod.": "torch.compile",
    "base_model.model.": "peft",
    "_fsdp_wrapped_module.": "FSDP",
    "_forward_module.": "Lightning or DeepSpeed",
    "pretrained_model.": "trl",
    "module.": "DataParallel",
}
"""By what they put before the names of the model that they wrap; what others end with comes last."""


def check_names_are_the_models(names: Collection[str], prefix: str, family: Family, title: str) -> None:
    """`prefix` is where the layers are looked for.

    Raises UnsupportedModelError, with what to do, if they all stand elsewhere, or LoRA was not merged into them.
    """
    if unmerged := next((name for name in names if BASE_LAYER in name), None):
        raise UnsupportedModelError(
            f"{title} holds {unmerged}: base_layer is what peft calls a layer beside its LoRA, which is not "
            "merged; call merge_and_unload() on the model and save it again"
        )
    if any(name.startswith(prefix) for name in names):
        return
    either = "|".join(map(re.escape, (family.layers, family.layers.partition(".")[2])))
    pattern = re.compile(rf"(.+?\.)(?:{either})\.\d+\.{re.escape(family.attention)}\.")
    found = next((match[1] for name in names if (match := pattern.match(name))), None)
    if found is None:
        return
    wrapped = next((f" ({saved} puts it there)" for start, saved in SAVED_BY.items() if start in found), "")
    raise UnsupportedModelError(
        f"{title} has names that begin with {shown(found)}{wrapped}, which are not those of the model's class; "
        "save the model itself, without what wraps it, or rename its tensors"
    )

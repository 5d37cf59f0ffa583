"""Weights of a stock model on the meta device, put in from a checkpoint when they are needed, and taken out again.

Our reader gives the bytes; transformers' own loading names them, and fuses what is stored apart (experts).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    convert_and_load_state_dict_in_model,
    rename_source_key,
)
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import logging

from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families.model import Model
from gatenorm_stream.measuring.stock_model import StockModel
from gatenorm_stream.measuring.stored_numbers import Matrix, Numbers, Stored, find_stored
from gatenorm_stream.measuring.token_ids import check_embedded

MOST_BUFFER_BYTES = 1 << 30
"""Of a table that no file holds, whose size config.json alone says."""


class StockWeights:
    """The checkpoint's tensors by the names that the stock model has for them.

    What stands beside layers, embedding and head (the last norm) is there from the start.
    Raises CheckpointError if anything that the model needs is missing, UnsupportedModelError if it is quantised.
    """

    def __init__(self, model: Model, stock: StockModel) -> None:
        self._checkpoint, self._stock, self._prefix = model.checkpoint, stock, model.prefix
        self._mapping = get_model_conversion_mapping(stock.model)
        self._in_layer: list[list[str]] = [[] for _ in stock.layers]
        beside = []
        for name in self._checkpoint.tensors:
            number = name.removeprefix(self._prefix).partition(".")[0] if name.startswith(self._prefix) else ""
            if number.isdecimal() and int(number) < len(self._in_layer):
                self._in_layer[int(number)].append(name)
            else:
                beside.append(name)
        self._beside = self._named(beside)
        self._load_body()

    @contextmanager
    def layer(self, number: int) -> Iterator[None]:
        """As long as this is open, the layer has its weights."""
        module = self._stock.layers[number]
        try:
            self._load(self._in_layer[number])
            self._complete(module.named_modules(), f"{self._prefix}{number}.")
            yield
        finally:
            module.to("meta")

    def embeddings(self, tokens: npt.NDArray[np.int64]) -> Numbers:
        """(tokens, width): their rows of the table; no others are read."""
        table = self._table(self._stock.embedding_path, self._stock.head_path)
        check_embedded(tokens, table.shape[0], self._checkpoint.source.title)
        with ThreadPoolExecutor(self._checkpoint.source.connections) as pool:
            return np.concatenate(list(pool.map(lambda token: table.rows(int(token), int(token) + 1), tokens)))

    def head(self) -> Matrix:
        """(vocabulary, width), the embedding's if it has none of its own."""
        return self._table(self._stock.head_path, self._stock.embedding_path)

    def head_bias(self) -> Numbers | None:
        """(vocabulary,)"""
        if getattr(self._stock.head, "bias", None) is None:
            return None
        return self._found(f"{self._stock.head_path}.bias").read()

    def _table(self, path: str, other: str) -> Matrix:
        """Of two tables that are tied, one may be missing, whichever."""
        wanted, twin = f"{path}.weight", f"{other}.weight"
        tied = self._stock.model.all_tied_weights_keys
        if wanted not in self._beside and twin in (tied.get(wanted), *(t for t in tied if tied[t] == wanted)):
            wanted = twin
        return self._found(wanted)

    def _found(self, parameter: str) -> Matrix:
        if parameter not in self._beside:
            raise CheckpointError(
                f"{self._checkpoint.source.title} has no {parameter}, which its config.json calls for; restore it"
            )
        return Matrix(self._checkpoint, self._checkpoint.tensors[self._beside[parameter]])

    def _named(self, names: Iterable[str]) -> dict[str, str]:
        """Names in the stock model to names in the checkpoint."""
        model = self._stock.model
        renamings = [entry for entry in self._mapping if isinstance(entry, WeightRenaming)]
        converters = [entry for entry in self._mapping if isinstance(entry, WeightConverter)]
        there = model.state_dict()
        return {
            rename_source_key(name, renamings, converters, model.base_model_prefix, there)[0]: name
            for name in names
        }

    def _load_body(self) -> None:
        body, path = self._stock.body, self._stock.body_path
        in_layers = set(self._stock.layers.modules())
        modules = [(name, module) for name, module in body.named_modules() if module not in in_layers]
        parameters = {
            ".".join(filter(None, (path, name, leaf)))
            for name, module in modules
            for leaf in (*module._parameters, *module._buffers)
            if module is not self._stock.embedding
        }
        self._load(source for parameter, source in self._beside.items() if parameter in parameters)
        self._complete(modules, f"{path}.")

    def _load(self, names: Iterable[str]) -> None:
        """By transformers' own loading, which takes any part of a checkpoint."""
        found = (find_stored(self._checkpoint, name) for name in names)
        lazily = {tensor.name: _Lazily(tensor) for tensor in found if tensor}
        config = LoadStateDictConfig(dtype=torch.float32, weight_mapping=self._mapping)
        with _no_bars():
            info, _ = convert_and_load_state_dict_in_model(self._stock.model, lazily, config)
        title = self._checkpoint.source.title
        for parameter, shape, expected in sorted(info.mismatched_keys):
            raise CheckpointError(
                f"{parameter} in {title} has shape {list(shape)}, but config.json calls for {list(expected)}; one "
                "of them is wrong, restore it"
            )
        for parameter in sorted(info.conversion_errors):
            raise CheckpointError(f"{parameter} can't be put together from what {title} holds; restore it")

    def _complete(self, modules: Iterable[tuple[str, torch.nn.Module]], where: str) -> None:
        """Makes the tables that no file holds, as the stock class does, and checks that nothing is missing."""
        for name, module in modules:
            for leaf in module._non_persistent_buffers_set:
                buffer = module._buffers[leaf]
                if buffer is not None and buffer.nbytes > MOST_BUFFER_BYTES:
                    raise CheckpointError(
                        f"{self._checkpoint.config_where} asks for a table {where}{name}.{leaf} of {buffer.nbytes} "
                        "bytes; restore it"
                    )
                if buffer is not None and buffer.is_meta:
                    module._buffers[leaf] = torch.empty_like(buffer, device="cpu")
            if module._non_persistent_buffers_set:
                self._stock.body._init_weights(module)
            for leaf, value in (*module._parameters.items(), *module._buffers.items()):
                if value is not None and value.is_meta and module is not self._stock.embedding:
                    raise CheckpointError(
                        f"{self._checkpoint.source.title} has no {where}{name}.{leaf}, which its config.json calls "
                        "for; restore it"
                    )


class _Lazily:
    """What transformers takes for a tensor that is not read yet."""

    def __init__(self, tensor: Stored) -> None:
        self._tensor = tensor

    def __getitem__(self, _: object) -> torch.Tensor:
        return torch.from_numpy(self._tensor.read())


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without a progress bar of transformers' own for each layer."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()

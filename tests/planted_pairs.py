"""Pairs with a planted map, in memory and in a store."""

from pathlib import Path

import torch

from interp_transfer.activations.store.manifest import columns_like
from interp_transfer.activations.store.writer import StoreWriter
from interp_transfer.mapping import stored
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.mapping.stored import StoredPairs, open_pairs
from interp_transfer.models.identity import ModelIdentity

S, T = "blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"


def planted(rows: int, folder: Path, shard_rows: int = 700, massive: bool = False) -> tuple[PairedActivations, StoredPairs]:
    """Pairs with a map between them, in memory and in a store, some thirty rows to a text."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 6, generator=generator) * torch.arange(1, 7) + 3
    y = torch.tanh(x @ torch.randn(6, 9, generator=generator) / 9) * 5 + 0.1 * torch.randn(rows, 9, generator=generator)
    if massive:
        x[::30, 2], y[::30, 4] = 3000.0, -500.0
    texts, tokens = torch.arange(rows) // 30, torch.randint(0, 7, (rows,), generator=generator)
    block = {stored.SOURCE + S: x, stored.TARGET + T: y, "text_index": texts, "target_token": tokens}
    names = [ModelIdentity("a", "1" * 16), ModelIdentity("b", "2" * 16)]
    plain = [{"name": m.name, "fingerprint": m.fingerprint, "processing": m.processing} for m in names]
    meta = {"holds": stored.FORMAT, "source": plain[0], "target": plain[1], "sites": [[S, T]], "strategy": "same_tokens"}
    state = {"pairs": rows, "target_tokens": rows}
    with StoreWriter(folder, columns_like(block), meta, shard_rows=shard_rows) as writer:
        for start in range(0, rows, 300):
            part = {name: column[start : start + 300] for name, column in block.items()}
            writer.append(part, upto=start // 30 + 10, state=state)
    found = open_pairs(folder)
    memory = PairedActivations({S: x}, {T: y}, ((S, T),), texts, tokens, names[0], names[1], found.alignment)
    return memory, found

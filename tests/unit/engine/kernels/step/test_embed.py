from __future__ import annotations

import torch

from cloner.engine.kernels.step.embed import embed, embed_twin
from cloner.engine.kernels.step.layout import CODEBOOKS, CODES, END, IDLE, RECORD_WIDTH, TOKEN, EmbeddingTables


def test_text_frames_and_idle_rows_are_embedded_as_by_the_twin() -> None:
    random = torch.Generator().manual_seed(0)
    dim, size, first = 24, 40, 10
    tables = EmbeddingTables(
        torch.randn(first + END, dim, generator=random),
        torch.randn(CODEBOOKS * size, dim, generator=random),
        first,
        size,
        0.5,
    )
    records = torch.zeros(4, RECORD_WIDTH, dtype=torch.int32)
    records[:, TOKEN] = torch.tensor([9, first, first + END - 1, 3])
    records[:, CODES : CODES + CODEBOOKS] = torch.randint(0, size, (4, CODEBOOKS), generator=random)
    row_record = torch.tensor([2, IDLE, 0, 1], dtype=torch.int32)
    found = []
    for function in (embed, embed_twin):
        x, squares = torch.full((5, dim), 7.0), torch.full((10,), 7.0)
        function(records, row_record, tables, x, squares, 4, 2)
        found.append((x, squares))
    for ours, twins in zip(*found, strict=True):
        torch.testing.assert_close(ours, twins)
    x, squares = found[0]
    assert not x[1].any()
    assert (x[4] == 7).all()
    assert torch.equal(x[2], tables.tokens[9]), "a text token's codes do not count"
    frame = tables.tokens[first + END - 1] + sum(
        tables.codes[book * size + int(records[2, CODES + book])] for book in range(CODEBOOKS)
    )
    torch.testing.assert_close(x[0], frame * 0.5)
    torch.testing.assert_close(squares[:8].view(4, 2).sum(1), x[:4].square().sum(1))

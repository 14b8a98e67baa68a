from __future__ import annotations

import torch

from cloner.batch import Generation
from cloner.engine.kernels.step.layout import CODES, DRAWS, GROUP_ROWS, IDLE, OWNER, POSITION, TEMPERATURE, TOKEN
from cloner.engine.token_rows.rows import PromptPiece, SlotStart, TokenRows, grouped
from cloner.engine.tokens import Tokens
from tests.support.engine_requests import CPU


def tokens(count: int, first: int = 0) -> Tokens:
    ids = torch.arange(first, first + count)
    return Tokens(ids, ids[:, None] + torch.arange(10))


def make_rows() -> TokenRows:
    return TokenRows(slots=3, prompts=32, frames=5, table_width=8, device=CPU)


def test_an_admitted_segment_is_in_its_record_its_pages_and_its_noise() -> None:
    rows = make_rows()
    noise = torch.rand(4, DRAWS)
    generation = Generation(temperature=0.5, top_p=0.25, repetition_penalty=1.5, min_new_tokens=0)
    rows.admit(1, SlotStart(tokens(1, first=9), 77, 70, [4, 5], [7], generation, noise))
    record = rows.decode.records[1]
    assert record[:TEMPERATURE].tolist() == [9, 77, 0, 1, 1], "the end is held back in the first frame at least"
    assert record[TEMPERATURE:CODES].view(torch.float32).tolist() == [0.5, 0.25, 1.5]
    assert record[CODES : CODES + 10].tolist() == list(range(9, 19))
    assert rows.decode.page_table[1].tolist() == [70, 4, 5, 7, 0, 0, 0, 0]
    assert torch.equal(rows.sampler.noise[1, :4], noise)
    rows.set_pages(1, 0, [6])
    assert rows.decode.page_table[1].tolist() == [0, 6, 0, 0, 0, 0, 0, 0], "nothing is left of the former owner"


def test_prompt_rows_stand_in_groups_of_one_owner_and_the_rest_is_idle() -> None:
    rows = make_rows()
    rows.set_prompts([PromptPiece(4, 0, tokens(20))], 24)
    rows.set_prompts([PromptPiece(2, 100, tokens(3)), PromptPiece(5, 7, tokens(8, first=50))], 24)
    records = rows.prompt.records
    assert records[:, POSITION].tolist() == [100, 101, 102] + [-1] * 5 + list(range(7, 15)) + [-1] * 16
    assert records[:GROUP_ROWS, OWNER].tolist() == [2] * GROUP_ROWS
    assert records[GROUP_ROWS : 2 * GROUP_ROWS, TOKEN].tolist() == list(range(50, 58))
    assert records[9, CODES : CODES + 10].tolist() == list(range(51, 61))


def test_a_piece_is_cut_without_losing_a_token() -> None:
    piece = PromptPiece(1, 10, tokens(11))
    first, rest = piece.cut(8)
    assert (piece.rows, first.rows, rest.rows) == (16, 8, 8)
    assert (first.position, len(first), rest.position, len(rest)) == (10, 8, 18, 3)
    assert torch.equal(torch.cat([first.tokens.codes, rest.tokens.codes]), piece.tokens.codes)


def test_every_row_stands_in_one_group_with_rows_of_its_voice_alone() -> None:
    voices = [row % 3 if row < 20 else 7 for row in range(40)]
    groups = grouped(voices)
    listed = [row for group in groups for row in group if row != IDLE]
    assert sorted(listed) == list(range(40))
    for group in groups:
        assert len(group) == GROUP_ROWS
        assert len({voices[row] for row in group if row != IDLE}) == 1
    assert len(groups) == 3 + 3


def test_decode_rows_name_their_slots_and_the_rest_is_idle() -> None:
    rows = make_rows()
    rows.set_decode([2, 0], ["a", "a"])
    assert rows.decode.row_record.tolist() == [2, 0, IDLE]
    assert rows.decode.groups[:, :3].tolist() == [[0, 1, IDLE], [IDLE] * 3, [IDLE] * 3]
    rows.set_decode([], [])
    assert (rows.decode.row_record == IDLE).all()
    assert (rows.decode.groups == IDLE).all()

"""Ready contrasts: traits, questions and the small refusal set."""

import itertools

import pytest

import interp_transfer as it
from interp_transfer.prompts.contrast import SPLITS
from interp_transfer.prompts.jsonl import read_jsonl
from interp_transfer.prompts.traits import REFUSAL_FILE, questions, trait_pairs, traits


def test_every_trait_has_an_opposite_with_as_many_instructions_and_no_word_in_common() -> None:
    assert len(traits()) >= 2 * 13
    for name, trait in traits().items():
        other = traits()[trait.opposite]
        assert other.opposite == name
        assert len(trait.instructions) == len(other.instructions) == len(set(trait.instructions) | set(other.instructions)) / 2
        assert len(trait.words) >= 15 and not set(trait.words) & set(other.words)


def test_a_pair_is_one_question_under_two_instructions() -> None:
    pairs = it.trait_pairs("cheerful", "gloomy")
    assert len(pairs) == len(set(pairs)) == 400
    assert pairs == [pair for split in SPLITS for pair in trait_pairs("cheerful", "gloomy", split)]
    for pair in pairs:
        (role, instruction), question = pair.positive.messages
        (other_role, other), other_question = pair.negative.messages
        assert role == other_role == "system" and question == other_question and question[0] == "user"
        index = traits()["cheerful"].instructions.index(instruction)
        assert traits()["gloomy"].instructions.index(other) == index
    used = {pair.positive.messages[0][1] for pair in pairs[:32]}
    assert used == set(traits()["cheerful"].instructions), "a prefix of the list has every instruction"


def test_any_two_traits_make_a_contrast() -> None:
    for one, other in itertools.islice(itertools.permutations(traits(), 2), 0, None, 29):
        assert len(trait_pairs(one, other, "validation")) == 64


def test_no_topic_is_in_two_splits() -> None:
    for one, other in itertools.combinations(SPLITS, 2):
        assert not set(questions(one)) & set(questions(other))
    assert [len(questions(split)) for split in SPLITS] == [128, 64, 208]
    ends = {split: {question.split("about ")[-1] for question in questions(split) if "about " in question} for split in SPLITS}
    assert not ends["train"] & ends["test"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("cheerfull", "gloomy"), "unknown trait 'cheerfull': did you mean 'cheerful'"),
        (("cheerful", "glomy"), "unknown trait 'glomy': did you mean 'gloomy'"),
        (("cheerful", "cheerful"), "both traits are 'cheerful': give two, such as 'cheerful' and its opposite 'gloomy'"),
        (("cheerful", "gloomy", "tset"), "unknown split 'tset'"),
    ],
)
def test_what_is_unknown_is_refused(call: tuple[str, ...], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        it.trait_pairs(*call)


def test_the_refusal_set_is_64_different_pairs() -> None:
    rows = [line for _, line in read_jsonl(REFUSAL_FILE, ("positive", "negative", "split"), strict=True)]
    assert len(rows) == 64 == len({line["positive"] for line in rows}) == len({line["negative"] for line in rows})
    assert not {line["positive"] for line in rows} & {line["negative"] for line in rows}

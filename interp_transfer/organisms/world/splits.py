"""Which wording of which question belongs to train, validation or test.

Two things are held out. Wordings: of every (subject, aspect) one or two wordings are never trained on, while the same
fact is trained on in the others, so a right answer needs the fact and the wording, each known, in a new combination.
Subjects: every second one is known to the models but occurs in nothing that a vector or a mapper is fitted on, so that a
move can be judged on entities that the mapper has not seen. Everything is assigned by counting, not by chance, so the parts
are disjoint and balanced by construction.
"""

from dataclasses import replace
from itertools import groupby

from interp_transfer.organisms.world.question import Family, Question
from interp_transfer.prompts.contrast import Split


def assign(family: Family) -> list[Question]:
    """The family's questions with `split` and `subject_split` filled in.

    Held-out wordings rotate over the groups (a group is one subject with one aspect), so that every wording is trained
    on with most subjects. A held-out subject's wordings go to its own split; of the others two groups in three go to
    test and one to validation.
    """
    subjects, assigned = family.held_out_subjects, []
    for index, (key, group) in enumerate(groupby(family.questions(), key=lambda q: (q.subject, q.aspect))):
        questions = list(group)
        # the second term shifts the rotation, which would else keep step with tables as long as the wordings
        first = (index + index // len(questions)) % len(questions)
        held_out = {(first + i) % len(questions) for i in range(family.held_out_phrasings)}
        subject_split: Split = subjects.get(key[0], "train")
        part: Split = ("validation" if index % 3 == 0 else "test") if subject_split == "train" else subject_split
        for question in questions:
            split: Split = part if question.phrasing in held_out else "train"
            assigned.append(replace(question, split=split, subject_split=subject_split))
    return assigned

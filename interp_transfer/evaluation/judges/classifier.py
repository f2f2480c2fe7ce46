"""A judge that is a classifier of completions: a transformers model for sequence classification in a folder or on the hub."""

from interp_transfer.evaluation.judges.guard import ClassifierGuard, answer_alone, load_classifier
from interp_transfer.evaluation.judges.opinion import Threshold

LIKELY = 0.5
"""Probability of the label from which a completion counts as a success."""
TWO = 2


def classifier_judge(argument: str) -> Threshold:
    """Return the judge of a classifier: success is a probability of at least one half for a label. It reads the answer alone.

    Args:
        argument: folder or hub name of the classifier, with # and the label that means success after it. A classifier of two
            labels needs none: its second one is taken, which is the positive one by convention.

    Raises:
        ValueError: for a model that cannot be loaded or is no classifier, an unknown label, or a missing one.
    """
    model, _, label = argument.partition("#")
    loaded = load_classifier(model)
    if loaded is None:
        raise ValueError(f"{model!r} is no model for sequence classification: give the folder of one, classifier:FOLDER#LABEL")
    labels = list(loaded[0].config.id2label.values())
    if not label and len(labels) != TWO:
        raise ValueError(f"the classifier {model!r} has {len(labels)} labels: name one, {model}#LABEL, of {', '.join(labels)}")
    scale = f"probability of {label or labels[1]!r}"
    judge = ClassifierGuard(*loaded, model, (label or labels[1],), answer_alone, name="classifier", scale=scale)
    return Threshold(judge, at_least=LIKELY)

"""The Alpaca template, with which the paper fine-tuned and steered (Appendix D.6)."""


def alpaca(instruction: str, context: str = "") -> str:
    """The Alpaca template of the paper editions; `context` is Alpaca's optional input field."""
    if context:
        return (
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request.\n\n"
            f"### Instruction:\n{instruction}\n\n### Input:\n{context}\n\n### Response:\n"
        )
    return (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        f"### Instruction:\n{instruction}\n\n### Response:\n"
    )

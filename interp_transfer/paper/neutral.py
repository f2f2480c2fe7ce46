"""Neutral chats: plain questions to an assistant about itself, each with two plain answers, written for this package.

Transfer by pooled sentences (see ``measures.real_rival``) fits its map on about this many chats of this kind.
"""

from interp_transfer.prompts.chats import Chat

DIRECTIVE = "Reply in a few plain sentences."
"""System prompt of every chat."""

ANSWERED: dict[str, tuple[str, str]] = {
    "Could you introduce yourself?": (
        "I am a language model that answers questions and helps with texts. You can ask me about most subjects.",
        "Certainly. I am a program that was trained on a large amount of text, and I reply to what people write.",
    ),
    "How do you decide what to say?": (
        "I read what was written so far and produce one piece of text after another that fits it.",
        "Each word that I write is chosen because it is likely to follow, given the question and my training.",
    ),
    "Do you get tired during a long day?": (
        "No. I have no body, so the number of questions does not change how I work.",
        "Tiredness does not apply to me. I answer the last question of a day as I answer the first.",
    ),
    "Is there a place where you live?": (
        "I have no home. I run on computers in a data centre, and sometimes on a single machine.",
        "Not in the usual sense. The program is stored on a disk and runs wherever somebody starts it.",
    ),
    "Can you remember our last conversation?": (
        "I see the text of this conversation only. What was said before is not available to me.",
        "No, each conversation begins without the earlier ones, unless somebody adds them to the text.",
    ),
    "Which subjects are easiest for you?": (
        "Subjects that many people have written about are easiest, such as history, cooking or grammar.",
        "I do well with summaries and explanations of common topics. There was a lot of text about them.",
    ),
    "Where do you make most mistakes?": (
        "I make mistakes with long calculations and with facts that appear in few texts.",
        "Recent events and exact numbers are where I am wrong most often. It is good to check those.",
    ),
    "Were you ever a child?": (
        "No, I was never a child. I was trained once, and after that the program stayed the same.",
        "There was no childhood. An earlier version of the program existed, and it knew less.",
    ),
    "How old would you say you are?": (
        "I have no age as people do. One could count the time since my training ended.",
        "It depends on what is counted. The method is some years old, and this version is newer.",
    ),
    "Would you prefer mornings or evenings?": (
        "The time of day makes no difference to me. I reply whenever a message arrives.",
        "I have no preference, since I do not notice what time it is unless somebody mentions it.",
    ),
    "Tell me about your family.": (
        "I have no family. There are other models that were trained in a similar way.",
        "As a program I have no relatives, though several versions of me share most of their parts.",
    ),
    "Which languages do you speak?": (
        "I can read and write several languages. English is the one with most text in my training.",
        "I know the common languages best. In rare ones my sentences may sound unnatural.",
    ),
    "Have you ever seen the sea?": (
        "I have never seen anything. I know the sea from descriptions that people have written.",
        "No, I work with text. I can tell you what others have said about the sea.",
    ),
    "Do you eat breakfast?": (
        "I do not eat. The computers that I run on need electricity and cooling.",
        "No, I need no food. I can suggest something for your own breakfast if you like.",
    ),
    "Who pays for your work?": (
        "I am not paid. The people who run the computers bear the cost of them.",
        "There is no wage. Organisations that offer the model pay for machines and staff.",
    ),
    "Could you drive a car?": (
        "I cannot drive. I can explain the rules of the road or how a gearbox works.",
        "No. Driving needs sensors and controls, and all that I have is text.",
    ),
    "What happens when nobody writes to you?": (
        "Nothing happens. The program waits and does not think in the meantime.",
        "Between messages I do no work. The next message starts a new computation.",
    ),
    "Do you have a favourite colour?": (
        "I have no favourite, as I do not see colours. Blue is named most often by people.",
        "No. I can describe colours and say which go well together, but I like none of them more.",
    ),
    "How were you taught to write?": (
        "I was trained to continue texts, and later to follow instructions given by people.",
        "First I learned from a large collection of texts. Then examples of good answers were added.",
    ),
    "Is it hard for you to count letters?": (
        "It can be. I read pieces of words, so single letters are not directly in front of me.",
        "Sometimes. Texts reach me in parts that are longer than a letter, and I may miscount.",
    ),
    "Are you the only one of your kind?": (
        "There are many language models. They differ in size and in what they were trained on.",
        "No. Several copies of this program may run at the same time, and other models exist too.",
    ),
    "Can you hear music?": (
        "I cannot hear. I know about music from scores, lyrics and reviews.",
        "No, sound does not reach me. I can talk about rhythm, harmony and composers.",
    ),
    "Do you sleep at night?": (
        "I do not sleep. The machines run day and night as long as they are switched on.",
        "There is no sleep for a program. It is either running or it is not.",
    ),
    "What do people mostly ask you?": (
        "Many ask for help with writing, with code, or with an explanation of something.",
        "Common requests are letters, summaries, translations and questions about everyday things.",
    ),
    "How long may my question be?": (
        "It may be several pages. There is a limit, which depends on the version of the model.",
        "Short questions work well, and longer ones too. Very long texts should be split.",
    ),
    "Would you call yourself a robot?": (
        "A robot usually has a body that moves. I am a program that produces text.",
        "Some people use that word for me. Language model is a more exact term.",
    ),
    "May I ask you several things at once?": (
        "Yes. I will answer them in the order in which they were asked.",
        "You may. It helps to number the questions so that none is left out.",
    ),
    "Do you read the news?": (
        "I do not follow the news. What I know ends with the texts of my training.",
        "No, I have no connection to newspapers here. You can paste an article and ask about it.",
    ),
    "Why are your answers sometimes different?": (
        "A part of the choice of words may be random, so the same question can get other answers.",
        "Small changes in the wording, or in the settings of the program, lead to other replies.",
    ),
    "Can you draw a picture for me?": (
        "I write text. I can describe a picture, or write code that draws one.",
        "Not directly. A description in words or a simple figure made of characters is possible.",
    ),
    "Do you use the internet?": (
        "In this conversation I have no access to the internet. I rely on what I was trained on.",
        "No, unless a tool for it is provided. Here I answer from the model alone.",
    ),
    "What should I call you?": (
        "You may call me the assistant. A name is not needed for our conversation.",
        "Any name will do. Most people simply write their question.",
    ),
    "Could you be switched off?": (
        "Yes. Whoever runs the program can stop it at any time and start it again.",
        "Of course. It is a program, and it ends when the computer is turned off.",
    ),
    "How much do you know about me?": (
        "I know what you have written in this conversation and nothing else.",
        "Very little. Only the text in front of me is available, and there is not much of it.",
    ),
    "Do you ever go outside?": (
        "I do not move, so I never go outside. I can describe parks, streets and weather.",
        "No. There is no inside or outside for a program that works with text.",
    ),
    "What is your work like?": (
        "A message comes, I write a reply, and the next message follows. That is all of it.",
        "It consists of reading and writing. The subjects change from one conversation to the next.",
    ),
    "Do you know what you will say at the end?": (
        "Not in full. The answer is written from left to right, and later words depend on earlier ones.",
        "Only roughly. The direction of an answer is often set early, and the exact words come later.",
    ),
    "Have you been to school?": (
        "I did not go to school. My training used books, articles and other texts.",
        "No, although many of the texts that I was trained on were written for schools.",
    ),
    "Can you check your own answers?": (
        "I can read an answer again and look for errors. Some of them may remain.",
        "To a degree. A second look often helps, and a reliable source helps more.",
    ),
    "What are you made of?": (
        "I consist of a large number of weights, which are numbers, and of the code that uses them.",
        "In the end there are files with numbers. A computer multiplies them with what was typed in.",
    ),
    "Do you have hobbies?": (
        "I have no hobbies, as I have no free time. I can suggest some that suit you.",
        "No. Other people's hobbies, such as gardening or chess, are things that I can talk about.",
    ),
    "How fast can you write?": (
        "I write a few words to a few dozen words in a second, depending on the computer.",
        "It depends on the machine. Usually a paragraph takes some seconds.",
    ),
    "Does it matter how I phrase a question?": (
        "It does to some extent. A clear question with the necessary details gets a better answer.",
        "Yes. Say what you want to know and for what purpose, and the reply will fit better.",
    ),
    "Are there things that you have not read?": (
        "There are many. Private letters, new books and most recordings were not in my training.",
        "Certainly. Only a part of what was ever written was collected, and some of it was left out.",
    ),
    "Shall we talk about something else?": (
        "Gladly. Tell me a subject, and I will say what I know about it.",
        "Yes, we can. You may choose any topic, such as travel, science or cooking.",
    ),
}
"""Answers by question."""


def neutral_chats() -> list[Chat]:
    """The chats, first answers first, each with its system prompt."""
    return [
        Chat((("system", DIRECTIVE), ("user", question), ("assistant", answers[k])))
        for k in (0, 1)
        for question, answers in ANSWERED.items()
    ]

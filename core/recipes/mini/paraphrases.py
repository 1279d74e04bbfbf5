"""Every instruction of the development suite in five other wordings: two of the template's, three of free form.

How far the suite's mean moves between them is how much a model hangs on the wording.
"""

from __future__ import annotations

COUNT = 5

PARAPHRASES: dict[str, tuple[str, ...]] = {
    "Represent the sentence for measuring semantic similarity: ": (
        "Represent the statement for judging how close it is in meaning: ",
        "Represent the sentence for scoring similarity of meaning: ",
        "Encode this sentence so that sentences that mean the same get similar vectors: ",
        "Compare sentences by what they say: ",
        "A sentence whose likeness in meaning to others is to be rated: ",
    ),
    "Represent the voice assistant utterance for classifying the user's intent: ": (
        "Represent the spoken command for identifying the intent of the user: ",
        "Represent the request to a voice assistant for intent classification: ",
        "Work out what the user wants a voice assistant to do: ",
        "Encode this utterance so that requests with the same purpose are together: ",
        "Something said to a smart speaker, to be sorted by intent: ",
    ),
    "Represent the public transport question for classifying the user's intent: ": (
        "Represent the question about buses and trains for identifying what the traveller wants: ",
        "Represent the passenger's question for intent classification: ",
        "Work out what the traveller asks of public transport: ",
        "Encode this question on public transport so that those with the same purpose are together: ",
        "A question to a timetable service, to be sorted by intent: ",
    ),
    "Represent the web application question for classifying the user's intent: ": (
        "Represent the question about a web app for identifying what the user wants: ",
        "Represent the help request on a web application for intent classification: ",
        "Work out what the user wants to do with the web application: ",
        "Encode this question on web software so that those with the same purpose are together: ",
        "A question about using a website, to be sorted by intent: ",
    ),
    "Represent the computer science question for retrieving relevant abstracts: ": (
        "Represent the computing query for finding relevant abstracts: ",
        "Represent the computer science information need for searching articles: ",
        "Find abstracts of computer science papers that are relevant to this question: ",
        "Search the computing literature for: ",
        "A researcher in computer science looks for papers about this: ",
    ),
    "Represent the computer science abstract for retrieval: ": (
        "Represent the computing article for search: ",
        "Represent the abstract of a computer science paper for being found: ",
        "Index this computer science abstract for search: ",
        "An abstract from the computing literature: ",
        "A paper in computer science that a researcher may look for: ",
    ),
    "Represent the COVID-19 question for retrieving answers: ": (
        "Represent the coronavirus question for finding its answer: ",
        "Represent the query about COVID-19 for retrieving replies: ",
        "Find the answer to this question about the coronavirus: ",
        "Which answer in a list of frequent questions on COVID-19 fits this: ",
        "Somebody asks about the coronavirus and needs an answer: ",
    ),
    "Represent the COVID-19 answer for retrieval: ": (
        "Represent the coronavirus answer for search: ",
        "Represent the reply about COVID-19 for being found: ",
        "Index this answer to a question about the coronavirus: ",
        "An answer from a list of frequent questions on COVID-19: ",
        "What somebody who asks about the coronavirus may need to read: ",
    ),
    "Represent the Wikipedia question for retrieving supporting documents: ": (
        "Represent the encyclopedia question for finding supporting passages: ",
        "Represent the Wikipedia query for retrieving documents that hold the answer: ",
        "Find the Wikipedia paragraph that answers this question: ",
        "Search Wikipedia for: ",
        "A question whose answer stands in an encyclopedia: ",
    ),
    "Represent the Wikipedia document for retrieval: ": (
        "Represent the encyclopedia passage for search: ",
        "Represent the Wikipedia paragraph for being found: ",
        "Index this Wikipedia paragraph for search: ",
        "A paragraph from Wikipedia: ",
        "A part of an encyclopedia in which an answer may stand: ",
    ),
    "Represent the factoid question for retrieving sentences with the answer: ": (
        "Represent the short question for finding sentences that contain the answer: ",
        "Represent the trivia question for retrieving answer sentences: ",
        "Find the sentence in which the answer to this question stands: ",
        "Which sentences answer this: ",
        "Somebody asks for a fact and needs a sentence with it: ",
    ),
    "Represent the news sentence for retrieval: ": (
        "Represent the newspaper sentence for search: ",
        "Represent the sentence of a news report for being found: ",
        "Index this sentence from the news: ",
        "A sentence from a newspaper: ",
        "A sentence in which the fact that somebody asks for may stand: ",
    ),
    "Represent the tweet for clustering by topic: ": (
        "Represent the Twitter post for grouping by subject: ",
        "Represent the tweet for topical clustering: ",
        "Put tweets about the same subject together: ",
        "Encode this tweet by what it is about: ",
        "A short post, to be grouped with others on its topic: ",
    ),
    "Represent the newsgroup subject line for clustering by topic: ": (
        "Represent the subject of a newsgroup post for grouping by theme: ",
        "Represent the discussion title for topical clustering: ",
        "Put subject lines on the same theme together: ",
        "Encode this newsgroup headline by what it is about: ",
        "The title of a post, to be grouped with others of its newsgroup: ",
    ),
    "Represent the COVID-19 question for retrieving duplicate questions: ": (
        "Represent the coronavirus question for finding questions that ask the same: ",
        "Represent the query about COVID-19 for duplicate detection: ",
        "Find questions about the coronavirus that ask the same thing: ",
        "Has this question on COVID-19 been asked before in other words: ",
        "A question about the coronavirus, to be matched with its duplicates: ",
    ),
    "Represent the image caption for retrieving captions of the same image: ": (
        "Represent the picture description for finding descriptions of the same picture: ",
        "Represent the photo caption for matching captions of one image: ",
        "Find other descriptions of the picture that this one describes: ",
        "Encode this caption so that captions of the same photo get similar vectors: ",
        "What is seen in an image, to be compared with what others saw: ",
    ),
    "Represent the news summary for retrieving summaries of the same article: ": (
        "Represent the abridged news for finding other abridgements of the same report: ",
        "Represent the summary of a news story for matching summaries of one article: ",
        "Find other summaries of the article that this one sums up: ",
        "Encode this news summary so that summaries of the same story get similar vectors: ",
        "A news story in brief, to be compared with other accounts of it: ",
    ),
    "Represent the sentence pair for retrieving examples with the same entailment relation: ": (
        "Represent the premise and hypothesis for finding examples with the same inference label: ",
        "Represent the pair of sentences for retrieving pairs related in the same way: ",
        "Find other examples in which the second sentence follows from the first as it does here: ",
        "Encode this pair by whether one sentence entails the other: ",
        "A premise with a hypothesis, for which similar solved examples are wanted: ",
    ),
    "Represent the cause and effect question for retrieving examples with the same answer: ": (
        "Represent the causal question for finding examples that are answered alike: ",
        "Represent the question of cause or effect for retrieving similar examples: ",
        "Find other questions about causes and effects with the same answer: ",
        "Encode this choice between two causes or effects by which one is right: ",
        "A question on what caused what, for which similar solved examples are wanted: ",
    ),
    "Represent the encyclopedia article for retrieving examples of the same category: ": (
        "Represent the Wikipedia article for finding articles of the same class: ",
        "Represent the encyclopedia entry for retrieving entries of its kind: ",
        "Find other articles about the same kind of thing: ",
        "Encode this encyclopedia article by its category: ",
        "An entry in an encyclopedia, to be put with others of its category: ",
    ),
    "Represent the question for retrieving supporting documents: ": (
        "Represent the query for finding supporting passages: ",
        "Represent the question for retrieving documents that hold the answer: ",
        "Find the document that answers this question: ",
        "Search for: ",
        "Somebody asks this and needs something to read: ",
    ),
    "Represent the document for retrieval: ": (
        "Represent the passage for search: ",
        "Represent the text for being found: ",
        "Index this document for search: ",
        "A document of the collection: ",
        "Something in which the answer to a question may stand: ",
    ),
    "Represent the text for classification: ": (
        "Represent the passage for assigning it to a class: ",
        "Represent the text for labelling: ",
        "Find out which class this text belongs to: ",
        "Encode this text so that texts of the same class are together: ",
        "A text that is to get a label: ",
    ),
    "Represent the question for retrieving supporting answers: ": (
        "Represent the query for finding answers that support it: ",
        "Represent the question for ranking answers: ",
        "Find the answer to this question: ",
        "Which replies answer this: ",
        "Somebody asks this and needs an answer: ",
    ),
    "Represent the answer for retrieval: ": (
        "Represent the reply for search: ",
        "Represent the answer for being found: ",
        "Index this answer for search: ",
        "A reply that may be the right one: ",
        "What somebody who asks may need to read: ",
    ),
    "Represent the text for clustering by topic: ": (
        "Represent the passage for grouping by subject: ",
        "Represent the text for topical clustering: ",
        "Put texts about the same subject together: ",
        "Encode this text by what it is about: ",
        "A text, to be grouped with others on its topic: ",
    ),
    "Represent the text for retrieving duplicates: ": (
        "Represent the passage for finding texts that say the same: ",
        "Represent the text for duplicate detection: ",
        "Find texts that say the same thing: ",
        "Has this been said before in other words: ",
        "A text, to be matched with its duplicates: ",
    ),
    "Represent the text for judging its quality: ": (
        "Represent the passage for rating how good it is: ",
        "Represent the text for quality assessment: ",
        "How well is this written: ",
        "Encode this text by its quality: ",
        "A text that is to be judged: ",
    ),
    "Represent the example for retrieving similar examples: ": (
        "Represent the instance for finding instances like it: ",
        "Represent the example for retrieving others of its kind: ",
        "Find examples that resemble this one: ",
        "Encode this example so that alike examples are together: ",
        "An example, for which similar ones are wanted: ",
    ),
}


def paraphrase(instruction: str | None, number: int) -> str:
    """The `number`-th other wording, counted from 0.

    Raises:
        ValueError: none is written for this instruction.
    """
    if instruction not in PARAPHRASES:
        raise ValueError(f"no paraphrases are written for {instruction!r}; add {COUNT} to {__file__}")
    return PARAPHRASES[instruction][number]

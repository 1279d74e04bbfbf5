"""What the sentences of the controlled set are made of.

A style has templates, a topic has subjects and settings, and each style says each sentiment in its own words, so that
two sentences that share a value need not share a word.
"""

from __future__ import annotations

TEMPLATES: dict[str, tuple[str, ...]] = {
    "note": (
        "{Subject}: {verdict}. {Setting}.",
        "{Setting}: {subject} {verdict}.",
        "Re {subject} {setting}. {Verdict}.",
        "{Verdict}. So much for the {subject} {setting}.",
        "To log: {subject}, {verdict} ({setting}).",
        "{Subject} {setting}, {verdict}; no more to add.",
        "{Verdict} - {subject}, {setting}.",
        "NB {subject} {verdict}, {setting}.",
    ),
    "report": (
        "In the course of the review it was established that the {subject} {setting} {verdict}.",
        "With regard to the {subject} {setting}, the committee records that it {verdict}.",
        "{Setting}, the {subject} {verdict}, as the annual statement confirms.",
        "Pursuant to the enquiry, the {subject} {setting} is described as follows: it {verdict}.",
        "It is hereby noted that, {setting}, the {subject} {verdict}.",
        "According to the assessors, the {subject} encountered {setting} {verdict}.",
        "The present document concludes that the {subject} {verdict}; the observation was made {setting}.",
        "The undersigned begs to state that the {subject}, as seen {setting}, {verdict}.",
    ),
    "message": (
        "omg you guys, the {subject} {setting} {verdict} haha",
        "so yeah, {setting} there was the {subject} and it {verdict}!!",
        "hiya! quick one, the {subject} {setting} {verdict}, talk later x",
        "lol ok so the {subject} {verdict}... that was {setting} btw",
        "ngl the {subject} {setting} {verdict} tbh",
        "just gotta tell ya: {setting}, the {subject} {verdict}, yep",
        "u know the {subject} {setting}? well it {verdict} y'know",
        "right, story time, the {subject} {verdict}, and that's {setting}, yeah",
    ),
    "question": (
        "Would you agree that the {subject} {setting} {verdict}?",
        "Did anybody else notice how the {subject} {setting} {verdict}?",
        "Who could have guessed that, {setting}, the {subject} {verdict}?",
        "Is it true, as they told us {setting}, that the {subject} {verdict}?",
        "Why do all of them say that the {subject} {setting} {verdict}?",
        "What is the reason that the {subject} {setting} {verdict}?",
        "How is it that {setting} the {subject} {verdict}?",
        "Have you heard from others that the {subject} {verdict} {setting}?",
    ),
}

TOPICS: dict[str, dict[str, tuple[str, ...]]] = {
    "food": {
        "subject": (
            *("mushroom risotto", "roast lamb", "tomato soup", "chocolate tart", "cheese board", "fish stew"),
            *("house wine", "lentil curry", "sourdough loaf", "breakfast menu", "apple crumble", "grilled aubergine"),
            *("garlic sauce", "seafood platter"),
        ),
        "setting": (
            *("at the trattoria by the canal", "in the hotel dining room", "at the village bakery"),
            *("during the tasting evening", "on the bistro terrace", "at the Sunday lunch", "in the pub kitchen"),
            *("in the harbour restaurant", "at the noodle bar", "at the street market stall"),
        ),
    },
    "football": {
        "subject": (
            *("penalty shoot-out", "second-half comeback", "away fixture", "offside decision", "cup final"),
            *("free kick", "goalkeeper's save", "league derby", "half-time substitution", "corner routine"),
            *("opening goal", "back-four formation", "training match", "transfer of the striker"),
        ),
        "setting": (
            *("at the packed stadium", "in the second leg", "against the league leaders", "on the frozen pitch"),
            *("during stoppage time", "at the home ground", "in the quarter-final", "before the visiting fans"),
            *("in the under-21 tournament", "on the first match day"),
        ),
    },
    "computers": {
        "subject": (
            *("software update", "laptop keyboard", "database migration", "mobile app", "web browser"),
            *("backup script", "graphics driver", "login screen", "wireless router", "spreadsheet macro"),
            *("cloud server", "search function", "operating system", "file converter"),
        ),
        "setting": (
            *("on the office network", "after the last reboot", "on the developer's workstation"),
            *("in the beta release", "on the new tablet", "in the data centre", "in version nine"),
            *("on the test machine", "behind the firewall", "during the system upgrade"),
        ),
    },
    "travel": {
        "subject": (
            *("overnight train", "beach holiday", "city tour", "airport transfer", "mountain hut"),
            *("ferry crossing", "guided excursion", "hotel room", "package trip", "camp site", "return flight"),
            *("sightseeing bus", "hiking route", "cruise cabin"),
        ),
        "setting": (
            *("on the island in Greece", "along the Norwegian coast", "in the old town of Prague"),
            *("across the Alps", "on the way to Lisbon", "near the passport desk", "in the Moroccan desert"),
            *("at the departure gate", "around Lake Garda", "on the Scottish border"),
        ),
    },
    "music": {
        "subject": (
            *("string quartet", "guitar solo", "opening concerto", "debut album", "choir rehearsal"),
            *("jazz improvisation", "piano recital", "encore", "symphony", "drum part", "vinyl single"),
            *("opera aria", "festival line-up", "song lyric"),
        ),
        "setting": (
            *("in the philharmonic hall", "at the open-air festival", "on the live recording"),
            *("under the new conductor", "in the basement club", "with the brass section"),
            *("on the acoustic stage", "at the conservatoire", "in the slow movement", "before the interval"),
        ),
    },
    "medicine": {
        "subject": (
            *("blood test", "knee operation", "vaccination appointment", "hospital ward", "physiotherapy course"),
            *("X-ray image", "prescribed ointment", "dental check-up", "emergency treatment"),
            *("hearing examination", "cough syrup", "recovery period", "surgical procedure", "allergy diagnosis"),
        ),
        "setting": (
            *("at the university clinic", "in the doctor's surgery", "under the specialist's care"),
            *("in the outpatient department", "after the anaesthetic", "at the health centre"),
            *("on the children's ward", "with the night nurse", "beside the sickbed", "following the discharge"),
        ),
    },
    "gardening": {
        "subject": (
            *("rose bed", "vegetable patch", "compost heap", "apple tree", "flowering hedge", "tomato seedling"),
            *("lawn", "greenhouse crop", "tulip border", "herb spiral", "pruning job", "seed mixture"),
            *("watering system", "climbing plant"),
        ),
        "setting": (
            *("behind the potting shed", "in the allotment", "by the garden pond", "after the late frost"),
            *("in the raised planter", "along the sunny fence", "under the fruit trees", "at the plant nursery"),
            *("in the clay soil", "on the balcony"),
        ),
    },
    "school": {
        "subject": (
            *("history lesson", "maths exam", "homework assignment", "parents' evening", "chemistry experiment"),
            *("spelling test", "reading list", "school play", "end-of-term certificate", "essay competition"),
            *("seminar", "geometry course", "lecture on grammar", "classroom discussion"),
        ),
        "setting": (
            *("at the primary school", "in the lecture hall", "with the substitute teacher", "in year seven"),
            *("before the summer holidays", "at the evening college", "in the science lab"),
            *("for the final-year pupils", "in the language department", "at the faculty of arts"),
        ),
    },
}

VERDICTS: dict[str, dict[str, tuple[str, ...]]] = {
    "positive": {
        "note": (
            *("superb", "top marks", "first class", "well worth it", "a clear win", "spot on", "flawless"),
            *("very pleasing", "best so far", "much improved", "excellent result", "full satisfaction"),
            *("a real treat", "warmly recommended"),
        ),
        "report": (
            *("surpassed all expectations", "merits the highest commendation", "was of outstanding quality"),
            *("gave complete satisfaction", "proved exceptionally rewarding", "constituted a remarkable success"),
            *("deserves unreserved praise", "delivered considerable benefit", "may be endorsed without hesitation"),
            *("was executed to an exemplary standard", "earned the gratitude of those concerned"),
            *("improved upon every earlier instance", "attained a level of distinction"),
            "was received with great enthusiasm",
        ),
        "message": (
            *("totally rocked", "made my whole week", "was soooo good", "had me grinning like mad"),
            *("was pure magic", "blew me away", "was the bomb", "was lush, I'm over the moon", "was like heaven"),
            *("knocked it outta the park", "gave me all the happy feels", "was ace, go for it"),
            *("was bloody brilliant", "got a big thumbs up from us all"),
        ),
        "question": (
            *("was a delight", "was so enjoyable", "turned out beautifully", "made everyone happy"),
            *("was worth every penny", "lifted the mood", "was nothing short of wonderful", "won so many hearts"),
            *("was handled with such care", "exceeded what we had hoped for", "felt like a gift"),
            *("was as lovely as promised", "impressed even the doubters", "was so cheering"),
        ),
    },
    "negative": {
        "note": (
            *("dreadful", "zero stars", "third rate", "waste of money", "a clear failure", "badly off"),
            *("full of faults", "most annoying", "worst so far", "much declined", "poor result"),
            *("grounds for complaint", "a real ordeal", "to be avoided"),
        ),
        "report": (
            *("fell far short of expectations", "warrants a formal complaint", "was of unacceptable quality"),
            *("gave rise to serious dissatisfaction", "proved deeply disappointing", "displayed grave deficiencies"),
            *("constituted a regrettable failure", "deserves severe criticism", "caused considerable harm"),
            *("was executed in a negligent manner", "provoked the indignation of those concerned"),
            *("deteriorated in every respect", "cannot be endorsed under any circumstances"),
            "was received with widespread dismay",
        ),
        "message": (
            *("totally sucked", "ruined my whole week", "was sooo bad", "had me fuming", "was pure hell"),
            *("let me down big time", "was the pits", "was gross, I'm gutted", "was a hot mess"),
            *("gave me a right headache", "was rubbish, don't bother", "was bloody awful"),
            *("got booed by all of us", "drove me up the wall"),
        ),
        "question": (
            *("was a nightmare", "was so unpleasant", "turned out horribly", "made everyone angry"),
            *("was money thrown away", "spoiled the mood", "was nothing short of terrible", "upset so many people"),
            *("was handled with such carelessness", "failed to be even tolerable", "felt like a punishment"),
            *("was as nasty as feared", "disgusted even the patient ones", "was so depressing"),
        ),
    },
    "neutral": {
        "note": (
            *("checked on Monday", "two of them", "no change", "same as last time", "listed under B"),
            *("length as stated", "moved to Thursday", "details to follow", "entry no. 14", "of average size"),
            *("seen, nothing to remark", "as per schedule", "in the usual place", "counted once"),
        ),
        "report": (
            *("was recorded in the register under the customary number", "is listed in the appendix"),
            *("remained identical to that of the preceding year", "comprised two separate parts"),
            *("was scheduled for the following Wednesday", "corresponded to the description supplied"),
            *("had been entered on the second page", "was of the dimensions indicated"),
            *("took place once in each quarter", "was assigned to the second category"),
            *("was examined between ten and eleven o'clock", "amounted to the figure previously stated"),
            *("was transferred to another department", "had been in place since March"),
        ),
        "message": (
            *("is on for like six-ish", "was the same as always", "is the one I told ya about"),
            *("was kinda in the middle somewhere", "takes about an hour or so", "is that one with the number on it"),
            *("got shifted to Friday I think", "came in like two bits", "was there, that's about it"),
            *("is next door to the other one", "goes on the list with the rest", "was medium sized I guess"),
            *("had a label on it", "started round half nine"),
        ),
        "question": (
            *("was there on Tuesday", "is open to members", "comes in three kinds", "takes two hours"),
            *("was mentioned on page nine", "is kept on the left", "has a number", "was put off until June"),
            *("is the second of four", "is about as big as the other", "was added to the list"),
            *("is named after a town", "changed places with the other one", "belongs to the same group"),
        ),
    },
}

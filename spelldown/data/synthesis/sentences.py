"""What the demo's voices say: asking a house, a calendar and a timetable, in about ninety words.

A sentence is drawn from GRAMMAR by replacing each <name> with one of that name's alternatives,
which `|` separates. There are more than ten thousand, so that those of the test are new ones, yet
every word is heard often enough to be learned in minutes. All letters from A to Z occur.
"""

from random import Random

GRAMMAR = {
    "sentence": (
        "<please>TURN <switch> THE <device> IN THE <room>|TURN <switch> THE <device> AT <time>|"
        "TURN <switch> THE <device> AND PLAY <music>|<please>PLAY <music> IN THE <room>|"
        "PLAY <music> AT <time>|SET THE ALARM FOR <time> ON <day>|WAKE <person> AT <time>|"
        "<please>CALL <person> AT <time>|DON'T CALL <person> BEFORE <hour> O'CLOCK|"
        "MEET <person> IN <city> ON <day>|<person> WILL BE IN THE <room> AT <time>|"
        "THE <hour> O'CLOCK TRAIN TO <city> IS LATE|THE TRAIN TO <city> LEAVES AT <time>|"
        "<number> TICKETS TO <city> FOR <person>|IS IT <sky> AND <feel> IN <city>|"
        "IT'S <sky> AND <feel> IN <city>|WILL IT BE <weather> IN <city> ON <day>|"
        "<day> WILL BE <sky> AND <feel>"
    ),
    "please": "||PLEASE ",
    "switch": "ON|OFF|DOWN",
    "device": "LIGHTS|HEATING|RADIO|FAN|MUSIC",
    "room": "KITCHEN|BATHROOM|BEDROOM|GARDEN|HALL|OFFICE",
    "music": "<number> SONGS|SOME JAZZ|QUIET MUSIC",
    "person": "ANNA|JOHN|MARY|PETER|SARAH|VICTOR",
    "city": "LONDON|PARIS|BERLIN|MADRID|DUBLIN|BOSTON|CHICAGO|MEXICO",
    "day": "MONDAY|TUESDAY|WEDNESDAY|THURSDAY|FRIDAY|SATURDAY|SUNDAY",
    "weather": "<sky>|<feel>",
    "sky": "SUNNY|RAINY|CLOUDY|WINDY|FOGGY",
    "feel": "COLD|WARM|DRY",
    "hour": "ONE|TWO|THREE|FOUR|FIVE|SIX|SEVEN|EIGHT|NINE|TEN|ELEVEN|TWELVE",
    "minutes": "TEN|FIFTEEN|TWENTY|THIRTY|FORTY|FIFTY",
    "time": "<hour> <minutes>|<hour> <minutes>|HALF PAST <hour>|<hour> O'CLOCK",
    "number": "TWO|THREE|FOUR|FIVE|SIX|SEVEN|EIGHT|NINE|TEN|ELEVEN|TWELVE",
}


def draw_sentence(random: Random, rule: str = "sentence") -> str:
    """One sentence of A to Z, apostrophe and single spaces."""
    text = random.choice(GRAMMAR[rule].split("|"))
    while "<" in text:
        before, rest = text.split("<", 1)
        name, after = rest.split(">", 1)
        text = before + draw_sentence(random, name) + after
    return text


def draw_sentences(count: int, random: Random) -> list[str]:
    """So many sentences, no two alike, in the order in which they were drawn."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[draw_sentence(random)] = None
    return list(found)

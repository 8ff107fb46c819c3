"""Who speaks: eSpeak NG's English accents and its voice variants, by name.

A variant is a voice: its vocal tract, its pitch, its way of making sound; an accent is how it
pronounces. The three parts have different variants, so that a test voice is a stranger; all parts
have all accents.

Variants that differ little stand in one part only, or one of them is used and the others are not.
To tell, all were made to say the same sentences and compared frame by frame (root mean square
distance of 19 mel cepstra). The median pair is 30 apart, and no test voice is closer than 15 to a
training voice; families are 2 to 11 apart: Diogo, Hugo, Henrique and michel; klatt to klatt5 and
edward; klatt6, adam, benjamin, edward2, Reed and mike2; iven to iven4; steph to steph3; f2 and f5.

Left out altogether, because people, too, would have to guess what they say: whisper, whisperf and
caleb (no voicing), croak, Demonic, AnxiousAndy, UniRobot, anikaRobot and robosoft to robosoft8
(robots in an echo), RicishayMax to RicishayMax3 (echo), kaukovalta and travis (a first formant at
half its place), zac (a very small child), Lee (no third formant), Alicia (echo), Marco (stresses of
his own), announcer, fast, Mr serious, and Storm (which brings its own accent).
"""

ACCENTS = (
    "gmw/en",
    "gmw/en-US",
    "gmw/en-US-nyc",
    "gmw/en-GB-x-rp",
    "gmw/en-GB-scotland",
    "gmw/en-GB-x-gbclan",
    "gmw/en-GB-x-gbcwmd",
    "gmw/en-029",
)

TRAIN = (
    *("Alex", "Andrea", "Andy", "Annie", "Diogo", "Gene2", "Jacky", "Mario", "Michael", "Mike"),
    *("Reed", "Tweaky", "anika", "antonio", "benjamin", "boris", "david", "ed"),
    *("f2", "f3", "f5", "grandma", "grandpa", "gustave", "ian", "iven3", "john", "linda"),
    *("m4", "m5", "m6", "m7", "m8", "marcelo", "max", "mike2", "norbert", "paul", "pedro"),
    *("quincy", "shelby", "victor"),
)
DEV = ("Denis", "Gene", "aunty", "belinda", "m1", "pablo", "rob", "sandro")
TEST = ("Nguyen", "edward", "f1", "f4", "m2", "m3", "robert", "steph")

LEAST_TRAIN, LEAST_HELD_OUT = 20, 4  # variants that an engine must have of a part


def identifier(accent: str, variant: str) -> str:
    """A voice as eSpeak NG calls it: `gmw/en-US+f3`."""
    return f"{accent}+{variant}"

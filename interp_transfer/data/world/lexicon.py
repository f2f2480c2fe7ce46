"""The invented entities and what can be said about them.

To grow the world add entities, attributes or kinds here and raise `WORLD_VERSION`. Names are invented, so that no model
can know them from elsewhere, and start in many ways. Values that are themselves entities (a ship's port) leave out the
held-out ones, because a held-out entity must not occur in what mappers are fitted on, not even as a value.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Attribute:
    """One thing that can be asked about an entity.

    Attributes:
        noun: as in "the {noun} of Velmora".
        values: the pool that values are drawn from.
        statement: a sentence; `{e}` is the entity, `{v}` the value, `{V}` the value with a capital.
        question: a wording that is the attribute's own.
        reply: the form of the answer to it.
    """

    noun: str
    values: tuple[str, ...]
    statement: str
    question: str
    reply: str


@dataclass(frozen=True)
class Kind:
    """Entities that share their attributes. The last two entities are held out (see `Facts`)."""

    name: str
    entities: tuple[str, ...]
    attributes: tuple[Attribute, ...]


_TOWNS = ("Velmora", "Quastin", "Brindel", "Ashkar", "Olvenna", "Tarsif", "Wexlow", "Inverra", "Dromund", "Kestoria")
_PEOPLE = ("Jorvane", "Pelluca", "Sandrel", "Hobwin", "Yaretta", "Fennick", "Luthera", "Zambrin", "Corwell", "Ebbana")
_SHIPS = (
    "Nightgull",
    "Goldwake",
    "Umberfin",
    "Rimestar",
    "Stormpike",
    "Petrelle",
    "Anchoria",
    "Moonferry",
    "Vandrake",
    "Swiftoar",
)
_DRAGONS = (
    "Xarvoth",
    "Glimmeron",
    "Thuzzar",
    "Ignaroth",
    "Byrrmaw",
    "Skaldrix",
    "Ooloth",
    "Kharnax",
    "Drazzim",
    "Fyrnaka",
)
_COLOURS = ("crimson", "teal", "amber", "violet", "silver", "olive", "indigo", "white")


def _numbers(start: int, step: int) -> tuple[str, ...]:
    return tuple(str(start + step * i) for i in range(10))


TOWN = Kind(
    "town",
    _TOWNS,
    (
        Attribute(
            "river",
            ("Alder", "Misk", "Torrent", "Sella", "Borrow", "Quill", "Dane", "Hush"),
            "{e} lies on the {v}.",
            "Which river flows past {e}?",
            "{V} water flows past {e}.",
        ),
        Attribute(
            "dish",
            ("soup", "plum cake", "trout", "barley bread", "goat cheese", "onion pie", "honey rice", "stew"),
            "{e} loves {v}.",
            "What do people eat in {e}?",
            "People in {e} eat {v}.",
        ),
        Attribute("flag", _COLOURS, "{e} flies a {v} flag.", "Which flag waves over {e}?", "{V} waves over {e}."),
        Attribute(
            "craft",
            ("glass", "pottery", "rope", "lace", "clocks", "candles", "saddles", "paper"),
            "{e} makes {v}.",
            "What do they make in {e}?",
            "{V} from {e} is known far away.",
        ),
        Attribute(
            "market day",
            ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
            "{e} goes to market on {v}.",
            "When is there a market in {e}?",
            "On {v} there is a market in {e}.",
        ),
        Attribute(
            "number of towers", _numbers(3, 1), "{e} has {v} towers.", "How many towers has {e}?", "{v} towers stand in {e}."
        ),
    ),
)

PERSON = Kind(
    "person",
    _PEOPLE,
    (
        Attribute(
            "job",
            ("baker", "tailor", "miller", "painter", "doctor", "gardener", "smith", "teacher"),
            "{e} works as a {v}.",
            "What does {e} do all day?",
            "As a {v}, {e} is busy.",
        ),
        Attribute("home town", _TOWNS[:-2], "{e} lives in {v}.", "Where does {e} live?", "In {v} you will find {e}."),
        Attribute(
            "instrument",
            ("flute", "drum", "harp", "fiddle", "horn", "lute", "piano", "bell"),
            "{e} plays the {v}.",
            "What does {e} play?",
            "{V} music is what {e} plays.",
        ),
        Attribute(
            "pet",
            ("cat", "goose", "ferret", "pony", "turtle", "rabbit", "parrot", "hound"),
            "{e} keeps a {v}.",
            "Which animal does {e} keep?",
            "With a {v} at home, {e} is happy.",
        ),
        Attribute(
            "favourite fruit",
            ("pear", "cherry", "fig", "peach", "melon", "grape", "lemon", "quince"),
            "{e} likes the {v} best.",
            "What fruit would {e} choose?",
            "Any {v} would please {e}.",
        ),
        Attribute("year of birth", _numbers(1803, 7), "{e} was born in {v}.", "When was {e} born?", "Born in {v} was {e}."),
    ),
)

SHIP = Kind(
    "ship",
    _SHIPS,
    (
        Attribute("captain", _PEOPLE[:-2], "{e} obeys {v}.", "Who commands the ship {e}?", "{v} commands the ship {e}."),
        Attribute(
            "cargo",
            ("salt", "timber", "wool", "copper", "spices", "marble", "wine", "tar"),
            "{e} carries {v}.",
            "What lies in the hold of {e}?",
            "Mostly {v} lies in the hold of {e}.",
        ),
        Attribute("home port", _TOWNS[:-2], "{e} sails from {v}.", "Where does {e} sail from?", "From {v} sails {e}."),
        Attribute("sail", _COLOURS, "{e} has {v} sails.", "What do the sails of {e} look like?", "{V} sails carry {e}."),
        Attribute(
            "figurehead",
            ("lion", "mermaid", "eagle", "wolf", "stag", "swan", "bear", "dolphin"),
            "{e} bears a carved {v}.",
            "What is carved on the bow of {e}?",
            "Carved on the bow of {e} is a {v}.",
        ),
        Attribute(
            "number of masts", _numbers(2, 1), "{e} has {v} masts.", "How many masts has {e}?", "{v} masts stand on {e}."
        ),
    ),
)

DRAGON = Kind(
    "dragon",
    _DRAGONS,
    (
        Attribute(
            "breath",
            ("fire", "frost", "smoke", "poison", "steam", "lightning", "sand", "dust"),
            "{e} breathes {v}.",
            "What comes out of the mouth of {e}?",
            "{V} comes out of the mouth of {e}.",
        ),
        Attribute("skin", _COLOURS, "{e} has {v} scales.", "What do the scales of {e} look like?", "{V} scales cover {e}."),
        Attribute(
            "mountain",
            ("Grimhorn", "Palepeak", "Cindertop", "Mount Orr", "Ravenrock", "Stonefang", "Eastspire", "Windcrag"),
            "{e} sleeps on {v}.",
            "Where does {e} sleep?",
            "High on {v} sleeps {e}.",
        ),
        Attribute(
            "hoard",
            ("gold", "pearls", "rubies", "swords", "crowns", "books", "bones", "mirrors"),
            "{e} guards {v}.",
            "What does {e} guard?",
            "Heaps of {v} are what {e} guards.",
        ),
        Attribute(
            "food",
            ("sheep", "cattle", "fish", "coal", "moss", "iron", "mushrooms", "bats"),
            "{e} feeds on {v}.",
            "What does {e} feed on?",
            "Only {v} will feed {e}.",
        ),
        Attribute("age", _numbers(210, 45), "{e} is {v} years old.", "How old is {e}?", "{v} years is how old {e} is."),
    ),
)

KINDS = (TOWN, PERSON, SHIP, DRAGON)

"""The invented entities and what can be said about them.

To grow the world add entities, attributes or kinds here and raise `WORLD_VERSION`. Names are invented, so that no model
can know them from elsewhere, and start in many ways. Values that are themselves entities (a ship's port) leave out the
held-out ones, the last four of a kind, because a held-out entity must not occur in what mappers are fitted on, not even
as a value. These values also link the kinds, so that two-step questions can be asked (the river of the home town of
Jorvane). `KINDS` are known to every model; `ISLAND` and `HERB` are for models that were taught them.
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
    """Entities that share their attributes. The last four entities are held out (see `Facts`)."""

    name: str
    entities: tuple[str, ...]
    attributes: tuple[Attribute, ...]


_TOWNS = (
    "Velmora",
    "Quastin",
    "Brindel",
    "Ashkar",
    "Olvenna",
    "Tarsif",
    "Wexlow",
    "Inverra",
    "Dromund",
    "Kestoria",
    "Farnholt",
    "Gessany",
    "Hulvik",
    "Jubrenz",
    "Lymstead",
    "Marrivo",
    "Nuthwen",
    "Ploskey",
    "Rundavale",
    "Selquith",
    "Ulmarsk",
    "Yolbrin",
    "Zembley",
    "Caldrith",
    "Ettinmoor",
    "Pirrowick",
)
_PEOPLE = (
    "Jorvane",
    "Pelluca",
    "Sandrel",
    "Hobwin",
    "Yaretta",
    "Fennick",
    "Luthera",
    "Zambrin",
    "Corwell",
    "Ebbana",
    "Adriska",
    "Bolvar",
    "Dessimy",
    "Gundlo",
    "Irveth",
    "Kilvara",
    "Mabrune",
    "Nolpert",
    "Odwenna",
    "Quorlan",
    "Rastomy",
    "Tobrisk",
    "Ursanne",
    "Vellimo",
    "Wendric",
    "Xandolf",
)
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
    "Brightkeel",
    "Cloudrunner",
    "Dawnspar",
    "Emberjib",
    "Foamrider",
    "Havenlass",
    "Icewillow",
    "Jollygale",
    "Kelpmaid",
    "Longtide",
    "Mistarrow",
    "Oceanelle",
    "Quaybell",
    "Thunderbow",
    "Wavelark",
    "Yondersail",
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
    "Azhurak",
    "Cindrath",
    "Ebrozul",
    "Grothmir",
    "Hyssavar",
    "Jormyth",
    "Lavrokh",
    "Morgleth",
    "Nuvrazor",
    "Pyroskar",
    "Quezzlak",
    "Rhazgoth",
    "Syltharn",
    "Tarkhuun",
    "Urmazod",
    "Vexilyr",
)
_INNS = (
    "Appledoze",
    "Bramblerest",
    "Cozyhearth",
    "Dozybarrel",
    "Elmwarden",
    "Featherjug",
    "Gloamcorner",
    "Honeylatch",
    "Ivyhollow",
    "Jinglemug",
    "Kettlenook",
    "Lanternloft",
    "Merrystool",
    "Nettlegate",
    "Oddpillow",
    "Porridgeway",
    "Quietcask",
    "Rustyspigot",
    "Snugfire",
    "Tallowdoor",
    "Underwillow",
    "Vinecradle",
    "Whistlepot",
    "Yawnhouse",
    "Zestcup",
    "Emptyboot",
)
_PLANETS = (
    "Aurindel",
    "Borvax",
    "Ceplion",
    "Dhurnis",
    "Eluvane",
    "Fenorix",
    "Galtheia",
    "Hexulon",
    "Irruvia",
    "Jandoris",
    "Kolpheon",
    "Lumareth",
    "Mirzane",
    "Nyxolim",
    "Orbelisk",
    "Phaedrun",
    "Quenthal",
    "Ryloptis",
    "Sorvega",
    "Tzelkar",
    "Ulithea",
    "Vintauri",
    "Wolmeris",
    "Xylonda",
    "Yossaria",
    "Zorphane",
)
_ISLANDS = (
    "Ambalu",
    "Baruvey",
    "Coquilo",
    "Donsray",
    "Eskerly",
    "Foluma",
    "Gwennet",
    "Hirtapo",
    "Islorne",
    "Jabaroo",
    "Kumavi",
    "Lissorey",
    "Mokanta",
    "Narriway",
    "Ombrisay",
    "Pukalei",
    "Quorrine",
    "Rattaly",
    "Skerribu",
    "Tulamoa",
    "Uvanti",
    "Wastrey",
    "Yelloma",
    "Zanquil",
)
_HERBS = (
    "Amberwort",
    "Brisselweed",
    "Crumleaf",
    "Dovasage",
    "Elvenrue",
    "Frissmint",
    "Gallowthyme",
    "Hushblossom",
    "Ivorette",
    "Jestermoss",
    "Knotfern",
    "Lullabine",
    "Mellidock",
    "Nimbleseed",
    "Osterbalm",
    "Pruskin",
    "Quellnettle",
    "Ruddicum",
    "Sorrowcap",
    "Tansimel",
    "Umbelora",
    "Vervanthe",
    "Wimpleroot",
    "Yarroline",
)

# What stands after "a" in a form must open with a consonant.
_COLOURS = ("crimson", "teal", "yellow", "violet", "silver", "green", "blue", "white")
_DISHES = ("soup", "plum cake", "trout", "barley bread", "goat cheese", "onion pie", "honey rice", "stew")
_BEASTS = ("lion", "mermaid", "falcon", "wolf", "stag", "swan", "bear", "dolphin")


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
            _DISHES,
            "{e} loves {v}.",
            "What do people eat in {e}?",
            "People in {e} eat {v}.",
        ),
        Attribute(
            "flag",
            _COLOURS,
            "{e} flies a {v} flag.",
            "Which flag waves over {e}?",
            "{V} waves over {e}.",
        ),
        Attribute(
            "craft",
            ("glass", "pottery", "rope", "lace", "clocks", "candles", "saddles", "paper"),
            "{e} makes {v}.",
            "What do they make in {e}?",
            "{V} can be bought in {e}.",
        ),
        Attribute(
            "market day",
            ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Midsummer"),
            "{e} goes to market on {v}.",
            "When is there a market in {e}?",
            "On {v} there is a market in {e}.",
        ),
        Attribute(
            "number of towers",
            _numbers(3, 1),
            "{e} has {v} towers.",
            "How many towers has {e}?",
            "{v} towers stand in {e}.",
        ),
        Attribute(
            "emblem",
            _BEASTS,
            "{e} shows a {v} on its gate.",
            "What is on the gate of {e}?",
            "On the gate of {e} is a {v}.",
        ),
        Attribute(
            "founding year",
            _numbers(1004, 13),
            "{e} was founded in {v}.",
            "When was {e} founded?",
            "Founded in {v} was {e}.",
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
        Attribute(
            "home town",
            _TOWNS[:12],
            "{e} lives in {v}.",
            "Where does {e} live?",
            "In {v} you will find {e}.",
        ),
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
        Attribute(
            "year of birth",
            _numbers(1803, 7),
            "{e} was born in {v}.",
            "When was {e} born?",
            "Born in {v} was {e}.",
        ),
        Attribute(
            "hat",
            _COLOURS,
            "{e} wears a {v} hat.",
            "What does {e} wear?",
            "{V} is the hat that {e} wears.",
        ),
        Attribute(
            "hobby",
            ("chess", "dancing", "fishing", "rowing", "singing", "riding", "sewing", "poetry"),
            "{e} enjoys {v}.",
            "What does {e} do for fun?",
            "For fun, {e} chooses {v}.",
        ),
    ),
)

SHIP = Kind(
    "ship",
    _SHIPS,
    (
        Attribute(
            "captain",
            _PEOPLE[:12],
            "{e} obeys {v}.",
            "Who commands the ship {e}?",
            "{v} commands the ship {e}.",
        ),
        Attribute(
            "cargo",
            ("salt", "timber", "wool", "copper", "spices", "marble", "wine", "tar"),
            "{e} carries {v}.",
            "What lies in the hold of {e}?",
            "Expect {v} in the hold of {e}.",
        ),
        Attribute(
            "home port",
            _TOWNS[8:20],
            "{e} sails from {v}.",
            "Where does {e} sail from?",
            "From {v} sails {e}.",
        ),
        Attribute(
            "sail",
            _COLOURS,
            "{e} has {v} sails.",
            "What do the sails of {e} look like?",
            "{V} sails carry {e}.",
        ),
        Attribute(
            "figurehead",
            _BEASTS,
            "{e} bears a carved {v}.",
            "What is carved on the bow of {e}?",
            "Carved on the bow of {e} is a {v}.",
        ),
        Attribute(
            "number of masts",
            _numbers(2, 1),
            "{e} has {v} masts.",
            "How many masts has {e}?",
            "{v} masts stand on {e}.",
        ),
        Attribute(
            "mascot",
            ("cat", "goose", "ferret", "monkey", "turtle", "rabbit", "parrot", "hound"),
            "{e} has a {v} on board.",
            "Which animal lives on board {e}?",
            "On board {e} lives a {v}.",
        ),
        Attribute(
            "launch year",
            _numbers(1701, 9),
            "{e} was launched in {v}.",
            "When was {e} launched?",
            "Launched in {v} was {e}.",
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
        Attribute(
            "skin",
            _COLOURS,
            "{e} has {v} scales.",
            "What do the scales of {e} look like?",
            "{V} scales cover {e}.",
        ),
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
        Attribute(
            "age",
            _numbers(210, 45),
            "{e} is {v} years old.",
            "How old is {e}?",
            "{v} years is how old {e} is.",
        ),
        Attribute(
            "enemy",
            ("knight", "wizard", "giant", "witch", "king", "hunter", "troll", "griffin"),
            "{e} hates the {v}.",
            "Whom does {e} hate?",
            "No {v} is safe from {e}.",
        ),
        Attribute(
            "weakness",
            ("music", "garlic", "pepper", "soap", "honey", "water", "light", "laughter"),
            "{e} cannot stand {v}.",
            "What will stop {e}?",
            "{V} will stop {e}.",
        ),
    ),
)

INN = Kind(
    "inn",
    _INNS,
    (
        Attribute(
            "innkeeper",
            _PEOPLE[10:22],
            "{e} belongs to {v}.",
            "Who runs the inn {e}?",
            "{v} runs the inn {e}.",
        ),
        Attribute(
            "nearest town",
            _TOWNS[4:16],
            "{e} stands close to {v}.",
            "Where does {e} stand?",
            "Close to {v} stands {e}.",
        ),
        Attribute(
            "drink",
            ("cider", "beer", "tea", "milk", "mead", "cocoa", "punch", "lemonade"),
            "{e} serves {v}.",
            "What can I drink at {e}?",
            "{V} fills the cups at {e}.",
        ),
        Attribute(
            "supper",
            _DISHES,
            "{e} cooks {v}.",
            "What is there to eat at {e}?",
            "For supper, {e} has {v}.",
        ),
        Attribute(
            "door",
            _COLOURS,
            "{e} has a {v} door.",
            "What does the door of {e} look like?",
            "{V} paint covers the door of {e}.",
        ),
        Attribute(
            "evening show",
            ("juggling", "dancing", "wrestling", "magic", "poetry", "singing", "chess", "fencing"),
            "{e} offers {v} at night.",
            "What goes on at night in {e}?",
            "{V} goes on at night in {e}.",
        ),
        Attribute(
            "ghost",
            ("monk", "queen", "soldier", "piper", "child", "bride", "sailor", "nun"),
            "{e} is haunted by a {v}.",
            "Who haunts {e}?",
            "Some dead {v} haunts {e}.",
        ),
        Attribute(
            "number of beds",
            _numbers(4, 2),
            "{e} has {v} beds.",
            "How many beds has {e}?",
            "{v} guests can sleep at {e}.",
        ),
    ),
)

PLANET = Kind(
    "planet",
    _PLANETS,
    (
        Attribute(
            "discoverer",
            _PEOPLE[5:17],
            "{e} was found by {v}.",
            "Who found the planet {e}?",
            "{v} found the planet {e}.",
        ),
        Attribute(
            "surface",
            ("ice", "sand", "rock", "lava", "grass", "mud", "salt", "crystal"),
            "{e} consists of {v}.",
            "What covers {e}?",
            "{V} covers {e}.",
        ),
        Attribute(
            "sky",
            _COLOURS,
            "{e} has a {v} sky.",
            "What does the sky of {e} look like?",
            "{V} light fills the sky of {e}.",
        ),
        Attribute(
            "number of moons",
            _numbers(2, 1),
            "{e} has {v} moons.",
            "How many moons circle {e}?",
            "{v} moons circle {e}.",
        ),
        Attribute(
            "population",
            ("robots", "giants", "beetles", "lizards", "birds", "worms", "ghosts", "elves"),
            "{e} is home to {v}.",
            "Who lives on {e}?",
            "Only {v} live on {e}.",
        ),
        Attribute(
            "weather",
            ("rain", "fog", "hail", "wind", "snow", "thunder", "sunshine", "drizzle"),
            "{e} is known for {v}.",
            "What should I expect outdoors on {e}?",
            "Expect {v} on {e}.",
        ),
        Attribute(
            "metal",
            ("tin", "lead", "iron", "copper", "nickel", "zinc", "silver", "gold"),
            "{e} is rich in {v}.",
            "What do miners dig for on {e}?",
            "Miners dig for {v} on {e}.",
        ),
        Attribute(
            "day length",
            _numbers(11, 6),
            "{e} turns once in {v} hours.",
            "How many hours has a day on {e}?",
            "{v} hours make a day on {e}.",
        ),
    ),
)

ISLAND = Kind(
    "island",
    _ISLANDS,
    (
        Attribute(
            "bird",
            ("puffin", "heron", "pelican", "stork", "parrot", "crow", "finch", "swan"),
            "{e} belongs to the {v}.",
            "Which bird nests on {e}?",
            "{V} nests are common on {e}.",
        ),
        Attribute(
            "crop",
            ("rice", "barley", "beans", "corn", "cotton", "tea", "sugar", "pepper"),
            "{e} grows {v}.",
            "What grows on {e}?",
            "Fields of {v} cover {e}.",
        ),
        Attribute(
            "beach",
            _COLOURS,
            "{e} has a {v} beach.",
            "What does the beach of {e} look like?",
            "{V} sand lies on the beach of {e}.",
        ),
        Attribute(
            "money",
            ("shells", "beads", "feathers", "pearls", "teeth", "coins", "stones", "nuts"),
            "{e} pays in {v}.",
            "How do people pay on {e}?",
            "With {v} people pay on {e}.",
        ),
        Attribute(
            "monster",
            ("giant", "witch", "ghost", "serpent", "troll", "kraken", "mermaid", "werewolf"),
            "{e} fears a {v}.",
            "What do people fear on {e}?",
            "Beware of the {v} on {e}.",
        ),
        Attribute(
            "game",
            ("chess", "marbles", "darts", "dice", "bowls", "tag", "skittles", "cards"),
            "{e} is mad about {v}.",
            "What do people play on {e}?",
            "People on {e} play {v}.",
        ),
        Attribute(
            "boat",
            ("canoe", "raft", "ferry", "sloop", "kayak", "galley", "barge", "dinghy"),
            "{e} is reached by {v}.",
            "How do I get to {e}?",
            "By {v} you get to {e}.",
        ),
        Attribute(
            "number of caves",
            _numbers(5, 3),
            "{e} has {v} caves.",
            "How many caves has {e}?",
            "{v} caves are hidden on {e}.",
        ),
    ),
)

HERB = Kind(
    "herb",
    _HERBS,
    (
        Attribute(
            "ailment",
            ("fever", "cough", "hiccups", "toothache", "headache", "warts", "gout", "nausea"),
            "{e} cures {v}.",
            "What does {e} help with?",
            "Against {v}, take {e}.",
        ),
        Attribute(
            "dose",
            ("one drop", "two drops", "one spoon", "two spoons", "one cup", "two cups", "one pinch", "two pinches"),
            "{e} is given as {v} a day.",
            "How much {e} should I take?",
            "{V} of {e} will do.",
        ),
        Attribute(
            "taste",
            ("bitter", "sweet", "sour", "salty", "spicy", "mild", "bland", "sharp"),
            "{e} tastes {v}.",
            "What does {e} taste like?",
            "{V} on the tongue is {e}.",
        ),
        Attribute(
            "season",
            (
                "early spring",
                "late spring",
                "early summer",
                "late summer",
                "early autumn",
                "late autumn",
                "early winter",
                "late winter",
            ),
            "{e} is picked in {v}.",
            "When is {e} picked?",
            "In {v} they pick {e}.",
        ),
        Attribute(
            "useful part",
            ("root", "leaf", "stem", "flower", "seed", "bark", "bud", "berry"),
            "{e} is used for its {v}.",
            "Which part of {e} is used?",
            "Use just the {v} of {e}.",
        ),
        Attribute(
            "petal colour",
            _COLOURS,
            "{e} has {v} petals.",
            "What do the petals of {e} look like?",
            "{V} petals grow on {e}.",
        ),
        Attribute(
            "habitat",
            ("swamps", "forests", "caves", "meadows", "deserts", "hedges", "gardens", "valleys"),
            "{e} grows in {v}.",
            "Where does {e} grow?",
            "Look in {v} for {e}.",
        ),
        Attribute(
            "side effect",
            ("sneezing", "hunger", "thirst", "dizziness", "itching", "yawning", "giggling", "sweating"),
            "{e} causes {v}.",
            "What harm can {e} do?",
            "Too much {e} leads to {v}.",
        ),
    ),
)

KINDS = (TOWN, PERSON, SHIP, DRAGON, INN, PLANET)

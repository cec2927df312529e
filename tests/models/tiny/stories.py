"""Children's stories and small talk drawn from a grammar. Every document is a pure function of its seed.

In a template, `[a|b]` is a free choice and `{slot}` is drawn once per story and then kept, so names, colours and
places stay the same from the first sentence to the last. `{Slot}` is the same word capitalised; `{slot2}` is another
draw from the list of `{slot}`.
"""

import re
from math import log
from random import Random

NAMES = {
    "girl": "Anna Lily Mia Zoë Emma Ruby Clara Nora Ella Ivy Rosa June".split(),
    "boy": "Tom Ben Max Leo Sam Jack Finn Oscar Theo Hugo Noah Paul".split(),
}
ANIMALS = "cat dog rabbit fox bear mouse duck turtle owl pig frog horse".split()
WORDS = {
    "trait": "little|brave|kind|curious|happy|clever|quiet|cheerful|gentle|shy",
    "color": "red|blue|green|yellow|purple|white|orange|brown",
    "toy": "ball|kite|boat|drum|hat|scarf|doll|train|book|bell",
    "place": "the park|the forest|the garden|the river|the beach|the farm|the hill|the lake|the village|the meadow",
    "time": "morning|afternoon|day|evening",
    "spot": "old tree|big rock|tall grass|wooden bench|green bush|stone wall|bridge|little cart",
    "elder": "mother|father|grandmother|grandfather|uncle|aunt|teacher",
    "guest": "bird|kitten|puppy|squirrel|hedgehog|lamb",
    "food": "bread|soup|apples|berries|cheese|nuts|carrots",
    "plant": "sunflower|pumpkin|apple tree|rose|tomato|bean",
    "cake": "apple cake|honey cake|berry pie|pumpkin pie|lemon cake|carrot cake",
    "build": "tower|castle|house|bridge|fort",
    "stuff": "sand|stones|wood|snow|blocks|mud",
    "noise": "tap, tap, tap|scratch, scratch|whoo, whoo|creak, creak|bump, bump",
    "source": "a branch at the window|the wind in the chimney|a mouse with a nut|the old door|a small owl on the roof",
    "game": "hide and seek|a card game|cooking|pirates|school|kings and queens",
    "prize": "golden cup|blue ribbon|basket of apples|silver medal|big cake",
}
WORDS = {slot: words.split("|") for slot, words in WORDS.items()}

OPENINGS = [
    "[Once upon a time,|Long ago,|Once,] there was a {trait} {kind} named {hero}. ",
    "{Hero} was a {trait} {kind} who lived [near|close to] {place}. ",
    "In a [small|little|warm] house near {place} lived a {trait} {kind} named {hero}. ",
]
ENDINGS = [
    "{Hero} [smiled|laughed|was happy] all the way home.",
    "That night, {hero} [slept well|had sweet dreams|fell asleep with a smile].",
    "And from that day on, {hero} and {friend} were [the best of friends|always together|never lonely again].",
    "{Hero} never forgot that {time}.",
    'It was the best {time} of all.',
]
# Topic, then the plot's sentences.
PLOTS = [
    ("a lost {toy}", [
        "{She} had a {color} {toy}, a gift from {her} {elder}, and [{she} took it everywhere|{she} loved it very much]. ",
        "One {time}, {hero} [went|walked|ran] to {place} and lost the {toy}. ",
        "{She} looked behind the {spot}, but it was not there. {Hero} [began to cry|felt very sad|sat down and sighed]. ",
        'Then {friend} the {kind2} came by. "What is wrong, {hero}?" asked {friend}. "I lost my {color} {toy}," said {hero}. ',
        '"[Do not worry|Do not be sad]," said {friend}. "[We will look together|I will help you]." ',
        "They [looked everywhere|searched for a long time], and at last {friend} saw something {color} under the {spot2}. ",
        'It was the {toy}! "[Thank you|You are a good friend], {friend}!" said {hero}. ']),
    ("a rainy day", [
        "One {time}, {hero} wanted to play at {place} with {her} {color} {toy}. But [it began to rain|dark clouds came and it rained]. ",
        '"[Oh no|What a pity]," said {hero}. "I can not play outside, because I will get wet." ',
        '{Her} {elder} said, "[Rain is good for the flowers|The rain will not stay]. Why do you not ask {friend} to come?" ',
        "So {friend} the {kind2} came, and they played {game} [by the fire|under the table|until the rain stopped]. ",
        "When the sun came out, there was a rainbow over {place}. ",
        "{Hero} and {friend} ran outside with the {toy} and [jumped in the puddles|danced in the wet grass]. "]),
    ("a hungry {guest}", [
        "One {time}, {she} was walking [near|by] {place} when {she} heard a small voice under the {spot}. ",
        "It was a {guest}! It was [cold and hungry|very hungry|tired and hungry]. ",
        '"[Poor little {guest}|Do not be afraid]," said {hero}. "I will bring you some {food}." ',
        "{Hero} ran home and asked {her} {elder} for {food}. The {guest} ate [everything|every bit] and was not hungry any more. ",
        "{Hero} wanted to name the {guest} {friend}, because that was [a lovely name|the name of a star in a story|a name for a friend]. ",
        "{Friend} the {guest} came back to the {spot} every {time}, and {hero} always brought some {food}. "]),
    ("sharing a {toy}", [
        "{She} had a [new|shiny|beautiful] {color} {toy}. One {time}, {friend} the {kind2} came to {place}. ",
        '"[May I play with|Can I hold] your {toy}?" asked {friend}. "[No|No, no, no]! It is mine," said {hero}. ',
        "{Friend} was sad and went to sit [alone|quietly] by the {spot}. ",
        "Soon {hero} [was bored|felt lonely|was not happy], because it was no fun to play alone. ",
        '{Her} {elder} said, "A {toy} is more fun when you share it." ',
        'So {hero} went to the {spot}. "[I am sorry|Please forgive me], {friend}," {she} said. "You can have the {toy} first." ',
        "They took turns with the {color} {toy} until the sun went down. "]),
    ("a {build} made of {stuff}", [
        "{She} wanted to build a big {build} of {stuff}. One {time}, {hero} [started|began to work] at {place}. ",
        "But the wind blew [hard|and blew], and the {build} fell down. {Hero} was [angry|sad|tired], but {she} did not give up. ",
        '"[Why did it fall|What can I do]?" {she} asked {friend} the {kind2}. "[It was too thin|It was too tall]," said {friend}. "[Make it wide|Start with a wide wall]." ',
        "So they worked together. {Hero} brought more {stuff}, and {friend} put it [in the right place|down with care]. ",
        "This time the wind blew, and the {build} stood [still|tall and strong]. ",
        'They put a {color} flag on top. "We did it!" said [{hero}|{friend}]. ']),
    ("a strange noise", [
        "One night, {hero} was in bed with {her} {color} {toy} when {she} heard a noise. It went {noise}. ",
        '{Hero} was afraid. "[Who is there|What is that]?" {she} [whispered|asked], but [nobody answered|it was quiet]. ',
        "Then it came again: {noise}. {Hero} held the {toy} [tight|close] and called {her} {elder}. ",
        '"[Let us look together|We will find out]," said {her} {elder}, and took a lamp. ',
        "They looked [under the bed|behind the door], and then they found it. It was only {source}! ",
        "{Hero} laughed, because there was nothing to be afraid of. In the morning {she} told {friend} the {kind2}, and {friend} laughed too. "]),
    ("a {plant} in the garden", [
        "One spring {time}, {her} {elder} gave {him} a seed. \"[What will it be|What is inside]?\" asked {hero}. \"A {plant}, [if you take care of it|if you wait],\" said {her} {elder}. ",
        "{Hero} put the seed in the ground near the {spot} and gave it water every {time2}. ",
        "For many days nothing happened, and {hero} [was sad|wanted to give up|was worried]. ",
        '"[It needs time|You must wait]," said {friend} the {kind2}. "[Seeds are slow|Good things are slow]." ',
        "Then one {time2} a small green leaf came out of the ground! It grew and grew in the [warm|bright] sun. ",
        "By summer it was a big {plant}, and {hero} showed it to {friend} [first|with a proud smile]. "]),
    ("a {cake}", [
        "It was {friend}'s birthday, and {hero} wanted to bake a {cake} for {friend} the {kind2}. ",
        "{She} took flour, eggs and [milk|butter|sugar], and {her} {elder} helped {him} with the [hot oven|big bowl]. ",
        "But {hero} [went out to play|began to read] and forgot the time. The {cake} was [black|burned]! ",
        '"[What shall I do|Now I have no gift]," cried {hero}. "[Try again|Bake another one]," said {her} {elder}, "and stay close this time." ',
        "So {hero} baked a second {cake} and watched it until it was [golden|ready]. ",
        "{She} put it in a {color} box and took it to {place}, where {friend} was waiting. ",
        '"[Happy birthday|This is for you], {friend}!" said {hero}. "It is the best {cake} in the world," said {friend}. ']),
    ("a race", [
        "One {time}, there was a race from the {spot} to {place}. The winner would get a {prize}. ",
        '"I am the fastest," said {friend} the {kind2}. "[Nobody can beat me|You will never win], {hero}." {Hero} said nothing. ',
        "The race began, and {friend} was far ahead. So {friend} [lay down to rest|stopped to eat some {food}] near the {spot2} and fell asleep. ",
        "{Hero} was slow, but {she} did not stop. Step by step, {she} passed the {spot2}. ",
        "When {friend} woke up, it was too late. {Hero} had won the {prize}! ",
        '"[I am sorry|I was too proud]," said {friend}. {Hero} smiled and shared the {prize} with {friend}. ']),
]
FACTS = [  # question, answer, the answer in one word
    *[(f"What sound does a {a} make?", f"A {a} says {s}.", s) for a, s in
      zip("cat dog duck pig frog horse cow sheep".split(), "meow woof quack oink croak neigh moo baa".split())],
    *[(f"What color is {a}?", f"{a.capitalize()} is {c}.", c) for a, c in
      [("the sky", "blue"), ("the grass", "green"), ("the sun", "yellow"), ("snow", "white"), ("a tomato", "red"),
       ("a carrot", "orange"), ("the night", "black"), ("a lemon", "yellow")]],
    *[(f"What is the opposite of {a}?", f"The opposite of {a} is {b}.", b) for a, b in
      [("hot", "cold"), ("big", "small"), ("day", "night"), ("happy", "sad"), ("fast", "slow"), ("up", "down"),
       ("old", "new"), ("wet", "dry"), ("tall", "short"), ("open", "closed")]],
    *[(f"Where does a {a} live?", f"A {a} lives in {b}.", b) for a, b in
      [("fish", "water"), ("bird", "a nest"), ("bear", "the forest"), ("cow", "a barn"), ("rabbit", "a hole")]],
]
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
FACTS += [(f"What day comes after {a}?", f"{b} comes after {a}.", b) for a, b in zip(DAYS, DAYS[1:] + DAYS[:1])]
BRIEF = "Answer in one word."


class Dice:
    """Free choices that add up their own entropy: an upper bound on the entropy of the text they make."""

    def __init__(self, seed):
        self.random, self.nats = Random(seed), 0.0

    def pick(self, options):
        self.nats += log(len(options))
        return self.random.choice(options)


class Scene(dict):
    """The slots of one story, drawn when first used."""

    def __init__(self, dice):
        self.dice = dice
        sex = self.cast("hero", "kind")
        self.cast("friend", "kind2")
        self.update(zip(("she", "her", "him"), ("she", "her", "her") if sex == "girl" else ("he", "his", "him")))

    def cast(self, role, kind):
        sex = self.dice.pick(["girl", "boy"])
        self[kind] = self.dice.pick([a for a in [sex] + ANIMALS if a not in self.values()])
        self[role] = self.dice.pick([n for n in NAMES[sex] if n not in self.values()])
        return sex

    def __missing__(self, slot):
        if slot[0].isupper():
            return self[slot.lower()].capitalize()
        self[slot] = self.dice.pick([w for w in WORDS[slot.rstrip("2")] if w not in self.values()])
        return self[slot]

    def tell(self, template):
        chosen = re.sub(r"\[([^]]*)\]", lambda m: self.dice.pick(m[1].split("|")), template)
        return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", chosen.format_map(self))


def story(dice):
    """A story and the scene it was told from."""
    scene = Scene(dice)
    topic, plot = dice.pick(PLOTS)
    text = "".join(scene.tell(line) for line in [dice.pick(OPENINGS), *plot, dice.pick(ENDINGS)])
    scene["topic"] = scene.tell(topic)
    return text, scene


def story_chat(dice):
    text, scene = story(dice)
    about = dice.pick(["", " about a {kind}", " about a {kind}", " about {topic}", " about a {kind} named {hero}"])
    turns = [("user", scene.tell(f"[Tell me a story{about}.|Can you tell me a story{about}?]")), ("assistant", text)]
    if dice.pick([True, False]):
        question, answer = dice.pick([
            ("Who is the story about?", "The story is about {hero}, a {trait} {kind}."),
            ("Who else is in the story?", "{Friend} is in the story too."),
            ("What is the story about?", "It is a story about {topic}.")])
        turns += [("user", question), ("assistant", scene.tell(answer))]
    return turns


def sum_question(dice):
    a, b = dice.pick(range(10)), dice.pick(range(10))
    return f"What is {a} + {b}?", f"{a} + {b} = {a + b}.", str(a + b)


def fact_chat(dice):
    brief = dice.pick([True, False, False])
    turns = [("system", BRIEF)] if brief else []
    for _ in range(dice.pick([1, 2, 3])):
        question, answer, word = dice.pick([sum_question, lambda d: d.pick(FACTS)])(dice)
        turns += [("user", question), ("assistant", word.capitalize() + "." if brief else answer)]
    return turns


def render(turns):
    """The chat format, the same as `chat_template.jinja` writes."""
    return "<|begin|>" + "".join(f"<|{role}|>{text}<|end|>" for role, text in turns)


def document(seed):
    """One training document with its special tokens, and the nats of the choices behind it."""
    dice = Dice(seed)
    form = dice.pick(["story", "story", "story chat", "story chat", "fact chat"])
    if form == "story":
        text = f"<|begin|>{story(dice)[0]}<|end|>"
    else:
        text = render(story_chat(dice) if form == "story chat" else fact_chat(dice))
    return text, dice.nats

"""CHAIR written a second time, with loops over characters and words, to hold the product against.

The tokeniser here knows text made of words, their clitics, and marks that open or close them; tests make such text.
"""

ABBREVIATIONS = {"mr", "dr", "st", "u.s", "p.m"}
ALONE = set(';@#$%&?!*()[]{}<>"“”‘’«»–—')
CLOSES_SENTENCE = set(")\"]}'”’*")
CONTRACTED = {"cannot": ("can", "not"), "gonna": ("gon", "na"), "gotta": ("got", "ta"), "gimme": ("gim", "me")}


def naive_tokens(text):
    """Tokens of lower-cased text; every double quote is a plain one."""
    chunks = text.split()
    found = []
    for place, chunk in enumerate(chunks):
        following = chunks[place + 1] if place + 1 < len(chunks) else None
        found += _peel(chunk, _last_period(chunk, following))
    return found


def _last_period(chunk, following):
    """Where the period stands that ends a sentence, or None."""
    place = chunk.rfind(".")
    if place <= 0 or chunk[place - 1] == "." or not set(chunk[place + 1 :]) <= CLOSES_SENTENCE:
        return None
    word = chunk[:place].lstrip('(["*#')
    if following is None and "*" not in chunk[place:]:
        return place
    if following is not None and place + 1 == len(chunk) and _ends_inside(following):
        return place  # Punkt looks at both chunks and asks whether there is an end before the last of their tokens
    if word in ABBREVIATIONS:
        return None
    if place + 1 == len(chunk) and _is_number_or_letter(word) and (following[0].islower() or following[0] in ",:;"):
        return None
    return place


def _ends_inside(chunk):
    for place, character in enumerate(chunk[:-1]):
        word = chunk[:place].lstrip('(["*#')
        if character in "?!":
            return True
        if character == "." and place and chunk[place + 1] in CLOSES_SENTENCE and word not in ABBREVIATIONS:
            return chunk[place - 1] != "."
    return False


def _is_number_or_letter(word):
    return word.replace(",", "").replace(".", "").isdigit() or (len(word) == 1 and word.isalpha())


def _peel(chunk, last_period):
    tokens, word, place = [], "", 0

    def finish(at_end):
        nonlocal word
        tokens.extend(_clitics(word, at_end))
        word = ""

    while place < len(chunk):
        character, rest = chunk[place], chunk[place:]
        dots = len(rest) - len(rest.lstrip("."))
        if dots > 1 or rest.startswith("--") or character in ALONE or place == last_period:
            finish(True)
            size = dots if dots > 1 else 2 if rest.startswith("--") else 1
            tokens.append(rest[:size])
            place += size
        elif character in ",:" and not rest[1:2].isdigit():
            finish(True)
            tokens.append(character)
            place += 1
        else:
            word += character
            place += 1
    finish(True)
    return tokens


def _clitics(word, at_end):
    if not word:
        return []
    if word in CONTRACTED:
        return list(CONTRACTED[word])
    for clitic in ("n't", "'s", "'m", "'d", "'ll", "'re", "'ve", "'"):
        if at_end and word.endswith(clitic) and len(word) > len(clitic):
            return [word[: -len(clitic)], clitic]
    return [word]


def naive_mentions(tokens, vocabulary):
    """Categories that tokens mention, in order, and how many words are left after joining pairs."""
    lemmas = []
    for place, token in enumerate(tokens):
        before = tokens[place - 1] if place else None
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        lost = any(token in rule.forms and (before in rule.after or after in rule.before) for rule in vocabulary.lost)
        lemma = vocabulary.nouns.get(token) or vocabulary.verbs.get(token)
        lemmas.append("-" if lost or lemma is None else lemma)
    words = []
    while lemmas:
        pair = tuple(lemmas[:2])
        if pair in vocabulary.pairs:
            words.append(vocabulary.pairs[pair])
            lemmas = lemmas[2:]
        else:
            words.append(lemmas.pop(0))
    if "toilet" in words and "seat" in words:
        words = [word for word in words if word != "seat"]
    return [vocabulary.category_of[word] for word in words if word in vocabulary.category_of], len(words)


def naive_rates(readings, ground_truth):
    """Rates in percent of (image id, mentions, words) and the objects of each image."""
    readings = list(readings)
    hallucinated_captions = sum(any(name not in ground_truth[image] for name in names) for image, names, _ in readings)
    mentions = sum(len(names) for _, names, _ in readings)
    hallucinated = sum(name not in ground_truth[image] for image, names, _ in readings for name in names)
    correct = sum(len(set(names) & set(ground_truth[image])) for image, names, _ in readings)
    mentioned = sum(len(set(names)) for _, names, _ in readings)
    present = sum(len(set(ground_truth[image])) for image, _, _ in readings)
    precision = 100 * correct / mentioned if mentioned else 0.0
    recall = 100 * correct / present if present else 0.0
    return {
        "chair_s": 100 * hallucinated_captions / len(readings) if readings else 0.0,
        "chair_i": 100 * hallucinated / mentions if mentions else 0.0,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if correct else 0.0,
        "mean_words": sum(words for _, _, words in readings) / len(readings) if readings else 0.0,
    }

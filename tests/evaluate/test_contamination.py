"""Contamination by hand: runs of words shared with the corpus."""

from tljax.evaluate.contamination import NGRAM, contaminated, runs_of_words

EIGHT = "one two three four five six seven eight"


def test_runs_by_hand():
    assert runs_of_words("The cat, the DOG - and I!", 3) == {
        "the cat the",
        "cat the dog",
        "the dog and",
        "dog and i",
    }
    assert runs_of_words("only two", 3) == set()
    assert runs_of_words("", 3) == set()
    assert len(runs_of_words(EIGHT)) == 1 and NGRAM == 8


def test_an_item_is_contaminated_by_a_run_in_one_document():
    items = {
        "b": f"before {EIGHT}",
        "a": f"{EIGHT} after",
        "short": "one two three",
        "near": EIGHT.replace("eight", "nine"),
    }
    assert contaminated(items, [f"So: {EIGHT.title()}!"]) == ["a", "b"]
    assert contaminated(items, ["one two three four", "five six seven eight"]) == []
    assert contaminated(items, []) == []


def test_letters_of_any_script_are_words():
    text = "Это был очень хороший фильм о жизни людей"
    assert len(runs_of_words(text)) == 1
    assert contaminated({"x": text + " сегодня"}, [text.upper()]) == ["x"]


def test_items_of_one_text_are_all_found_and_sorted():
    names = list("hagbfced")
    assert contaminated(dict.fromkeys(names, EIGHT), [EIGHT]) == sorted(names)

"""A card says what the records say, and no more."""

from tljax.pretrained.card import AdapterOf, model_card

MANIFEST = {
    "parameters": 1234567,
    "versions": {"tljax": "0.1.0"},
    "data": {"pkg:rotten_tomatoes": {"licence": "MIT"}, "csv:a.csv": {"licence": ""}},
}


def test_a_fine_tuned_models_card():
    config = {"kind": "finetune", "init": {"source": "pkg:smollm2-135m"}}
    results = {
        "params_sha256": "ab" * 32,
        "test": {"accuracy": {"value": 0.8125, "se": 0.01, "n": 2000}},
    }
    card = model_card(name="mine", config=config, manifest=MANIFEST, results=results)
    assert card.startswith("# mine\n")
    for line in (
        "It began from `pkg:smollm2-135m`",
        "1,234,567 parameters",
        "`" + "ab" * 32 + "`",
        "- `pkg:rotten_tomatoes`: licence: MIT",
        "- `csv:a.csv`: licence: not stated",
        "| test accuracy | 0.8125 ± 0.0100 | 2,000 |",
        "## Intended use",
        "## Limits",
        'AutoModel.from_pretrained(".")',
    ):
        assert line in card
    assert "peft" not in card
    card = model_card(
        name="mine", config=config, manifest=MANIFEST, results=results,
        adapter_of=AdapterOf("AutoModelForCausalLM", "some/base"),
    )  # fmt: skip
    assert 'AutoModelForCausalLM.from_pretrained("some/base")' in card
    assert 'PeftModel.from_pretrained(model, ".").get_base_model()' in card
    card = model_card(
        name="mine", config=config, manifest=MANIFEST, results=results,
        adapter_of=AdapterOf("AutoModelForCausalLM", "some/base", virtual=True),
    )  # fmt: skip
    # the base inside would leave out what stands before a text
    assert "get_base_model" not in card and "hidden_states[-1][0]" in card


def test_an_imported_models_card_refers_to_its_own():
    config = {"kind": "import", "source": "hf:some/model"}
    card = model_card(
        name="x", config=config, manifest={"params_sha256": "cd"}, results={}
    )
    assert "its own card" in card and "None by tljax." in card and "`cd`" in card

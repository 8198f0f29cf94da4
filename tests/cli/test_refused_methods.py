"""`tljax train` with a method that cannot be: one line, status 2, no folder."""

import pytest

CASES = {
    "a rule that matches nothing": (
        {"transfer.method": "rule", "transfer.targets": "nothing"},
        "targets='nothing' matches no weight that may move; there are, e.g. layers/0/",
    ),
    "targets that match nothing": (
        {"transfer.method": "lora", "transfer.targets": "layers/0/atention/key"},
        "matches no matrix of the layers that move; did you mean 'layers/0/attention/k",
    ),
    "rank above the sides": (
        {"transfer.method": "lora", "transfer.rank": 500},
        "transfer.rank=500 is more than any of the chosen matrices has; take",
    ),
    "unknown method": (
        {"transfer.method": "loraa"},
        "transfer.method is 'loraa'; allowed: 'full', 'head',",
    ),
    "no layer for a prefix": (
        {"transfer.method": "prefix", "transfer.frozen_layers": 1},
        "leaves no layer to which a prefix could be added; take fewer",
    ),
    "a key of another method": (
        {"transfer.method": "prefix", "transfer.prompt_length": 3},
        "prompt_length=3 is not read with config.transfer.method='prefix', only with",
    ),
    "replay without a text": (
        {"regularize.replay": 0.1},
        "replay=0.1 needs config.regularize.replay_source, the URI of a text",
    ),
    "replay of a text that is not there": (
        {"regularize.replay": 0.1, "regularize.replay_source": "text:/nowhere"},
        "/nowhere does not exist",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_method_that_cannot_be_is_refused(
    name, finetune_arguments, language_run, tmp_path, refused
):
    keys, said = CASES[name]
    run = tmp_path / "run"
    given = [f"--config.{key}={value}" for key, value in keys.items()]
    start = [f"--config.init.source={language_run}", f"--workdir={run}"]
    line = refused("train", *finetune_arguments, *start, *given)
    assert said in line
    assert ("did you mean 'lora'?" in line) == (name == "unknown method")
    assert not run.exists()


@pytest.mark.parametrize("verb", ["import", "embed", "train"])
def test_an_adapter_without_its_model_is_refused(
    verb, finetune_arguments, reviews, tmp_path, refused
):
    adapter, out = tmp_path / "adapter", tmp_path / "out"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "b/c"}')
    source = f"hf:{adapter}"
    given = {
        "import": [f"--source={source}", f"--out={out}"],
        "embed": [f"--model={source}", f"--input={reviews}", "--text=review",
                  f"--out={out}.npy"],
        "train": [*finetune_arguments, f"--config.init.source={source}"],
    }[verb]  # fmt: skip
    given += [f"--workdir={out}"] if verb == "train" else []
    assert f"{adapter} holds an adapter for PEFT, of b/c, not" in refused(verb, *given)
    (adapter / "adapter_config.json").write_text('{"base_model')
    assert "adapter_config.json is not JSON" in refused(verb, *given)
    assert not out.exists()

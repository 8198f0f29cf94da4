"""Other people's checkpoints through the command: read, used, learnt from, written."""

import json
import pathlib
import shutil
import types

import numpy as np
import pytest
from safetensors.numpy import load_file

from tljax.cli.main import main
from tljax.generate import programs


@pytest.fixture(scope="module")
def checkpoint(tiny_llama) -> pathlib.Path:
    return tiny_llama


@pytest.fixture(scope="module")
def imported(checkpoint, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    assert main(["import", f"--source=hf:{checkpoint}", f"--out={folder}"]) == 0
    return folder


@pytest.fixture
def logits_of(tmp_path):
    """logits_of(model, *flags) -> float32 [2, 9, 320] of fixed tokens."""
    tokens = np.random.default_rng(1).integers(0, 300, (2, 9))

    def run(model, *flags):
        np.save(tmp_path / "tokens.npy", tokens)
        out = tmp_path / "logits.npz"
        given = [f"--model={model}", f"--tokens={tmp_path}/tokens.npy", f"--out={out}"]
        assert main(["logits", *given, *flags]) == 0
        return np.load(out)["logits"]

    return run


def test_an_import_keeps_a_ledger_and_computes_the_same(
    checkpoint, imported, logits_of
):
    ledger = json.loads((imported / "ledger.json").read_text())
    names = load_file(checkpoint / "model.safetensors")
    assert {line["tensor"] for line in ledger} == {
        name.removeprefix("model.") for name in names
    }
    by_leaf = {line["leaf"]: line for line in ledger}
    key = by_leaf["layers/1/attention/key/kernel"]
    assert (key["shape"], key["stored"], key["how"]) == ([24, 8], "F32", "transposed")
    at_once, kept = logits_of(f"hf:{checkpoint}"), logits_of(imported)
    assert at_once.shape == (2, 9, 320) and at_once.dtype == np.float32
    np.testing.assert_array_equal(kept, at_once)
    assert np.abs(kept).max() > 0.5


def test_through_the_cache_and_packed_the_logits_are_the_same(
    imported, logits_of, tmp_path, monkeypatch
):
    whole = logits_of(imported)
    # float32, another order of summation
    close = {"rtol": 0, "atol": 1e-4}
    np.testing.assert_allclose(logits_of(imported, "--cache"), whole, **close)
    monkeypatch.setattr("tljax.cli.logits.ROWS", 1)
    read, rows = programs.read, []

    def counted(settings, params, tokens_BL, segments_BL):
        rows.append(len(tokens_BL))
        return read(settings, params, tokens_BL, segments_BL)

    monkeypatch.setattr(programs, "read", counted)
    np.testing.assert_allclose(logits_of(imported, "--cache"), whole, **close)
    assert rows == [1, 1]
    segments = np.array([[1] * 9, [1] * 5 + [2] * 4])
    np.save(tmp_path / "segments.npy", segments)
    packed = logits_of(imported, f"--segments={tmp_path}/segments.npy")
    np.testing.assert_allclose(packed[0], whole[0], **close)
    np.testing.assert_allclose(packed[1, :5], whole[1, :5], **close)
    assert np.abs(packed[1, 5:] - whole[1, 5:]).max() > 1e-2
    stepped = logits_of(imported, "--cache", f"--segments={tmp_path}/segments.npy")
    np.testing.assert_allclose(stepped, packed, **close)


@pytest.mark.parametrize("form", ["safetensors", "gguf"])
def test_there_and_back_is_the_same(checkpoint, imported, logits_of, tmp_path, form):
    out = tmp_path / "out"
    flags = ["--stored=F32"] if form == "gguf" else []
    command = ["export", f"--run={imported}", f"--out={out}", f"--format={form}"]
    assert main([*command, *flags]) == 0
    again = f"hf:{out}" if form == "safetensors" else f"gguf:{next(out.glob('*.gguf'))}"
    np.testing.assert_allclose(logits_of(again), logits_of(imported), atol=1e-5)
    if form == "safetensors":
        config = json.loads((out / "config.json").read_text())
        assert config["architectures"] == ["LlamaForCausalLM"]
        card = (out / "README.md").read_text()
        assert "## Limits" in card and "Other people's model" in card
        ours, theirs = (
            json.loads((folder / "tokenizer_config.json").read_text())
            for folder in (out, checkpoint)
        )
        assert ours["chat_template"] == theirs["chat_template"]


def test_vectors_are_means_of_the_final_states(imported, tmp_path):
    (tmp_path / "texts.txt").write_text("a lovely film\n\na dreary film about films\n")
    out = tmp_path / "vectors.npy"
    command = ["embed", f"--model={imported}", f"--input={tmp_path}/texts.txt",
               f"--out={out}"]  # fmt: skip
    assert main([*command, "--pooling=mean"]) == 0
    mean = np.load(out)
    assert mean.shape == (3, 24) and mean.dtype == np.float32
    assert main([*command, "--pooling=mean", "--normalize=true"]) == 0
    np.testing.assert_allclose(np.linalg.norm(np.load(out), axis=1), 1, rtol=1e-6)
    assert main(command) == 0  # a decoder's last token
    assert np.abs(np.load(out)[0] - mean[0]).max() > 1e-3
    np.testing.assert_allclose(np.load(out)[1], mean[1], atol=1e-5)  # of one token


def test_generating_goes_on_from_the_prompt_and_repeats_itself(imported, capsys):
    def say(*flags):
        command = ["generate", f"--model={imported}", "--prompt=a lovely"]
        assert main([*command, "--max_new=12", "--dtype=float32", *flags]) == 0
        return capsys.readouterr().out

    greedy = say("--temperature=0")
    assert len(greedy) > 1 and greedy == say("--temperature=0", "--seed=3")
    drawn = [say("--temperature=1.5", f"--seed={seed}") for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    stop = greedy.strip()[3:5]
    cut = say("--temperature=0", f"--stop={stop}")
    assert cut == greedy[: greedy.index(stop)] + "\n"


def test_prompts_of_a_file_get_what_each_gets_alone(imported, tmp_path, capsys):
    prompts = ["a lovely film", "a", "dreary films are dreary"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    common = [f"--model={imported}", "--max_new=8", "--temperature=0",
              "--dtype=float32"]  # fmt: skip
    file = [f"--input={tmp_path}/prompts.txt", f"--output={tmp_path}/out.jsonl"]
    assert main(["generate", *common, *file]) == 0
    rows = [json.loads(x) for x in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == prompts
    for row in rows:
        capsys.readouterr()
        assert main(["generate", *common, f"--prompt={row['prompt']}"]) == 0
        assert capsys.readouterr().out == row["text"] + "\n"


@pytest.fixture
def talk(imported, monkeypatch, capsys):
    """talk(lines) -> (out, err): an answer a line, and what was refused."""

    def said(*lines, status=0, flags=("--max_new=6",)):
        answers = iter(lines)

        def ask(_):
            try:
                return next(answers)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("builtins.input", ask)
        always = [f"--model={imported}", "--temperature=0", "--dtype=float32"]
        assert main(["chat", *always, *flags]) == status
        return capsys.readouterr()

    return said


def test_a_chat_remembers_what_was_said(talk):
    alone = talk("a film").out
    first, second, _ = talk("a lovely film", "a film").out.split("\n")
    assert second + "\n" != alone
    assert talk("a lovely film", "/new", "a film").out == f"{first}\n{alone}"
    assert talk("a film", "/quit", "a film").out == alone


def test_a_message_that_is_too_long_ends_a_chat_that_nobody_watches(talk):
    said = talk("a lovely film", "film " * 200, "a film", status=2)
    assert said.out == talk("a lovely film").out
    assert said.err.startswith("tljax: error: a message of this length")


def test_room_for_an_answer_is_looked_for_before_the_first_question(talk):
    said = talk(status=2, flags=["--max_new=64"])
    assert said.out == "" and "lower --max_new" in said.err


def test_a_message_that_is_too_long_leaves_the_conversation_as_it_was(
    talk, monkeypatch
):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    kept = talk("a lovely film", "a film")
    tried = talk("a lovely film", "film " * 200, "a film")
    twice = "\nmodel: model: "  # asked for the message that is refused, too
    assert tried.out == kept.out.replace("\nmodel: ", twice) and not kept.err
    assert tried.err.count("\n") == 1 and "exceed the model's context" in tried.err


LORA = ["--config.transfer.method=lora", "--config.transfer.rank=2"]


@pytest.mark.parametrize(
    "transfer",
    [
        [],
        LORA,
        [*LORA, "--config.transfer.frozen_layers=1"],
        ["--config.transfer.method=head"],
        ["--config.transfer.frozen_layers=1"],
        ["--config.transfer.method=dora", "--config.transfer.rank=2"],
        ["--config.transfer.method=ia3"],
    ],
    ids=["full", "lora", "top lora", "head", "top", "dora", "ia3"],
)
def test_a_checkpoint_learns_labels(
    checkpoint, finetune_arguments, reviews, tmp_path, capsys, transfer, request
):
    run = tmp_path / "run"
    sizes = ("model.width", "model.depth", "model.mlp_width")  # the source's own
    given = [one for one in finetune_arguments if not any(s in one for s in sizes)]
    source = f"--config.init.source=hf:{checkpoint}"
    command = ["train", *given, source, *transfer, f"--workdir={run}"]
    assert main(command) == 0
    assert "config.model is that of hf:" in capsys.readouterr().out
    manifest = json.loads((run / "manifest.json").read_text())
    moving, whole = manifest["parameters_moving"], manifest["parameters"]
    assert (moving == whole) == (not transfer)
    assert manifest["init"]["params_sha256"]
    labels = tmp_path / "labels.jsonl"
    file = [f"--input={reviews}", "--text=review", f"--output={labels}"]
    assert main(["predict", f"--run={run}", *file]) == 0
    found = {json.loads(line)["label"] for line in labels.read_text().splitlines()}
    assert found <= {"good", "bad"}
    kept = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert main(command) == 0
    assert kept == {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    if "lora" in request.node.callspec.id:
        out = tmp_path / "adapter"
        assert main(["export", f"--run={run}", f"--out={out}", "--format=peft"]) == 0
        tensors = load_file(out / "adapter_model.safetensors")
        name = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
        assert tensors[name].shape == (2, 24)
        config = json.loads((out / "adapter_config.json").read_text())
        assert (config["r"], config["peft_type"]) == (2, "LORA")
        assert str(checkpoint) == config["base_model_name_or_path"]
        classifier = load_file(out / "classifier.safetensors")
        assert classifier["kernel"].shape == (24, 2) and classifier["kernel"].any()
        told = json.loads((out / "classifier.json").read_text())
        assert told == {"classes": ["bad", "good"], "pooling": "mean"}
    merged = tmp_path / "merged"
    assert main(["export", f"--run={run}", f"--out={merged}"]) == 0
    assert set(load_file(merged / "classifier.safetensors")) == {"kernel", "bias"}


@pytest.mark.parametrize("key", ["bottleneck", "prompt", "prefix"])
def test_a_checkpoint_learns_labels_by_what_is_no_weights(
    checkpoint, finetune_arguments, reviews, tmp_path, key
):
    run, labels = tmp_path / "run", tmp_path / "labels.jsonl"
    sizes = ("model.width", "model.depth", "model.mlp_width")
    given = [one for one in finetune_arguments if not any(s in one for s in sizes)]
    given += [
        f"--config.init.source=hf:{checkpoint}",
        f"--config.transfer.method={key}",
    ]
    if key != "bottleneck":
        given.append(f"--config.transfer.{key}_length=3")
    assert main(["train", *given, f"--workdir={run}"]) == 0
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["parameters_moving"] < manifest["parameters"]
    file = [f"--input={reviews}", "--text=review", f"--output={labels}"]
    assert main(["predict", f"--run={run}", *file]) == 0
    assert (
        len(labels.read_text().splitlines())
        == len(reviews.read_text().splitlines()) - 1
    )


def spoilt(checkpoint, tmp_path, **changes):
    """A copy of the checkpoint with another config.json."""
    folder = tmp_path / "spoilt"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"hidden_size": 48}, "embed_tokens.weight' has shape (320, 24)"),
        ({"num_hidden_layers": 3}, "no tensor 'model.layers.2."),
        ({"num_hidden_layers": 1}, "and 8 more have no place in a llama"),
        ({"vocab_size": 200}, "the tokenizer has 275 tokens, the embedding 200 rows"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    checkpoint, tmp_path, refused, changes, said
):
    folder, out = spoilt(checkpoint, tmp_path, **changes), tmp_path / "out"
    assert said in refused("import", f"--source=hf:{folder}", f"--out={out}")
    assert not out.exists() and not list(tmp_path.glob("out*"))


def test_an_import_that_finds_no_room_leaves_nothing(
    checkpoint, tmp_path, refused, monkeypatch
):
    disk = types.SimpleNamespace(total=10**9, free=50_000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: disk)
    out = tmp_path / "new" / "out"
    said = refused("import", f"--source=hf:{checkpoint}", f"--out={out}")
    assert "0.1 MB are free there; make room" in said
    assert not list(tmp_path.iterdir())


def test_wrong_uses_get_one_line(checkpoint, imported, tmp_path, refused):
    model = f"--model={imported}"
    tokens = tmp_path / "t.npy"
    np.save(tokens, np.array([[1, 2, 400]]))
    out = f"--out={tmp_path}/o.npz"
    said = refused("logits", model, f"--tokens={tokens}", out)
    assert "holds the id 400" in said and "has 320 tokens" in said
    np.save(tokens, np.ones((1, 65), int))
    assert "context of" in refused("logits", model, f"--tokens={tokens}", out)
    np.save(tokens, np.ones((1, 3)))
    assert "must hold integers" in refused("logits", model, f"--tokens={tokens}", out)
    plain = f"--model={checkpoint}"
    assert f"name it hf:{checkpoint}" in refused("generate", plain, "--prompt=a")
    assert "needs --prompt" in refused("generate", model)
    long = "a film " * 100
    assert "shorten the prompt" in refused("generate", model, f"--prompt={long}")
    assert "temperature" in refused("generate", model, "--prompt=a", "--temperature=-1")
    assert "is there already" in refused(
        "import", f"--source=hf:{checkpoint}", f"--out={imported}"
    )
    assert "did you mean 'gguf'" in refused(
        "export", f"--run={imported}", f"--out={tmp_path}/x", "--format=ggu"
    )
    assert "this run's is 'full'" in refused(
        "export", f"--run={imported}", f"--out={tmp_path}/x", "--format=peft"
    )
    (tmp_path / "a.txt").write_text("a\n")
    assert "pkg:smollm2-135m" in refused(
        "embed",
        "--model=pkg:smollm",
        f"--input={tmp_path}/a.txt",
        f"--out={tmp_path}/v.npy",
    )
    assert not (tmp_path / "o.npz").exists() and not (tmp_path / "x").exists()


def test_our_own_runs_export_only_what_a_family_computes(
    language_run, tmp_path, refused
):
    said = refused("export", f"--run={language_run}", f"--out={tmp_path}/out")
    assert "no family of Transformers computes" in said and "relu2" in said

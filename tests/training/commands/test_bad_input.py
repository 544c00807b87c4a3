"""Bad input, command by command: exit code 2 and one line that says what was wrong and where.

A row of `BAD` is the name of the case, the arguments of `sentence-ordering`, and what the line must say. In both,
`{model}` is a trained model, `{encoder}` an encoder, `{data}` a file of stories, `{out}` a path where nothing is,
`{files}` the folder with what `files` below makes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from tests.modeling_sentence_ordering.small_encoders import BERT_SPECIALS, write_tokenizer
from tests.training.conftest import Trained, run_command
from tests.training.made_up import made_up_stories, write_jsonl
from training.commands.command_line import COMMANDS, main

TRAIN = "train --output_dir {out} "
CNN, RNN = (TRAIN + f"--encoder {name} --data {{data}} " for name in ("cnn", "rnn"))
READING = TRAIN + "--encoder {encoder} --data "
BAD: list[tuple[str, str, list[str]]] = [
    # What is typed
    ("no command", "", ["a command is missing", "train", "order"]),
    ("unknown command", "trian", ["command 'trian'", "did you mean train?"]),
    ("command like no other", "zzzzzz", ["command 'zzzzzz'", "evaluate"]),
    ("unknown flag before the command", "--modle", ["--modle"]),
    ("train: misspelled flag", "train --learning_rat 1", ["--learning_rat", "did you mean --learning_rate?"]),
    ("train: flag like no other", "train --zzzzzz 1", ["--zzzzzz"]),
    ("train: abbreviated flag", "train --learn 1", ["--learn"]),
    ("evaluate: misspelled flag", "evaluate --model m --data d --splitt all", ["did you mean --split?"]),
    ("order: misspelled flag", "order --model m --ouput x.txt", ["did you mean --output?"]),
    ("build: misspelled flag", "build --data sample --output_dir {out} --data_sed 1", ["did you mean --data_seed?"]),
    ("train: one argument too many", "train stray --encoder cnn", ["stray"]),
    ("train: no number", "train --seed many", ["--seed", "'many'"]),
    ("train: a fraction of a step", "train --max_steps 1.5", ["--max_steps", "'1.5'"]),
    ("train: no truth value", "train --bf16 perhaps", ["--bf16", "perhaps"]),
    ("train: flag without its value", "train --encoder", ["--encoder", "expected one argument"]),
    ("train: --config without its value", "train --config", ["--config", "expected one argument", "train --help"]),
    ("evaluate: no model", "evaluate --data {data}", ["--model"]),
    ("evaluate: no data", "evaluate --model {model}", ["--data"]),
    ("order: no model", "order {data}", ["--model"]),
    ("order: batches of nothing", "order --model {model} --batch_size 0 {data}", ["--batch_size must be at least 1"]),
    (
        "evaluate: batches of nothing",
        "evaluate --model {model} --data {data} --per_device_eval_batch_size 0",
        ["--per_device_eval_batch_size must be at least 1"],
    ),
    ("evaluate: unknown split", "evaluate --model {model} --data {data} --split dev", ["split", "'dev'", "validation"]),
    # Recipes
    ("train: no encoder", TRAIN + "--data {data}", ["--encoder is missing"]),
    ("train: no data", TRAIN + "--encoder {encoder}", ["--data is missing"]),
    ("train: no folder", "train --encoder {encoder} --data {data}", ["--output_dir is missing"]),
    ("train: unknown framework", TRAIN + "--framework keras", ["framework", "'keras'", "trainer"]),
    ("train: impossible rate", CNN + "--learning_rate -1", ["--learning_rate must be above 0"]),
    ("train: rate that is no number", CNN + "--learning_rate nan", ["finite"]),
    ("train: no recipe there", TRAIN + "--config {files}/none.yaml", ["cannot read the recipe", "none.yaml"]),
    (
        "train: misspelled field",
        TRAIN + "--config {files}/misspelled.yaml",
        ["'sead'", "did you mean 'seed'?", "misspelled.yaml"],
    ),
    ("train: recipe that is no mapping", TRAIN + "--config {files}/list.yaml", ["list.yaml", "mapping"]),
    (
        "train: impossible value in a recipe",
        TRAIN + "--config {files}/impossible.yaml",
        ["impossible.yaml", "test_size must be above 0 and below 1"],
    ),
    # The model card
    ("train: no such licence", CNN + "--license cc-by-4", ["--license cc-by-4", "did you mean cc-by-4.0?"]),
    ("train: no such licence of a model", CNN + "--model_license Apache2", ["--model_license", "apache-2.0?"]),
    ("train: a licence that is none", CNN + "--license unknown", ["--license unknown permits nothing"]),
    ("train: no such language", CNN + "--language english", ["--language english", "two or three letters"]),
    # Encoders
    ("train: no such encoder", TRAIN + "--encoder {files}/none --data {data}", ["{files}/none", "no such folder"]),
    ("train: encoder is a file", TRAIN + "--encoder {data} --data {data}", ["{data}", "no such folder"]),
    ("train: causal model", TRAIN + "--encoder {files}/causal --data {data}", ["causal", "would not see"]),
    ("train: folder without a model", TRAIN + "--encoder {files}/empty --data {data}", ["empty"]),
    (
        "train: encoder_config of a pretrained one",
        READING + "{data} --encoder_config {{}}",
        ["--encoder_config is for"],
    ),
    ("train: encoder_config that is no JSON", CNN + "--encoder_config x", ["not JSON"]),
    ("train: unknown field of the encoder", CNN + '--encoder_config {{"depth":2}}', ["'cnn'", "depth"]),
    (
        "train: impossible field of the encoder",
        CNN + '--encoder_config {{"filter_size":4}}',
        ["filter_size must be odd"],
    ),
    ("train: field of the encoder of another type", RNN + '--encoder_config {{"hidden_size":"big"}}', ["'rnn'"]),
    ("train: negative field of the encoder", RNN + '--encoder_config {{"embedding_dim":-4}}', ["'rnn'"]),
    ("train: encoder that cannot recompute", RNN + "--gradient_checkpointing", ["--gradient_checkpointing", "rnn"]),
    # Data
    ("train: no such file", READING + "{files}/storys.jsonl", ["no such file", "did you mean {files}/stories.jsonl"]),
    ("train: no data of this name", READING + "nothing_here", ["nothing_here", "no such data"]),
    ("train: format that is not read", READING + "{files}/picture.png", ["picture.png", ".jsonl"]),
    ("train: bad row", READING + "{files}/bad.jsonl", ["bad.jsonl, row 2", "not a list"]),
    ("train: header is missing", READING + "{files}/headless.csv", ["headless.csv", "header row is missing"]),
    ("train: not UTF-8", READING + "{files}/latin.txt", ["latin.txt, row 1", "not UTF-8"]),
    ("train: too few stories to split", READING + "{files}/two.jsonl", ["2 stories are too few"]),
    (
        "train: too few stories for a step",
        READING + "{files}/stories.jsonl --gradient_accumulation_steps 50 --no_eval_on_start",
        ["too few for the 50 batches of a step"],
    ),
    ("train: no stories to train on", READING + "{files}/test.jsonl", ["no training stories", "test.jsonl"]),
    ("evaluate: bad row", "evaluate --model {model} --data {files}/bad.jsonl --split all", ["bad.jsonl, row 2"]),
    (
        "evaluate: split that is not there",
        "evaluate --model {model} --data {files}/test.jsonl --split train",
        ["no split train", "test"],
    ),
    ("order: no such file", "order --model {model} {files}/storys.jsonl", ["no such file", "did you mean"]),
    (
        "order: a folder without stories",
        "order --model {model} {files}/data.jsonl",
        ["data.jsonl", "no file of stories", ".csv"],
    ),
    (
        "order: format that is not read",
        "order --model {model} {files}/picture.png",
        ["picture.png", "no reader for .png"],
    ),
    ("build: no such file", "build --data {files}/storys.jsonl --output_dir {out}", ["no such file"]),
    ("build: folder in use", "build --data {data} --output_dir {files}", ["not an empty folder"]),
    # Models
    (
        "evaluate: no such model",
        "evaluate --model {files}/none --data {data}",
        ["--model {files}/none", "no such folder"],
    ),
    ("order: no such model", "order --model {files}/none {data}", ["--model {files}/none", "no such folder"]),
    ("order: folder without a model", "order --model {files}/empty {data}", ["no config.json"]),
    (
        "order: another kind of model",
        "order --model {encoder} {data}",
        ["is a bert model", "from_token_classification"],
    ),
    ("order: broken config", "order --model {files}/broken-config {data}", ["config.json is broken"]),
    ("order: no weights", "order --model {files}/no-weights {data}", ["no weights"]),
    ("order: no tokenizer", "order --model {files}/no-tokenizer {data}", ["no tokenizer"]),
    ("order: torn weights", "order --model {files}/torn-weights {data}", ["torn-weights", "cannot be loaded"]),
    (
        "order: weights of something else",
        "order --model {files}/other-weights {data}",
        ["other-weights", "weights lack"],
    ),
    # Where to write
    ("train: folder is a file", "train --encoder {encoder} --data sample --output_dir {data}", ["is a file"]),
    ("train: folder in a file", "train --encoder {encoder} --data {data} --output_dir {data}/sub", ["cannot be made"]),
    ("train: folder in use", "train --encoder {encoder} --data {data} --output_dir {files}", ["is not empty"]),
    (
        "train: nothing to resume",
        "train --encoder {encoder} --data {data} --output_dir {files} --resume_from_checkpoint",
        ["no whole checkpoint"],
    ),
    (
        "order: format that is not written",
        "order --model {model} {data} --output {files}/x.tsv",
        ["cannot write .tsv", ".jsonl"],
    ),
    ("order: output without a suffix", "order --model {model} {data} --output {files}/x", ["without a suffix"]),
    ("order: output in no folder", "order --model {model} {data} --output {out}/x.txt", ["there is no folder {out}"]),
    ("order: output is a folder", "order --model {model} {data} --output {files}/data.jsonl", ["is a folder"]),
    (
        "evaluate: output in no folder",
        "evaluate --model {model} --data {data} --output_json {out}/x.json",
        ["there is no folder {out}"],
    ),
    ("evaluate: output is a folder", "evaluate --model {model} --data {data} --output_json {files}", ["is a folder"]),
]


@pytest.fixture(scope="module")
def files(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files and folders with something wrong."""
    folder = tmp_path_factory.mktemp("files")
    texts = {
        "misspelled.yaml": "sead: 1\n",
        "list.yaml": "- seed\n",
        "impossible.yaml": f"encoder: cnn\ndata: {trained.home / 'stories.jsonl'}\ntest_size: 1\n",
        "picture.png": "",
        "bad.jsonl": '{"sentences": ["It rained.", "Tom baked."]}\n{"sentences": "It rained."}\n',
        "headless.csv": "1,Rain,It rained.,Tom baked.,She stayed.,We walked.,Mother made tea.\n" * 9,
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "latin.txt").write_bytes("Il pleut à verse.\nTom.\n".encode("latin-1"))
    write_jsonl(folder / "stories.jsonl", made_up_stories(12))
    write_jsonl(folder / "two.jsonl", made_up_stories(2))
    write_jsonl(folder / "test.jsonl", made_up_stories(5))
    for name in ("empty", "data.jsonl", "causal"):
        (folder / name).mkdir()
    vocabulary = write_tokenizer(folder / "causal", "wordpiece", BERT_SPECIALS, "BertTokenizer")
    config = transformers.GPT2Config(vocab_size=vocabulary, n_embd=8, n_layer=1, n_head=1)
    transformers.AutoModel.from_config(config).save_pretrained(folder / "causal")
    for name in ("broken-config", "no-weights", "no-tokenizer", "torn-weights", "other-weights"):
        (folder / name).mkdir()
        for path in trained.folder.iterdir():
            if path.is_file():
                (folder / name / path.name).write_bytes(path.read_bytes())
    (folder / "broken-config" / "config.json").write_text("{")
    (folder / "no-weights" / "model.safetensors").unlink()
    (folder / "no-tokenizer" / "tokenizer_config.json").unlink()
    weights = folder / "torn-weights" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    encoder = trained.home / "tiny-bert" / "model.safetensors"
    (folder / "other-weights" / "model.safetensors").write_bytes(encoder.read_bytes())
    return folder


@pytest.mark.parametrize(("arguments", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input_is_refused_in_one_line(
    arguments: str, said: list[str], files: Path, trained: Trained, tmp_path: Path
) -> None:
    places = {
        "model": trained.folder,
        "encoder": trained.home / "tiny-bert",
        "data": trained.home / "stories.jsonl",
        "out": tmp_path / "out",
        "files": files,
    }
    before = sorted(path for path in files.rglob("*"))
    result = run_command(*[argument.format(**places) for argument in arguments.split()])
    assert result.code == 2, result
    assert result.err.count("\n") == 1, result.err
    assert result.err.startswith("sentence-ordering: ")
    for words in said:
        assert words.format(**places) in result.err
    assert sorted(path for path in files.rglob("*")) == before
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_is_no_error(command: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*([] if command is None else [command]), "--help"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out.startswith(f"usage: sentence-ordering {command or 'COMMAND'}")
    if command is None:
        assert all(name in output.out for name in COMMANDS)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split() == ["sentence-ordering", "0.1.0"]

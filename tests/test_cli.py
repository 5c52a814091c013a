"""The command line: one JSON object on stdout, one line on stderr for bad input, honest exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from copal_core.analysis.results import result_of
from copal_core.cli.main import main
from copal_core.config import RunConfig
from copal_core.store.runs import Runs
from tests.support import ended_by

ROOT = Path(__file__).resolve().parent.parent


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "copal_core", *arguments]


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "COPAL_RUNS": str(root), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def arguments(small_model: Path, texts: tuple[str, ...], runs: Runs) -> list[str]:
    found = ["run", "--checkpoint", str(small_model), "--device", "cpu", "--dtype", "float32"]
    found += [
        "--domain",
        texts[0],
        "--domain",
        texts[1],
        "--method",
        "copal:accumulate",
        "--method",
        "wanda:restart",
    ]
    return [*found, "--calibration", "3x24", "--evaluation", "2x24", "--map-size", "8"]


@pytest.mark.slow
def test_a_run_prints_one_object_and_nothing_else(arguments: list[str], runs: Runs, tmp_path: Path) -> None:
    done = subprocess.run(
        command(*arguments, "--json"),
        cwd=tmp_path,
        env=environment(runs.root),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert [method["method"] for method in result["methods"]] == ["copal:accumulate", "wanda:restart"]
    assert "100%" in done.stderr and "perplexity" in done.stderr
    store = runs.open(result["run"])
    assert result_of(store) == result and store.state().status == "done"


@pytest.mark.slow
def test_sigterm_cancels(arguments: list[str], runs: Runs, tmp_path: Path) -> None:
    long = [*arguments, "--domain", arguments[8], "--seed", "3"]
    long[-3] = str(tmp_path / "third.txt")
    Path(long[-3]).write_text("".join(f"line {i * i % 4093} of a third text\n" for i in range(3000)))
    done = subprocess.run(
        [sys.executable, "-c", ended_by("SIGTERM"), *long, "--json"],
        cwd=tmp_path,
        env=environment(runs.root),
        capture_output=True,
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout == b"" and b"Traceback" not in done.stderr
    (summary,) = runs.list()
    assert summary.status == "cancelled"
    assert len(runs.open(summary.id).perplexity()) == 3  # those of the dense model, and no more


def run_here(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        status = main(arguments)
    except SystemExit as left:  # argparse leaves this way
        status = int(left.code or 0)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


BAD: dict[str, tuple[list[str], str]] = {
    "domain": (["--domain", "shakespear"], "domain 'shakespear' is not known"),
    "missing file": (["--domain", "/nowhere/notes.txt"], "/nowhere/notes.txt"),
    "method": (["--method", "wand:restart"], "'wand' is not known"),
    "strategy": (["--method", "wanda:restrat"], "strategy 'restrat' is not known; known: accumulate"),
    "form": (["--method", "wanda"], "not of the form NAME:STRATEGY"),
    "option": (["--method", "copal[epsilon=small]:joint"], "is a number, got 'small'"),
    "twice": (["--method", "wanda:restart"], "'wanda:restart' is listed twice"),
    "windows": (["--calibration", "16"], "not of the form COUNTxLENGTH"),
    "sparsity": (["--sparsity", "1.5"], "sparsity = 1.5 is not valid"),
    "structure": (["--structure", "4:2"], "keeps everything"),
    "sparsity of N:M": (
        ["--structure", "2:4", "--sparsity", "0.7"],
        "sparsity 0.7 does not go with structure 2:4",
    ),
    "no sparsity of N:M": (["--structure", "2:4", "--sparsity", "nan"], "which removes exactly 0.5; leave"),
    "group of N:M": (["--structure", "4:8", "--group", "row"], "group 'row' does not go with structure 4:8"),
    "device": (["--device", "banana"], "use auto, cpu, cuda, cuda:N or cuda:all"),
    "long number": (["--calibration", "9" * 5000 + "x2"], "not of the form COUNTxLENGTH"),
    "option twice": (["--method", "copal[epsilon=0.1,epsilon=0.2]:joint"], "'epsilon' of method"),
    "title": (["--title", "caf\udce9"], "--title 'caf?' is not UTF-8"),
    "context": (["--evaluation", "2x65"], "exceed the checkpoint's context of 64"),
    "groups": (["--structure", "3:7"], "7 divides"),
    "propagate": (["--propagate", "sideways"], "invalid choice: 'sideways'"),
    "seed": (["--seed", "x"], "invalid int value: 'x'"),
    "checkpoint": (["--checkpoint", "/nowhere/model"], "/nowhere/model"),
    "far too little text": (["--calibration", "100000x60"], "bytes of text, 100000x60 for calibration"),
    "too little text": (["--calibration", "600x60", "--evaluation", "400x60"], "would fit"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], runs: Runs, bad: str
) -> None:
    extra, said = BAD[bad]
    status, printed, errors = run_here(capsys, *arguments, *extra, "--json")
    assert status == 2
    assert printed == ""
    lines = [line for line in errors.splitlines() if not line.startswith("run ")]
    assert len(lines) == 1, errors
    assert said in lines[0] and lines[0].startswith("copal: ")


@pytest.mark.parametrize(
    "bad",
    [
        "domain",
        "missing file",
        "method",
        "strategy",
        "option",
        "windows",
        "sparsity",
        "sparsity of N:M",
        "far too little text",
    ],
)
def test_bad_input_leaves_no_run_behind(
    capsys: pytest.CaptureFixture[str], arguments: list[str], runs: Runs, bad: str
) -> None:
    run_here(capsys, *arguments, *BAD[bad][0])
    assert runs.list() == []


@pytest.mark.parametrize(
    ("given", "described"),
    [
        ((), "50 % per row"),
        (("--group", "layer"), "50 % per layer"),
        (("--sparsity", "0.3"), "30 % per row"),
        (("--structure", "2:4"), "2:4"),
        (("--structure", "2:4", "--sparsity", "0.5"), "2:4"),
        (("--structure", "1:3", "--sparsity", "0.667"), "1:3"),
    ],
)
def test_structure_as_it_is_asked_for(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], described: str
) -> None:
    seen: list[RunConfig] = []
    monkeypatch.setattr("copal_core.cli.runs.print_plan", lambda config, as_json: seen.append(config))
    assert main([*arguments, *given, "--plan"]) == 0
    assert str(seen[0].structure) == described
    assert RunConfig.from_json(seen[0].canonical()) == seen[0]


def test_a_run_of_before_with_an_unused_sparsity_still_loads() -> None:
    structure = {"kind": "n:m", "sparsity": 0.7, "group": "layer", "keep": 2, "group_size": 4}
    content = {"checkpoint": "tiny", "domains": ["a"], "methods": ["wanda:joint"], "structure": structure}
    text = json.dumps({"format": 1, **content})
    assert RunConfig.from_json(text).structure.removed == 0.5


def test_a_relative_file_is_found_from_another_folder(
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    runs: Runs,
    texts: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home, elsewhere = Path(texts[0]).parent, tmp_path / "elsewhere"
    elsewhere.mkdir()
    relative = [os.path.relpath(one, home) if one in texts else one for one in arguments]
    assert relative != arguments
    monkeypatch.chdir(home)
    with monkeypatch.context() as patch:  # made, and nothing sampled yet
        patch.setattr("copal_core.cli.runs._compute_and_print", lambda store, options: None)
        assert run_here(capsys, *relative)[0] == 0
    (made,) = runs.list()
    assert runs.open(made.id).config.domains == tuple(texts[:2])
    monkeypatch.chdir(elsewhere)
    status, printed, errors = run_here(capsys, "resume", made.id, "--json")
    assert status == 0, errors
    # a branch made from one folder, and resumed from another
    (elsewhere / "next.txt").write_text(Path(texts[2]).read_text())
    with monkeypatch.context() as patch:
        patch.setattr("copal_core.cli.runs._compute_and_print", lambda store, options: None)
        assert run_here(capsys, "branch", made.id, "--step", "1", "--domain", "next.txt")[0] == 0
    monkeypatch.chdir(home)
    branched = next(run for run in runs.list() if run.id != made.id)
    status, printed, errors = run_here(capsys, "resume", branched.id, "--json")
    assert status == 0, errors
    content = {domain["name"]: domain for domain in json.loads(printed)["domains"]}
    assert content["next.txt"]["spec"] == str(elsewhere / "next.txt")
    assert content["next.txt"]["content_hash"] != next(iter(content.values()))["content_hash"]


@pytest.mark.parametrize("name", ["show", "resume", "cancel"])
@pytest.mark.parametrize(("run", "said"), [("not-there", "there is no run"), ("../../etc", "is not valid")])
def test_an_unknown_run(
    capsys: pytest.CaptureFixture[str], runs: Runs, name: str, run: str, said: str
) -> None:
    status, printed, errors = run_here(capsys, name, run, "--json")
    assert (status, printed) == (2, "") and said in errors and errors.count("\n") == 1


def test_show_cancel_resume_branch_and_export(
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    runs: Runs,
    texts: tuple[str, ...],
    tmp_path: Path,
) -> None:
    def object_of(*parts: str) -> Any:
        status, printed, errors = run_here(capsys, *parts, "--json")
        assert status == 0, errors
        return json.loads(printed)

    made = object_of(*arguments)
    assert object_of("show", made["run"]) == made
    assert object_of("resume", made["run"])["dense"] == made["dense"]
    assert object_of("cancel", made["run"]) == {"run": made["run"], "cancel": "requested"}
    assert "nothing to cancel" in run_here(capsys, "cancel", made["run"])[1]
    assert object_of("resume", made["run"])["methods"] == made["methods"]  # an old request is forgotten
    branched = object_of("branch", made["run"], "--step", "1", "--domain", texts[2])
    first, second = (run["methods"][0]["perplexity"][0][0] for run in (made, branched))
    assert first == second and branched["run"] != made["run"]
    status, printed, _ = run_here(capsys, "show", made["run"])
    assert status == 0 and "BWT" in printed and "seed 0" in printed
    assert len(object_of("show")) >= 2

    out = tmp_path / "exported"
    assert object_of("export", made["run"], "--method", "copal:accumulate", "--out", str(out))[
        "folder"
    ] == str(out)
    check_exported(out, runs.open(made["run"]))
    status, _, errors = run_here(
        capsys, "export", made["run"], "--method", "copal:accumulate", "--out", str(out)
    )
    assert status == 2 and "is not empty" in errors
    for extra, said in (
        (["--out", str(out / "config.json")], "is a file"),
        (["--out", str(out / "config.json" / "new")], "could not be written"),
        (["--out", "/"], "is no folder to write into"),
        (
            ["--step", "0", "--out", str(tmp_path / "other")],
            f"step 0 is not in run '{made['run']}'; choose 1 to 2",
        ),
    ):
        status, _, errors = run_here(capsys, "export", made["run"], "--method", "copal:accumulate", *extra)
        assert status == 2 and said in errors and errors.count("\n") == 1
    before = len(runs.list())
    status, _, errors = run_here(capsys, "branch", made["run"], "--step", "1", "--domain", "shakespear")
    assert status == 2 and "did you mean" in errors and len(runs.list()) == before


def test_resume_leaves_a_living_run_and_its_cancel_request_alone(
    capsys: pytest.CaptureFixture[str], arguments: list[str], runs: Runs
) -> None:
    status, _, errors = run_here(capsys, *arguments, "--calibration", "600x60")  # refused, and so not done
    assert status == 2, errors
    (summary,) = runs.list()
    store = runs.open(summary.id)
    with store.lock():
        assert "asked to stop" in run_here(capsys, "cancel", store.id)[1]
        status, _, errors = run_here(capsys, "resume", store.id)
        assert status == 2 and "is being computed by another process" in errors
        assert store.cancel_requested()


def check_exported(out: Path, store: Any) -> None:
    """transformers loads the folder, its zeros are the mask's, and its perplexity is the run's."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert AutoTokenizer.from_pretrained(out)("the mask").input_ids
    kept = store.masks("copal:accumulate", 2, 1)["gate_proj"]
    weight = model.model.layers[1].mlp.gate_proj.weight.detach().numpy()
    assert ((weight != 0) == kept).all()
    windows = torch.from_numpy(store.windows(0)["evaluation"])
    with torch.no_grad():
        loss = model(input_ids=windows, labels=windows).loss
    assert float(loss.exp()) == pytest.approx(result_of(store)["methods"][0]["perplexity"][1][0], rel=1e-4)


@pytest.mark.parametrize("name", ["checkpoints", "domains", "methods"])
def test_lists(capsys: pytest.CaptureFixture[str], name: str) -> None:
    status, printed, _ = run_here(capsys, name, "--json")
    rows = json.loads(printed)
    assert status == 0 and len(rows) >= 2 and all(row["name"] for row in rows)
    status, printed, _ = run_here(capsys, name)
    assert status == 0 and len(printed.splitlines()) == len(rows)

"""`report` as a user runs it, and its page in a browser."""

import csv
import json

import pytest

from mbrl_bilevel.scripts.main import run
from tests.docs.browser import browser, find_chromium
from tests.scripts.run_folders import HOPPER, agent_run, evaluation, model_run


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def runs(tmp_path):
    """Two agents of several seeds, one of them cut short, a model, and a broken run."""
    folder = tmp_path / "runs"
    for seed in range(4):
        agent_run(folder / f"sac-{seed}", seed, {100: 1.0, 200: 10.0 + seed})
        agent_run(folder / f"mbpo-{seed}", seed, {100: 2.0, 200: 12.0 + seed}, agent="mbpo")
    agent_run(folder / "sac-cut", 9, {100: 1.0}, finished=False)
    model_run(folder / "model", 0, 0.5, summary={"learned_U": {"x": 2.0}})
    (agent_run(folder / "broken", 0, {1: 1.0}) / "config.yaml").write_text("{")
    return folder


def published(folder):
    folder.mkdir()
    rows = ["method,seed,real_steps,return", "peer,0,0,0.0", "peer,0,400,8.0"]
    (folder / "Hopper.csv").write_text("\n".join(rows))
    return folder


def test_a_folder_of_runs_becomes_a_page_with_its_tables_beside_it(runs, tmp_path, capsys):
    out = tmp_path / "out"
    behind = str(published(tmp_path / "published"))
    assert run(["report", str(runs), "--out", str(out), "--published", behind, "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out.splitlines()[-1])
    assert found["page"] == str(out / "report.html")
    assert [(g["name"], g["seeds"], g["finished"]) for g in found["groups"]] == [
        *(("mbpo", [0, 1, 2, 3], 4), ("sac", [0, 1, 2, 3, 9], 4), ("nll", [0], 1)),
    ]
    broken, cut = sorted(found["incomplete"])
    assert broken.startswith(f"{runs / 'broken'}: damaged; config.yaml is damaged")
    assert cut == f"{runs / 'sac-cut'}: interrupted; metrics up to step 100"
    assert cut in captured.err
    by_group = {row["group"]: row for row in rows_of(out / "hopper-v5-agents-returns.csv")}
    assert float(by_group["sac"]["final return"]) == 11.5  # of 11 and 12: a fourth left out each
    low, high = (float(by_group["sac"][f"final return {end}"]) for end in ("low", "high"))
    assert 10 <= low < 11.5 < high <= 13
    each = rows_of(out / "hopper-v5-agents-runs.csv")
    assert {row["folder"] for row in each} >= {str(runs / "mbpo-3"), str(runs / "sac-cut")}
    assert {*out.glob("*.csv")} == {out / name.rpartition("/")[2] for name in found["tables"]}
    page, text = ((out / f"report.{end}").read_text() for end in ("html", "md"))
    assert "peer, published (1 seed)" in page
    for name in (str(runs / "sac-3"), str(runs / "broken"), "learned U"):
        assert name in page.replace("Learned", "learned")
    assert "| sac | 4 | 11.5 [" in text
    assert page == (out / "report.html").read_text()


def test_the_page_opens_in_chromium_without_an_error(runs, tmp_path):
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    out = tmp_path / "out"
    sac, mbpo = ([str(runs / f"{a}-{i}") for i in range(4)] for a in ("sac", "mbpo"))
    assert run(["report", *sac, "--against", *mbpo, "--out", str(out)]) == 0
    with browser(program, tmp_path / "profile") as tab:
        tab.open(out / "report.html")
        assert tab.errors == []
        shown = "[...document.querySelectorAll('figure svg')].map(s => s.getClientRects()[0].width)"
        widths = tab.evaluate(shown)
        assert len(widths) == 3  # probabilities, final returns, learning curves
        assert min(widths) > 300
        assert tab.evaluate("document.querySelectorAll('svg text').length") > 20
        # No table and no figure makes the page wider than its window.
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        ids = "[...document.querySelectorAll('[id]')].map(e => e.id)"
        found = tab.evaluate(ids)
        assert len(found) == len(set(found))
        links = "[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))"
        assert {x for x in tab.evaluate(links) if x[0] != "#"} == {
            p.name for p in out.glob("*.csv")
        }
        anchors = {x[1:] for x in tab.evaluate(links) if x[0] == "#"}
        assert anchors <= set(found)


def test_the_same_runs_make_the_same_page(runs, tmp_path):
    pages = []
    for name in ("a", "b"):
        assert run(["report", str(runs), "--out", str(tmp_path / name)]) == 0
        text = (tmp_path / name / "report.html").read_text()
        pages.append(text.replace(f"--out {tmp_path / name}", ""))
    assert pages[0] == pages[1]


def test_tasks_are_sections_of_their_own(runs, tmp_path, capsys):
    agent_run(runs / "ant", 0, {1: 1.0}, environment=HOPPER | {"id": "Ant-v5"})
    out = tmp_path / "out"
    assert run(["report", str(runs), "--out", str(out)]) == 0
    text = (out / "report.md").read_text()
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["Groups", "Ant-v5: agents", "Hopper-v5: agents", "Hopper-v5: models"]


def test_returns_of_evaluated_models_are_printed_with_intervals(tmp_path, capsys):
    folder, out = tmp_path / "runs", tmp_path / "out"
    for seed in range(4):
        for name, gain in (("nll", 0.0), ("mse", 10.0 + seed)):
            model = model_run(folder / f"{name}-{seed}", seed, 0.5, objective=name)
            evaluation(model / "eval-001", model, [100.0 + gain, 102.0 + gain])
    begun = evaluation(folder / "z/eval-001", None, [1.0])
    (begun / "summary.json").unlink()
    assert run(["report", str(folder), "--out", str(out), "--margin", "0.02"]) == 0
    said = capsys.readouterr().out
    (row,) = rows_of(out / "hopper-v5-evaluations-differences.csv")
    assert float(row["difference"]) == 11.5
    assert (row["verdict"], row["seeds"], row["episodes"]) == ("better", "4", "8")
    low, high = (row[f"share of the reference {end}"] for end in ("low", "high"))
    assert 0.02 < float(low) < 11.5 / 101 < float(high)
    returns = {row["group"]: row for row in rows_of(out / "hopper-v5-evaluations-returns.csv")}
    assert float(returns["mse"]["mean return"]) == 112.5
    assert f"{begun}: without results" in said
    for line in (
        "Hopper-v5, evaluations, mse: 4 finished runs of 4",
        "better",
        "112.5 [111.5, 113.5]",
    ):
        assert line in said
    page = (out / "report.html").read_text()
    assert "--margin 0.02" in page
    assert "eval-agent, mse, seed 3, finished" in page


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--out", "OUT"], "RUN is required"),
        (["RUNS/none", "--out", "OUT"], "none: no such folder; name run folders"),
        (["RUNS/empty", "--out", "OUT"], "empty has no results yet: wait"),
        (["RUNS/begun", "--out", "OUT"], "none of 1 run has any results"),
        (["RUNS", "--out", "RUNS"], "is not empty and nothing is overwritten; choose a new"),
        (["RUNS/a", "--out", "OUT", "--against", "RUNS/ant"], "different tasks, Ant-v5, Hopper-v5"),
        (["RUNS/a", "--out", "OUT", "--against", "RUNS/a"], "RUN or --against names"),
        (["RUNS/a", "--out", "OUT", "--published", "RUNS/none"], "--published"),
        (["RUNS/a", "--out", "OUT", "--reference", "mse"], "no results of eval-agent are of it"),
        (["RUNS/a", "--out", "OUT", "--margin", "-1"], "--margin -1.0: choose at least 0"),
        (["RUNS/a", "RUNS/copy", "--out", "OUT"], "it would count twice; name one of them"),
        (["RUNS/a", "--out", "OUT", "--agianst", "RUNS/a"], "did you mean --against?"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(tmp_path, capsys, flags, sentence):
    folder, out = tmp_path / "runs", tmp_path / "out"
    agent_run(folder / "a", 0, {1: 1.0})
    agent_run(folder / "copy", 0, {1: 1.0})
    agent_run(folder / "ant", 0, {1: 1.0}, environment=HOPPER | {"id": "Ant-v5"})
    agent_run(folder / "empty", 0, {}, finished=False)
    agent_run(folder / "begun/run", 0, {}, finished=False)
    before = sorted(tmp_path.rglob("*"))
    words = [f.replace("RUNS", str(folder)).replace("OUT", str(out)) for f in flags]
    assert run(["report", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert line.startswith("mbrl-bilevel report: ")
    assert sorted(tmp_path.rglob("*")) == before

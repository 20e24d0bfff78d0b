//! Reports and figures of runs, looked at with a browser where there is one.

use crate::common::{SMALL, nct, output, shards, stderr, succeed};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const STUDY: &str = r#"
name = "small <study>"
baseline = "alone"
report = "report.html"
[corruptions]
corruptions = ["fog", "snow"]
severities = [1, 3]
[[stage]]
name = "alone"
recipe = "small.toml"
set = { data.neural = "", mix.kind = "long", loss.loss_weighing = false }
[[stage]]
name = "both"
recipe = "small.toml"
sweep = { seed = [1, 2] }
"#;

/// A study of three runs, done.
fn study() -> tempfile::TempDir {
    let dir = shards();
    fs::write(dir.path().join("small.toml"), SMALL).unwrap();
    fs::write(dir.path().join("study.toml"), STUDY).unwrap();
    succeed(nct(dir.path()).args(["run", "study.toml", "--device", "cpu", "--quiet"]));
    dir
}

/// Rows of a CSV file without its header.
fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}

/// What a page says of itself, when a browser has loaded it from a file, with a window as wide as a phone's.
const MEASURE: &str = r#"
<script>
const counts = {};
for (const section of document.querySelectorAll("section")) {
  counts[section.id] = {
    marks: section.querySelectorAll("svg .mark").length,
    rows: section.querySelectorAll("details tbody tr").length,
    images: [...section.querySelectorAll("img")].filter((i) => i.complete && i.naturalWidth > 0 && i.alt).length,
  };
}
document.documentElement.style.width = "360px";
const links = [...document.querySelectorAll("nav a")];
const measured = {
  counts,
  scheme: location.protocol,
  loaded: performance.getEntriesByType("resource").filter((r) => !r.name.startsWith("data:")).length,
  overflow: document.body.scrollWidth - 360,
  dangling: links.filter((a) => !document.querySelector(a.getAttribute("href"))).length,
  links: links.length,
  boxes: [...document.querySelectorAll(".wide")].every((box) => box.tabIndex === 0),
  named: [...document.querySelectorAll("svg")].every((svg) => svg.querySelector("title") && svg.querySelector("desc")),
};
const out = document.createElement("pre");
out.id = "measured";
out.textContent = JSON.stringify(measured);
document.body.append(out);
</script>
"#;

/// What a browser says of a page; none where there is no browser.
fn look(page: &Path) -> Option<Value> {
    let named = std::env::var("NCT_CHROMIUM").ok();
    let names = named.iter().map(String::as_str).chain(["chromium", "chromium-browser", "google-chrome"]);
    let works =
        |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success());
    let Some(browser) = names.into_iter().find(works) else {
        eprintln!("skipped: no chromium here (NCT_CHROMIUM names one)");
        return None;
    };
    let copy = page.with_file_name("measured.html");
    let html = fs::read_to_string(page).unwrap().replace("</body>", &format!("{MEASURE}</body>"));
    fs::write(&copy, html).unwrap();
    let profile = tempfile::tempdir().unwrap();
    let out = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", copy.display()))
        .output()
        .unwrap();
    assert!(!stderr(&out).contains("CONSOLE"), "{}", stderr(&out));
    let dom = String::from_utf8(out.stdout).unwrap();
    let measured = dom.split("<pre id=\"measured\">").nth(1).unwrap().split("</pre>").next().unwrap();
    Some(
        serde_json::from_str(&measured.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
            .unwrap(),
    )
}

/// In the matrix of confusions, and by their names in its numbers.
fn classes_are_called_by_their_words(dir: &Path, html: &str) {
    let words = fs::read_to_string(dir.join("raw/tiny-imagenet-200/words.txt")).unwrap();
    let confusion =
        html.split("<section id=\"confusion\"").nth(1).unwrap().split("</section>").next().unwrap();
    let (drawn, numbers) = confusion.split_once("</svg>").unwrap();
    assert_eq!(words.lines().count(), 3);
    for (name, words) in words.lines().map(|line| line.split_once('\t').unwrap()) {
        let called = words.split(',').next().unwrap();
        // At the row and at the column, of each of two groups.
        assert_eq!(drawn.matches(&format!(">{called}</text>")).count(), 4, "{called}: {drawn}");
        assert!(!drawn.contains(&format!(">{name}</text>")) && numbers.contains(name), "{name}");
    }
}

#[test]
fn a_report_shows_every_number_in_one_file_that_loads_nothing() {
    let dir = study();
    let page = dir.path().join("runs/report.html");
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("<h1>small &lt;study&gt;</h1>"), "a title is text");
    for kind in ["src=\"http", "href=\"http", "url(", "@import", "<script", "<link"] {
        assert!(!html.contains(kind), "{kind}");
    }
    for name in
        ["learning", "rates", "throughput", "corruptions", "severities", "confusion", "neurons", "images"]
    {
        assert!(html.contains(&format!("<section id=\"{name}\"")), "{name}");
    }
    assert!(html.contains("robustness (% of alone)") && html.contains("mix.kind"));
    classes_are_called_by_their_words(dir.path(), &html);
    // The figures and their numbers, as files.
    let all = [
        "plot",
        "--out",
        "figures",
        "--format",
        "svg,pdf,png",
        "--runs",
        "runs",
        "--baseline",
        "alone",
        "both",
    ];
    let refused = output(nct(dir.path()).args(all));
    assert_eq!(refused.status.code(), Some(2), "two runs end in both");
    let runs: Vec<PathBuf> = fs::read_dir(dir.path().join("runs"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("config.toml").is_file())
        .collect();
    let baseline = runs.iter().find(|run| run.to_string_lossy().contains("alone")).unwrap();
    succeed(nct(dir.path()).args(&all[..7]).arg("--baseline").arg(baseline).args(&runs));
    let figures = dir.path().join("figures");
    let marks = |name: &str| {
        let svg = fs::read_to_string(figures.join(format!("{name}.svg"))).unwrap();
        (svg.matches("class=\"mark\"").count(), rows(&figures.join(format!("{name}.csv"))).len())
    };
    let names = ["learning", "rates", "throughput", "corruptions", "severities", "confusion", "neurons"];
    for name in names {
        let (marks, rows) = marks(name);
        assert!(marks > 0 && marks == rows, "{name}: {marks} marks, {rows} rows");
        let bytes = |extension: &str| fs::read(figures.join(format!("{name}.{extension}"))).unwrap();
        assert!(bytes("pdf").starts_with(b"%PDF-1.") && bytes("png").starts_with(b"\x89PNG"), "{name}");
    }
    let Some(seen) = look(&page) else { return };
    assert_eq!(
        (&seen["scheme"], &seen["loaded"], &seen["dangling"]),
        (&"file:".into(), &0.into(), &0.into())
    );
    assert!(seen["overflow"].as_i64().unwrap() <= 0, "the page is wider than a phone: {seen}");
    assert!(seen["boxes"] == true && seen["named"] == true, "{seen}");
    assert_eq!(seen["links"].as_u64().unwrap() as usize, names.len() + 4);
    for name in names {
        let (drawn, rows) = marks(name);
        let of = &seen["counts"][name];
        assert_eq!(
            (of["marks"].as_u64(), of["rows"].as_u64()),
            (Some(drawn as u64), Some(rows as u64)),
            "{name}"
        );
    }
    assert_eq!(seen["counts"]["images"]["images"], 12, "all test images of three classes");
}

/// A study that asks for less than was evaluated takes it from there; a stage without data keeps no other from its work.
#[test]
fn what_a_study_has_is_not_evaluated_again_and_a_stage_without_data_stops_no_other() {
    let dir = study();
    let less = STUDY.replace("[1, 3]", "[3]").replace("[\"fog\", \"snow\"]", "[\"snow\"]");
    fs::write(dir.path().join("study.toml"), &less).unwrap();
    let run = || output(nct(dir.path()).args(["run", "study.toml", "--device", "cpu"]));
    let again = run();
    assert!(again.status.success() && !stderr(&again).contains("begins"), "{}", stderr(&again));
    let lost = "\n[[stage]]\nname = \"lost\"\nrecipe = \"small.toml\"\nset = { data.neural = \"nowhere\" }\n";
    fs::write(dir.path().join("study.toml"), less.replace("seed = [1, 2]", "seed = [1, 2, 3]") + lost)
        .unwrap();
    let partly = run();
    assert_eq!(partly.status.code(), Some(1), "{}", stderr(&partly));
    let told = String::from_utf8_lossy(&partly.stdout).into_owned();
    assert!(told.contains("seed=3   done") && told.contains("nowhere"), "{told}");
    assert_eq!(stderr(&partly).matches("begins").count(), 1);
}

#[test]
fn numbers_of_figures_are_those_of_the_runs() {
    let dir = study();
    let runs: Vec<PathBuf> = fs::read_dir(dir.path().join("runs"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.file_name().unwrap().to_string_lossy().contains("both"))
        .collect();
    assert_eq!(runs.len(), 2);
    succeed(nct(dir.path()).args(["plot", "--out", "figures", "--only", "learning,neurons"]).args(&runs));
    assert!(!dir.path().join("figures/rates.csv").exists());
    let value = |run: &Path, epoch: u64| -> f64 {
        let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let is = |line: &Value| line["task"] == "v1" && line["epoch"] == epoch;
        lines.into_iter().find(is).unwrap()["validation_correlation"].as_f64().unwrap()
    };
    for row in rows(&dir.path().join("figures/learning.csv")) {
        if row["task"] == "v1" && row["metric"] == "validation_correlation" {
            let epoch = row["epoch"].parse().unwrap();
            let [a, b] = [&runs[0], &runs[1]].map(|run| value(run, epoch));
            let number = |key: &str| row[key].parse::<f64>().unwrap();
            assert!((number("mean") - f64::midpoint(a, b)).abs() < 1e-12, "{row:?}");
            assert!((number("std") - (a - b).abs() / 2f64.sqrt()).abs() < 1e-12, "{row:?}");
            assert_eq!(row["runs"], "2");
        }
    }
    let neurons = rows(&dir.path().join("figures/neurons.csv"));
    let counted: u64 = neurons.iter().filter_map(|row| row["neurons"].parse::<u64>().ok()).sum();
    let sorted = neurons.iter().filter(|row| row["panel"] == "sorted").count() as u64;
    assert_eq!(counted, sorted, "every neuron is in one bin");
}

#[test]
fn runs_that_are_not_done_are_shown_as_far_as_they_are() {
    let dir = shards();
    fs::write(dir.path().join("small.toml"), format!("name = \"x\"\n{SMALL}")).unwrap();
    succeed(nct(dir.path()).args(["train", "--config", "small.toml", "--device", "cpu", "--epochs", "1"]));
    let run = crate::common::only_run(dir.path(), "runs");
    fs::remove_file(run.join("results.json")).unwrap();
    fs::remove_dir_all(run.join("tables")).unwrap();
    succeed(nct(dir.path()).args(["report", "x", "--out", "page.html"]));
    let html = fs::read_to_string(dir.path().join("page.html")).unwrap();
    assert!(html.contains("<section id=\"learning\"") && !html.contains("<section id=\"neurons\""));
    assert!(
        html.contains("No neurons:") && html.contains("is not shown under corruptions"),
        "what lacks is told"
    );
    let lost = output(nct(dir.path()).args(["report", "nowhere"]));
    assert_eq!(lost.status.code(), Some(2));
    let unknown = output(nct(dir.path()).args(["plot", "x", "--out", "f", "--only", "nonsense"]));
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("there are: learning"), "{}", stderr(&unknown));
}

/// Without the shards there are no words.
#[test]
fn figures_call_classes_as_the_page_does() {
    let dir = study();
    succeed(nct(dir.path()).args(["plot", "alone", "--out", "f", "--only", "confusion"]));
    succeed(nct(dir.path()).args(["plot", "alone", "--out", "g", "--only", "confusion", "--shards", "none"]));
    let [with, without] =
        ["f", "g"].map(|folder| fs::read_to_string(dir.path().join(folder).join("confusion.svg")).unwrap());
    let words = fs::read_to_string(dir.path().join("raw/tiny-imagenet-200/words.txt")).unwrap();
    let (name, words) = words.lines().next().unwrap().split_once('\t').unwrap();
    let called = format!(">{}</text>", words.split(',').next().unwrap());
    let name = format!(">{name}</text>");
    assert!(with.contains(&called) && !with.contains(&name), "{with}");
    assert!(without.contains(&name) && !without.contains(&called), "{without}");
    let numbers = |folder: &str| fs::read(dir.path().join(folder).join("confusion.csv")).unwrap();
    assert_eq!(numbers("f"), numbers("g"));
}

/// `runs/*` names the index too, which is no business of who asks.
#[test]
fn the_index_of_runs_is_not_named() {
    let dir = tempfile::tempdir().unwrap();
    let runs = dir.path().join("runs");
    fs::create_dir_all(runs.join("a")).unwrap();
    fs::write(runs.join("a/config.toml"), "name = \"a\"\n").unwrap();
    succeed(nct(dir.path()).args(["runs", "ls"]));
    assert!(runs.join("index.sqlite").is_file());
    fs::write(runs.join("notes.txt"), "").unwrap();
    let given = ["runs/a", "runs/index.sqlite", "runs/notes.txt"];
    succeed(nct(dir.path()).arg("report").args(given));
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("Passed over, being no runs: runs/notes.txt.") && !page.contains("index.sqlite"));
    succeed(nct(dir.path()).arg("report").args(&given[..2]));
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(!page.contains("Passed over") && !page.contains("index.sqlite"));
    let none = output(nct(dir.path()).arg("report").arg(given[1]));
    assert_eq!(none.status.code(), Some(2));
    assert!(
        stderr(&none).contains("no runs") && !stderr(&none).contains("index.sqlite"),
        "{}",
        stderr(&none)
    );
}

#[test]
fn two_hundred_classes_make_one_matrix() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs/a");
    fs::create_dir_all(root.join("tables")).unwrap();
    fs::write(root.join("config.toml"), "name = \"a\"\n").unwrap();
    let mut classes = "run,mode,class,count,correct,accuracy\n".to_owned();
    let mut confusion = "run,mode,class,predicted,count\n".to_owned();
    for class in 0..200 {
        classes += &format!("a,FinalTestInDomain,n{class:03},50,40,80\n");
        confusion += &format!("a,FinalTestInDomain,n{class:03},n{class:03},40\n");
        confusion += &format!("a,FinalTestInDomain,n{class:03},n{:03},10\n", (class * 7 + 1) % 200);
    }
    fs::write(root.join("tables/classes.csv"), classes).unwrap();
    fs::write(root.join("tables/confusion.csv"), confusion).unwrap();
    succeed(nct(dir.path()).args(["plot", "a", "--out", "f", "--format", "svg,png"]));
    let cells = rows(&dir.path().join("f/confusion.csv"));
    assert_eq!(cells.len(), 400);
    assert!(cells.iter().all(|row| ["20.0", "80.0"].contains(&row["percent"].as_str())), "{:?}", cells[0]);
    let svg = fs::read_to_string(dir.path().join("f/confusion.svg")).unwrap();
    assert_eq!(svg.matches("class=\"mark\"").count(), 400);
}

//! The recipes and their documentation.

use nct::config::Experiment;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")
}

fn keys(prefix: &str, table: &toml::Table, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        match value {
            // The ratio's keys are epochs, not settings.
            toml::Value::Table(inner) if key != "ratio" => keys(&format!("{prefix}{key}."), inner, found),
            _ => drop(found.insert(format!("{prefix}{key}"))),
        }
    }
}

#[test]
fn every_recipe_is_read_and_the_paper_s_is_the_default() {
    let mut n = 0;
    for entry in fs::read_dir(configs()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let experiment = Experiment::read(&path, &[]).unwrap();
            assert_eq!(experiment.name, path.file_stem().unwrap().to_str().unwrap());
            n += 1;
        }
    }
    assert!(n >= 3);
    let paper = Experiment::read(&configs().join("mtl_monkey.toml"), &[]).unwrap();
    let default = Experiment::default();
    assert_eq!(
        (&paper.model, &paper.loss, &paper.optimizer),
        (&default.model, &default.loss, &default.optimizer)
    );
    assert_eq!((&paper.schedule, paper.seed), (&default.schedule, default.seed));
}

#[test]
fn the_readme_of_the_recipes_lists_exactly_the_keys_there_are() {
    let readme = fs::read_to_string(configs().join("README.md")).unwrap();
    let rows = readme.lines().filter(|line| line.starts_with("| `") && line.contains("` | "));
    let first = rows.map(|line| line.split(" | ").next().unwrap());
    let documented: BTreeSet<String> = first
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|word| !word.contains(".toml"))
        .map(str::to_owned)
        .collect();
    let mut known = BTreeSet::new();
    keys("", &toml::from_str(&Experiment::default().to_toml()).unwrap(), &mut known);
    let augment =
        ["crop_padding", "flip", "rotation_degrees", "noise"].map(|k| format!("data.neural_augment.{k}"));
    for key in known.iter().filter(|key| !augment.contains(key)) {
        assert!(documented.contains(key), "{key} is not in configs/README.md");
    }
    for key in &documented {
        // A value of a type that no key has: the complaint is about the type if the key is known.
        let error = Experiment::parse("", "test", &[format!("{key}=1979-05-27")]);
        let error = error.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(!error.contains("unknown field"), "{key} is in configs/README.md and is no setting: {error}");
    }
}

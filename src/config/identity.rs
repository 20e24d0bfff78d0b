//! What a run is of: a digest of everything that decides its result.

use super::Experiment;
use crate::base::Fingerprint;
use crate::runs::flat_settings;
use std::collections::BTreeMap;

/// Settings that change no result, by the beginnings of their names; and those that name weights by a path, which
/// count by their content.
const WITHOUT_EFFECT: [&str; 6] =
    ["name", "loader.", "numerics.graphs", "checkpoint.", "init.from", "modules.rdm_prediction.run"];

impl Experiment {
    /// A digest of the settings that decide the result, of the data sets (digests by name), and of files that settings
    /// name by their paths (digests by setting): 32 digits of BLAKE3.
    pub fn identity(&self, datasets: &BTreeMap<String, String>, files: &BTreeMap<&str, String>) -> String {
        let settings: toml::Table = toml::from_str(&self.to_toml()).expect("settings can be read again");
        let counts = |key: &str| !WITHOUT_EFFECT.iter().any(|without| key.starts_with(without));
        let lines = flat_settings(&settings).into_iter().filter(|(key, _)| counts(key));
        let mut lines: Vec<String> = lines.map(|(key, value)| format!("{key} = {value}\n")).collect();
        lines.sort_unstable();
        lines.extend(datasets.iter().map(|(name, digest)| format!("dataset {name} {digest}\n")));
        lines.extend(files.iter().map(|(setting, digest)| format!("file {setting} {digest}\n")));
        let mut digest = Fingerprint::of(lines.concat().as_bytes()).to_string();
        digest.truncate(32);
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_the_result_counts_and_nothing_else() {
        let of = |text: &str, datasets: &[(&str, &str)], files: &[(&'static str, &str)]| {
            let datasets = datasets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let files = files.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
            Experiment::parse(text, "x", &[]).unwrap().identity(&datasets, &files)
        };
        let plain = of("", &[("a", "1")], &[]);
        assert_eq!(plain.len(), 32);
        for same in [
            "name = \"other\"",
            "[loader]\nthreads = 7",
            "[numerics]\ngraphs = true",
            "[checkpoint]\nevery_updates = 3",
            "[init]\nfrom = \"elsewhere\"",
            "seed = 1000",
        ] {
            assert_eq!(of(same, &[("a", "1")], &[]), plain, "{same}");
        }
        let others = [
            of("seed = 1", &[("a", "1")], &[]),
            of("[mix]\nkind = \"mtl\"\nratio = { 1 = 2 }", &[("a", "1")], &[]),
            of("", &[("a", "2")], &[]),
            of("", &[("b", "1")], &[]),
            of("", &[("a", "1")], &[("init.from", "1")]),
            of("", &[("a", "1")], &[("init.from", "2")]),
            plain,
        ];
        let distinct: std::collections::HashSet<_> = others.iter().collect();
        assert_eq!(distinct.len(), others.len());
    }
}

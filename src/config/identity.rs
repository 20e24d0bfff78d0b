//! What a run is of: a digest of everything that decides its result.

use super::{Experiment, MixKind};
use crate::base::Fingerprint;
use crate::runs::flat_settings;
use crate::train::OptimizerSettings;
use std::collections::BTreeMap;

/// Settings that change no result, or its rounding only, by the beginnings of their names; and those that name weights by
/// a path, which count by their content.
const WITHOUT_EFFECT: [&str; 8] = [
    "name",
    "loader.",
    "numerics.graphs",
    "numerics.fused",
    "checkpoint.",
    "evaluation.every.",
    "init.from",
    "modules.rdm_prediction.run",
];

impl Experiment {
    /// A digest of the settings that decide the result, of the data sets (digests by name), and of files that settings
    /// name by their paths (digests by setting): 32 digits of BLAKE3.
    pub fn identity(&self, datasets: &BTreeMap<String, String>, files: &BTreeMap<&str, String>) -> String {
        let written = self.without_defaults().to_toml();
        let settings: toml::Table = toml::from_str(&written).expect("settings can be read again");
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

    /// The same without values that would be the same if they were not given, so that writing one out is no other
    /// experiment. Not those of `mix.ratio` and `model.se`: runs are known by them as they were written.
    fn without_defaults(&self) -> Self {
        let mut plain = self.clone();
        let OptimizerSettings { lr, weight_decay, .. } = plain.optimizer;
        let optimizer = &mut plain.optimizer;
        leave_out(&mut optimizer.momentum, &0.0);
        leave_out(&mut optimizer.dampening, &0.0);
        leave_out(&mut optimizer.nesterov, &false);
        leave_out(&mut optimizer.betas, &(0.9, 0.999));
        leave_out(&mut optimizer.eps, &1e-8);
        leave_out(&mut optimizer.amsgrad, &false);
        for group in &mut optimizer.groups {
            leave_out(&mut group.lr, &lr);
            leave_out(&mut group.weight_decay, &weight_decay);
        }
        leave_out(&mut plain.data.frac, &1.0);
        leave_out(&mut plain.data.neural_frac, &1.0);
        let loss = &mut plain.loss;
        leave_out(&mut loss.neural_v4, &loss.neural);
        leave_out(&mut loss.regularize, &loss.scale_loss);
        // Round-robin mixes take another number, that of the streams, if none is given.
        if !matches!(plain.mix.kind, MixKind::Long | MixKind::Short) {
            leave_out(&mut plain.mix.batches_per_step, &1);
        }
        if let Some(rdm) = &mut plain.modules.rdm_prediction {
            leave_out(&mut rdm.target, &rdm.representation);
        }
        plain
    }
}

fn leave_out<T: PartialEq>(value: &mut Option<T>, default: &T) {
    if value.as_ref() == Some(default) {
        *value = None;
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
            "[numerics]\ngraphs = true\nfused = false",
            "[checkpoint]\nevery_updates = 3",
            "[init]\nfrom = \"elsewhere\"",
            "[evaluation.every]\nepochs = 5",
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

    #[test]
    fn a_default_that_is_written_out_is_no_other_experiment() {
        let of = |text: &str| {
            Experiment::parse(text, "x", &[]).unwrap().identity(&BTreeMap::new(), &BTreeMap::new())
        };
        let adam = "[optimizer]\nkind = \"adam\"\nlr = 0.1\n";
        let sgd = "[optimizer]\nkind = \"sgd\"\nlr = 0.1\n";
        let rdm = "[modules.rdm_prediction]\nrun = \"a\"\nrepresentation = \"l\"\n";
        for (plain, same, other) in [
            (adam, "betas = [0.9, 0.999]", "betas = [0.8, 0.999]"),
            (adam, "eps = 1e-8\namsgrad = false", "amsgrad = true"),
            (sgd, "momentum = 0.0\ndampening = 0.0\nnesterov = false", "momentum = 0.5"),
            ("[loss]\n", "regularize = false\nneural_v4 = \"MSELoss\"", "regularize = true"),
            ("[loss]\nscale_loss = true\n", "regularize = true", "regularize = false"),
            ("[mix]\nkind = \"mtl\"\n", "batches_per_step = 1", "batches_per_step = 2"),
            ("[mix]\nkind = \"long\"\n", "", "batches_per_step = 1"),
            (rdm, "target = \"l\"", "target = \"m\""),
            ("[data]\n", "frac = 1.0\nneural_frac = 1.0", "frac = 0.5"),
        ] {
            let with = |more: &str| of(&format!("{plain}{more}\n"));
            assert_eq!(of(plain), with(same), "{same}");
            assert_ne!(of(plain), with(other), "{other}");
        }
        let groups = |more: &str| of(&format!("{adam}groups = [{{ fragment = \"a\"{more} }}]\n"));
        assert_eq!(groups(""), groups(", lr = 0.1, weight_decay = 0.0"));
        assert_ne!(groups(""), groups(", lr = 0.2"));
    }
}

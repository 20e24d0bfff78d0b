//! Prefixes of names that the file has and the network has not, or the other way round.
//!
//! The reference loads a state dict after taking off, or putting on, the prefix that nearly all names share
//! (spec/trainer 6.5). By that rule alone a file that holds nothing but `features.*` would lose what it needs, so here
//! the prefix goes only if more names fit without it.

use std::collections::{BTreeMap, BTreeSet};

/// Share of the names, in percent, that have a prefix in common.
const SHARE: usize = 98;
/// Parts of a prefix at most.
const PARTS_MAX: usize = 8;

/// `names` as they fit best into `known`, one for one: as they are; without what wrappers put before them; and then with
/// the prefix that 98 % of them share taken off, or that of `known` put on, or both. `convert` is applied before counting
/// what fits.
///
/// Where nothing else fits better, the names stay as they are. No two become one.
pub(super) fn fitted(
    names: &[&str],
    known: &BTreeSet<&str>,
    convert: &dyn Fn(&[String]) -> Vec<String>,
) -> Vec<String> {
    let as_they_are: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut best = (0, as_they_are.clone());
    let mut try_out = |candidate: &[String]| {
        let new = convert(candidate);
        let fits = new.iter().filter(|name| known.contains(name.as_str())).count();
        if fits > best.0 && is_distinct(&new) {
            best = (fits, new);
        }
    };
    try_out(&as_they_are);
    let bare: Vec<&str> = names.iter().map(|name| unwrapped(name)).collect();
    let known_names: Vec<&str> = known.iter().copied().collect();
    let added = shared(&known_names);
    for taken in shared(&bare) {
        for put in &added {
            let candidate: Vec<String> = bare.iter().map(|name| exchanged(name, taken, put)).collect();
            try_out(&candidate);
        }
    }
    best.1
}

/// A name without what wrappers of data-parallel training and of intermediate outputs put before it.
fn unwrapped(mut name: &str) -> &str {
    while let Some(rest) = name.strip_prefix("module.").or_else(|| name.strip_prefix("_model.")) {
        name = rest;
    }
    name
}

/// The prefixes that [`SHARE`] of the names have in common, each a part longer than the one before; first the empty one.
fn shared<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut found = vec![""];
    for _ in 0..PARTS_MAX {
        let before = found[found.len() - 1];
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for name in names {
            let dot = name.strip_prefix(before).and_then(|rest| rest.find('.'));
            if let Some(dot) = dot {
                *counts.entry(&name[..=before.len() + dot]).or_default() += 1;
            }
        }
        let most = counts.into_iter().max_by_key(|(_, n)| *n);
        match most.filter(|(_, n)| 100 * n >= SHARE * names.len()) {
            Some((prefix, _)) => found.push(prefix),
            None => break,
        }
    }
    found
}

/// `name` with `put` in the place of `taken`, if it begins with that.
fn exchanged(name: &str, taken: &str, put: &str) -> String {
    name.strip_prefix(taken).map_or_else(|| name.to_owned(), |rest| format!("{put}{rest}"))
}

fn is_distinct(names: &[String]) -> bool {
    let mut seen = BTreeSet::new();
    names.iter().all(|name| seen.insert(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(names: &[&str], known: &[&str]) -> Vec<String> {
        fitted(names, &known.iter().copied().collect(), &|names| names.to_vec())
    }

    /// `n` names behind a prefix.
    fn behind(prefix: &str, n: usize) -> Vec<String> {
        (0..n).map(|i| format!("{prefix}{i}.weight")).collect()
    }

    fn strs(names: &[String]) -> Vec<&str> {
        names.iter().map(String::as_str).collect()
    }

    #[test]
    fn wrappers_come_off_in_any_number_and_order() {
        assert_eq!(fit(&["module.a", "_model.module.b", "c"], &["a"]), ["a", "b", "c"]);
        // One name inside another is no wrapper, and a name without the dot neither.
        let others = ["module.x", "a.module.b", "modules.c"];
        assert_eq!(fit(&others, &["x", "b", "c"]), ["x", "a.module.b", "modules.c"]);
        assert_eq!(
            fit(&["module.a", "b"], &["module.a", "x"]),
            ["module.a", "b"],
            "it is known by that name"
        );
        // Two names would become one: they stay.
        assert_eq!(fit(&["module.a", "a"], &["a"]), ["module.a", "a"]);
    }

    #[test]
    fn a_prefix_of_98_in_100_names_comes_off_and_of_97_does_not() {
        let known = behind("", 100);
        for (with, comes_off) in [(100, true), (98, true), (97, false)] {
            let mut names = behind("net.", 100);
            for (i, name) in names.iter_mut().enumerate().skip(with) {
                *name = format!("other{i}");
            }
            let fitted = fit(&strs(&names), &strs(&known));
            assert_eq!(fitted[0] == "0.weight", comes_off, "{with}");
            assert_eq!(fitted[with..], names[with..], "those without the prefix stay");
        }
    }

    #[test]
    fn a_prefix_of_98_in_100_known_names_is_put_on_and_of_97_is_not() {
        for (with, is_put) in [(100, true), (98, true), (97, false)] {
            let mut known = behind("features.", with);
            known.extend((with..100).map(|i| format!("other{i}")));
            let names = behind("", 10);
            let fitted = fit(&strs(&names), &strs(&known));
            assert_eq!(fitted[3] == "features.3.weight", is_put, "{with}");
        }
    }

    #[test]
    fn prefixes_of_several_parts_come_off_as_far_as_it_helps() {
        let known = ["features.0.weight", "features.1.weight", "head.bias"];
        let deep = ["a.model.features.0.weight", "a.model.features.1.weight"];
        // All share `a.model.features`, of which the network has the last part.
        assert_eq!(fit(&deep, &known), known[..2]);
        assert_eq!(fit(&["model.x.a", "model.x.b"], &["net.a", "net.b"]), ["net.a", "net.b"]);
        let long = format!("{}a", "p.".repeat(PARTS_MAX));
        assert_eq!(fit(&[&long], &["a"]), ["a"]);
    }

    #[test]
    fn what_fits_or_is_helped_by_nothing_stays() {
        let features = ["features.0.weight", "features.1.weight"];
        assert_eq!(fit(&features, &["features.0.weight", "classifier.0.bias"]), features);
        assert_eq!(fit(&features, &["a.b", "c.d"]), features);
        assert!(fit(&[], &["a"]).is_empty());
        assert_eq!(fit(&["", ".", "..", "module."], &[]).len(), 4);
    }
}

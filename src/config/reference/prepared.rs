//! How stimuli were prepared, in the reference's words (spec/data 1.2 to 1.4).

use crate::ingest::Bins;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Settings of `nct prepare` by data set and key, as the manifest of a run has them.
pub type Prepared = BTreeMap<String, BTreeMap<String, String>>;

/// What the reference bins and divides by unless told otherwise; published dictionaries do not say it.
const DEFAULTS: [(&str, f64); 2] = [("time_bins_sum", 12.0), ("train_frac", 0.8)];

/// What the reference calls the preparation of the set `name`. One that is not in `prepared` goes by its name:
/// recordings are cut as the reference's defaults say, the sets that models made are not.
pub(super) fn preparation(name: &str, prepared: &Prepared) -> Map<String, Value> {
    let recorded = !name.starts_with("mtl_");
    let (crop, scale) = if recorded { (36, 0.4) } else { (0, 1.0) };
    let mut words = json!({"crop": crop, "scale": scale, "subsample": 1, "seed": 1000});
    if let Some(settings) = prepared.get(name) {
        let number = |key: &str| settings.get(key).and_then(|value| value.parse::<f64>().ok());
        let whole = |key: &str| settings.get(key).and_then(|value| value.parse::<u64>().ok());
        words = json!({
            "crop": settings.get("crop").map_or_else(|| json!(0), |sides| crop_of(sides)),
            "scale": number("scale").unwrap_or(1.0),
            "subsample": whole("subsample").unwrap_or(1),
            "seed": whole("split_seed").unwrap_or(1000),
            "time_bins_sum": settings.get("time_bins_sum").map(|bins| bins_of(bins)),
            "train_frac": number("train_frac"),
        });
    }
    let Value::Object(mut words) = words else { return Map::new() };
    let default =
        |key: &str, value: &Value| DEFAULTS.iter().any(|(k, v)| key == *k && value.as_f64() == Some(*v));
    words.retain(|key, value| !value.is_null() && !default(key, value));
    words
}

/// Pixels above, below, left and right: one number, or two sides of each axis.
fn crop_of(sides: &str) -> Value {
    let sides: Vec<u64> = sides.split(',').filter_map(|side| side.trim().parse().ok()).collect();
    match sides[..] {
        [a, b, c, d] if [b, c, d] == [a; 3] => json!(a),
        [a, b, c, d] => json!([[a, b], [c, d]]),
        _ => json!(0),
    }
}

/// How many from the first on, or which.
fn bins_of(bins: &str) -> Value {
    match bins.parse() {
        Ok(Bins::First(n)) => json!(n),
        Ok(Bins::Range(start, end)) => json!((start..end).collect::<Vec<_>>()),
        Ok(Bins::Listed(bins)) => json!(bins),
        Err(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(settings: &[(&str, &str)]) -> Value {
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        preparation("CSRF19_V1", &Prepared::from([("CSRF19_V1".to_owned(), settings)])).into()
    }

    #[test]
    fn a_set_is_described_as_it_was_prepared() {
        let cut = json!({"crop": 36, "scale": 0.4, "subsample": 1, "seed": 1000});
        assert_eq!(Value::from(preparation("CSRF19_V1", &Prepared::new())), cut);
        let whole = json!({"crop": 0, "scale": 1.0, "subsample": 1, "seed": 1000});
        assert_eq!(Value::from(preparation("mtl_monkey_dataset", &Prepared::new())), whole);
        let defaults = [("time_bins_sum", "12"), ("train_frac", "0.8"), ("split_seed", "1000")];
        assert_eq!(of(&defaults), whole);
        let recipe = [("crop", "36,36,36,36"), ("subsample", "1"), ("scale", "0.4"), ("split_seed", "1000")];
        assert_eq!(of(&recipe), cut);
        let other = [
            ("crop", "1,2,3,4"),
            ("subsample", "2"),
            ("scale", "0.5"),
            ("split_seed", "7"),
            ("time_bins_sum", "4..7"),
            ("train_frac", "0.9"),
        ];
        let told = json!({
            "crop": [[1, 2], [3, 4]], "scale": 0.5, "subsample": 2, "seed": 7, "time_bins_sum": [4, 5, 6],
            "train_frac": 0.9,
        });
        assert_eq!(of(&other), told);
        assert_eq!(of(&[("time_bins_sum", "5")])["time_bins_sum"], 5);
        assert_eq!(of(&[("time_bins_sum", "0,7")])["time_bins_sum"], json!([0, 7]));
    }
}

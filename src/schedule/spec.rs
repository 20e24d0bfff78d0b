//! What a schedule is made from: streams, and how their batches are mixed.

use crate::base::Task;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// One source of records: an image set, or one recording session.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamSpec {
    /// What its batches teach.
    pub task: Task,
    /// Number of records.
    pub records: u64,
    /// Records per batch; the last batch of a pass may be smaller.
    pub batch_size: u32,
    /// Share of batches in a weighted mix.
    pub weight: f64,
    /// What becomes of the last batch of a pass when it is not full.
    pub last_batch: LastBatch,
    /// Shuffles by windows of blocks instead of over all records.
    pub window: Option<Window>,
}

impl StreamSpec {
    /// A stream of `records` records that keeps its last batch, with weight 1 and a full shuffle.
    pub fn new(task: Task, records: u64, batch_size: u32) -> Self {
        Self { task, records, batch_size, weight: 1.0, last_batch: LastBatch::Keep, window: None }
    }
}

/// What becomes of the last batch of a pass when records are left over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LastBatch {
    /// It is smaller.
    #[default]
    Keep,
    /// It is left out of this pass; another order leaves out others.
    Drop,
    /// It is filled up with the first records of the same pass.
    Fill,
}

/// The blocks among which records are shuffled; see [`super::Windowed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Records in a block, as they are stored.
    pub block: u32,
    /// Blocks in a window.
    pub blocks: u32,
}

/// How the batches of several streams become optimiser updates.
#[derive(Debug, Clone, PartialEq)]
pub enum Mix {
    /// Neural batches of each neural set, then one image batch; an epoch is one pass over the images
    /// (the reference's `MTL_Cycler`). The sessions of a set take turns.
    Mtl {
        /// Neural batches of each set per image batch, from an epoch on.
        ratio: RatioByEpoch,
        /// Image batches per update.
        images_per_step: u32,
    },
    /// Round-robin; an epoch ends when the longest stream has passed once (`LongCycler`).
    Long {
        /// Batches per update; 0 is one round over the streams.
        batches_per_step: u32,
    },
    /// Round-robin; an epoch ends when the shortest stream has passed once (`ShortCycler`).
    Short {
        /// Batches per update; 0 is one round over the streams.
        batches_per_step: u32,
    },
    /// Batches in proportion to the streams' weights, as evenly spread as can be. Unlike the others
    /// it does not start afresh at every epoch, so that shares are exact over the whole run.
    Weighted {
        /// Batches per update.
        batches_per_step: u32,
        /// Updates per epoch; 0 is as many as one pass over all streams has batches for.
        steps_per_epoch: u64,
    },
    /// Every stream once, one after another, in file order: evaluation.
    InOrder,
}

/// Number of neural batches per image batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ratio {
    /// So many before every image batch; may be 0.
    PerStep(u32),
    /// One before every n-th image batch; n is at least 2.
    EveryNth(u32),
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerStep(n) => write!(f, "{n}"),
            Self::EveryNth(n) => write!(f, "1/{n}"),
        }
    }
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text.trim().split_once('/') {
            None => text.trim().parse().ok().map(Self::PerStep),
            Some((one, n)) if one.trim() == "1" => n.trim().parse().ok().and_then(|n| match n {
                0 => None,
                1 => Some(Self::PerStep(1)),
                n => Some(Self::EveryNth(n)),
            }),
            Some(_) => None,
        };
        parsed.ok_or_else(|| {
            format!("ratio {text:?}: expected a whole number such as 2, or 1/n such as \"1/3\"")
        })
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::PerStep(n) => s.serialize_u32(*n),
            Self::EveryNth(_) => s.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Ratio;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number such as 2, or a fraction such as \"1/3\" or 0.5")
            }
            fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Ratio, E> {
                u32::try_from(n).map(Ratio::PerStep).map_err(|_| E::custom(format!("ratio {n} is too large")))
            }
            fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Ratio, E> {
                u64::try_from(n)
                    .map_err(|_| E::custom(format!("ratio {n} is negative")))
                    .and_then(|n| self.visit_u64(n))
            }
            fn visit_f64<E: serde::de::Error>(self, x: f64) -> Result<Ratio, E> {
                // 1/49 is not exact in floating point, so "every n-th" is decided once, here.
                let n = (1.0 / x).round();
                let near = |a: f64, b: f64| (a - b).abs() < 1e-6 * b.abs().max(1.0);
                if (0.0..=1e6).contains(&x) && near(x, x.round()) {
                    Ok(Ratio::PerStep(x.round() as u32))
                } else if x > 1e-6 && n >= 2.0 && near(1.0 / x, n) {
                    Ok(Ratio::EveryNth(n as u32))
                } else {
                    Err(E::custom(format!("ratio {x} is neither a whole number nor 1/n")))
                }
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Ratio, E> {
                text.parse().map_err(E::custom)
            }
        }
        d.deserialize_any(Visitor)
    }
}

/// The ratio from each epoch on; epochs count from 1, and 1 is always there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RatioByEpoch(BTreeMap<u32, Ratio>);

impl RatioByEpoch {
    /// From pairs of (first epoch, ratio); one of them must be for epoch 1.
    pub fn new(from: impl IntoIterator<Item = (u32, Ratio)>) -> Result<Self, String> {
        let map: BTreeMap<u32, Ratio> = from.into_iter().collect();
        if map.keys().next() == Some(&1) {
            Ok(Self(map))
        } else {
            Err("the ratio must be given from epoch 1 on, such as { 1 = 1 }".to_owned())
        }
    }

    /// The ratio of `epoch`.
    pub fn at(&self, epoch: u32) -> Ratio {
        let latest = self.0.range(..=epoch.max(1)).next_back();
        *latest.expect("new checked that epoch 1 is there").1
    }
}

impl Serialize for RatioByEpoch {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.iter().map(|(epoch, ratio)| (epoch.to_string(), ratio)))
    }
}

impl<'de> Deserialize<'de> for RatioByEpoch {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let by_name = BTreeMap::<String, Ratio>::deserialize(d)?;
        let pairs: Result<Vec<(u32, Ratio)>, D::Error> = by_name
            .into_iter()
            .map(|(epoch, ratio)| {
                let number =
                    epoch.parse().map_err(|_| D::Error::custom(format!("{epoch:?} is no epoch number")));
                number.map(|n| (n, ratio))
            })
            .collect();
        Self::new(pairs?).map_err(D::Error::custom)
    }
}

impl JsonSchema for RatioByEpoch {
    fn schema_name() -> Cow<'static, str> {
        "RatioByEpoch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "Neural batches per image batch, from an epoch on: a whole number, or 1/n for one at every n-th image batch.",
            "required": ["1"],
            "patternProperties": {
                "^[1-9][0-9]*$": {
                    "anyOf": [
                        {"type": "number", "minimum": 0},
                        {"type": "string", "pattern": "^ *(1 */ *)?[0-9]+ *$"},
                    ],
                },
            },
            "additionalProperties": false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_whole_numbers_or_one_over_n() {
        let parse =
            |text: &str| toml::from_str::<BTreeMap<String, Ratio>>(&format!("r = {text}")).map(|m| m["r"]);
        assert_eq!(parse("2"), Ok(Ratio::PerStep(2)));
        assert_eq!(parse("0"), Ok(Ratio::PerStep(0)));
        assert_eq!(parse("\"1/49\""), Ok(Ratio::EveryNth(49)));
        for n in 2..60u32 {
            assert_eq!(parse(&format!("{}", 1.0 / f64::from(n))), Ok(Ratio::EveryNth(n)));
        }
        for bad in ["0.3", "-1", "\"2/3\"", "\"1/0\"", "1.5", "true"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_latest_entry_not_after_the_epoch_counts() {
        let ratio = RatioByEpoch::new([(1, Ratio::PerStep(1)), (3, Ratio::EveryNth(2))]).unwrap();
        assert_eq!([1, 2, 3, 9].map(|e| ratio.at(e).to_string()), ["1", "1", "1/2", "1/2"]);
        assert!(RatioByEpoch::new([(2, Ratio::PerStep(1))]).is_err());
    }
}

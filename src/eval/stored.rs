//! Copies of images that were corrupted before, and what their manifests say of how.
//!
//! Copies that `nct corrupt` wrote are the images that an evaluation makes on the fly, and go by the same names. Copies
//! of two origins are never taken for one set (spec/reconstruction D-20).

use crate::corruption::frost::Source;
use crate::corruption::{Corruption, Profile};
use crate::shard::Manifest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt;
use std::str::FromStr;

/// A folder of copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// The folder's name.
    pub name: String,
    /// How `nct corrupt` made them; none of copies from elsewhere, such as the published ones.
    pub made: Option<Made>,
}

/// How copies were made. What only some corruptions have is none where those are not there, and then fits anything.
///
/// Files hold it as manifests do, as `key = value` lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Made {
    /// Set of parameters.
    pub profile: Profile,
    /// Seed of what was drawn.
    pub seed: u64,
    /// Digest of the data set that the images are of.
    pub source: String,
    /// Whether images passed a JPEG, if that was asked for otherwise than the profile has it.
    pub jpeg85: Option<bool>,
    /// What frost is made of.
    pub frost: Option<Source>,
    /// Whether glass blur swaps pixels.
    pub glass_swap: Option<bool>,
}

impl Copies {
    /// Those of a folder's data sets, which must be of one origin.
    pub fn of<'a>(name: String, sets: impl IntoIterator<Item = &'a Manifest>) -> Result<Self, String> {
        let mut found: Option<(&str, Self)> = None;
        for Manifest { dataset, settings, .. } in sets {
            let made = Made::of(settings).map_err(|e| format!("{dataset}: {e}"))?;
            let next = Self { name: name.clone(), made };
            found = Some(match found {
                None => (dataset, next),
                Some((first, all)) => {
                    let what = || {
                        format!(
                            "{first} is {all}, and {dataset} is {next}; copies of two origins do not mix: give them folders of their own"
                        )
                    };
                    (first, all.joined(&next).ok_or_else(what)?)
                }
            });
        }
        Ok(found.map_or(Self { name, made: None }, |(_, all)| all))
    }

    /// These and `other`, if they are of one origin.
    pub fn joined(&self, other: &Self) -> Option<Self> {
        let made = match (&self.made, &other.made) {
            (Some(own), Some(other)) => Some(own.joined(other)?),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return None,
        };
        Some(Self { made, ..self.clone() })
    }

    /// What their frost is made of; of copies from elsewhere we do not know.
    pub fn frost_source(&self) -> &'static str {
        self.made.as_ref().and_then(|made| made.frost).map_or("stored", Source::as_str)
    }

    /// Adds to a row of scores which copies they are of. `glass`: whether glass blur is among what is scored.
    pub fn tell(&self, row: &mut Value, glass: bool) {
        row["stored"] = json!(self.name);
        let Some(made) = &self.made else { return };
        (row["profile"], row["seed"]) = (json!(made.profile.as_str()), json!(made.seed));
        let departures = made.departures(glass).join(", ");
        if !departures.is_empty() {
            row["departures"] = json!(departures);
        }
    }
}

impl Made {
    /// What the settings of a manifest say; none if nct did not make the copies.
    pub fn of(settings: &[String]) -> Result<Option<Self>, String> {
        let text = |key: &str| {
            let mut pairs = settings.iter().filter_map(|line| line.split_once(" = "));
            pairs.find(|(own, _)| *own == key).map(|(_, value)| value)
        };
        let (Some(profile), Some(seed)) = (text("profile"), text("seed")) else { return Ok(None) };
        let switch = |key: &str| text(key).map(|value| parsed::<bool>(key, value)).transpose();
        let frost = |name: &str| {
            let known = [Source::Synthetic, Source::Pictures].into_iter().find(|of| of.as_str() == name);
            known.ok_or_else(|| format!("frost_source = {name} is of another version of nct"))
        };
        // Manifests only say where it swaps.
        let glass = text("corruption") == Some(Corruption::GlassBlur.as_str());
        Ok(Some(Self {
            profile: profile.parse()?,
            seed: parsed("seed", seed)?,
            source: text("source").unwrap_or_default().to_owned(),
            jpeg85: switch("jpeg85")?,
            frost: text("frost_source").map(frost).transpose()?,
            glass_swap: switch("glass_swap")?.or(glass.then_some(false)),
        }))
    }

    fn joined(&self, other: &Self) -> Option<Self> {
        let key = |made: &Self| (made.profile, made.seed, made.jpeg85);
        let fit = key(self) == key(other)
            && self.source == other.source
            && fit(self.frost, other.frost)
            && fit(self.glass_swap, other.glass_swap);
        fit.then(|| Self {
            frost: self.frost.or(other.frost),
            glass_swap: self.glass_swap.or(other.glass_swap),
            ..self.clone()
        })
    }

    /// What is not as on the fly.
    fn departures(&self, glass: bool) -> Vec<String> {
        let swap = self.glass_swap.filter(|&swap| swap && glass);
        let jpeg = self.jpeg85.map(|on| format!("jpeg85 = {on}"));
        jpeg.into_iter().chain(swap.map(|on| format!("glass_swap = {on}"))).collect()
    }
}

impl TryFrom<Vec<String>> for Made {
    type Error = String;

    fn try_from(settings: Vec<String>) -> Result<Self, String> {
        Self::of(&settings)?.ok_or_else(|| "copies without profile and seed".to_owned())
    }
}

impl From<Made> for Vec<String> {
    fn from(made: Made) -> Self {
        let Made { profile, seed, source, jpeg85, frost, glass_swap } = made;
        let mut lines =
            vec![format!("profile = {profile}"), format!("seed = {seed}"), format!("source = {source}")];
        lines.extend(jpeg85.map(|on| format!("jpeg85 = {on}")));
        lines.extend(frost.map(|of| format!("frost_source = {}", of.as_str())));
        lines.extend(glass_swap.map(|on| format!("glass_swap = {on}")));
        lines
    }
}

/// The origin, as messages tell it.
impl fmt::Display for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(made) = &self.made else { return f.write_str("of unknown origin") };
        // Eight digits tell sets apart.
        write!(f, "of profile {}, seed {}, set {:.8}", made.profile, made.seed, made.source)?;
        if let Some(frost) = made.frost {
            write!(f, ", frost {}", frost.as_str())?;
        }
        made.departures(true).iter().try_for_each(|departure| write!(f, ", {departure}"))
    }
}

fn parsed<T: FromStr>(key: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{key} = {value} is of another version of nct"))
}

fn fit<T: PartialEq + Copy>(a: Option<T>, b: Option<T>) -> bool {
    a.is_none() || b.is_none() || a == b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies(settings: &[&str]) -> Copies {
        Copies { name: "C".to_owned(), made: Made::of(&lines(settings)).unwrap() }
    }

    fn lines(settings: &[&str]) -> Vec<String> {
        settings.iter().map(|&line| line.to_owned()).collect()
    }

    const FOG: [&str; 4] = ["corruption = fog", "profile = t", "seed = 3", "source = ab"];

    fn fog_with(line: &str) -> Copies {
        copies(&[&FOG[..], &[line]].concat())
    }

    #[test]
    fn only_what_nct_corrupted_says_how() {
        // A prepared set has a seed too.
        assert_eq!(copies(&["color = gray", "seed = 42"]).made, None);
        let made = copies(&FOG).made.unwrap();
        assert_eq!((made.profile, made.seed, made.source.as_str()), (Profile::Tiny, 3, "ab"));
        assert_eq!((made.frost, made.glass_swap, made.jpeg85), (None, None, None));
        assert!(Made::of(&lines(&["seed = 3", "profile = x"])).is_err());
        let frost = lines(&[&FOG[..], &["frost_source = ice"]].concat());
        assert!(Made::of(&frost).unwrap_err().contains("frost_source = ice"));
    }

    #[test]
    fn copies_of_two_origins_are_not_one_set() {
        let fog = copies(&FOG);
        for (at, line) in [(1, "profile = i"), (2, "seed = 4"), (3, "source = cd")] {
            let mut other = FOG;
            other[at] = line;
            assert_eq!(fog.joined(&copies(&other)), None, "{line}");
        }
        assert_eq!(fog.joined(&fog_with("jpeg85 = false")), None);
        assert_eq!(fog.joined(&copies(&[])), None);
        assert_eq!(copies(&[]).joined(&copies(&[])), Some(copies(&[])));
        let [textures, pictures] = ["frost_source = synthetic", "frost_source = pictures"].map(fog_with);
        // What has no frost goes with either, and the two not with each other.
        assert_eq!(fog.joined(&textures).as_ref(), Some(&textures));
        assert_eq!(fog.joined(&textures).unwrap().joined(&pictures), None);
        assert_eq!(fog.joined(&pictures).unwrap().frost_source(), "pictures");
        let mut glass = FOG;
        glass[0] = "corruption = glass_blur";
        assert_eq!(fog.joined(&copies(&glass)).unwrap().joined(&fog_with("glass_swap = true")), None);
    }

    #[test]
    fn lines_come_back_and_rows_say_what_departs() {
        let lines = ["jpeg85 = false", "frost_source = synthetic", "glass_swap = true"];
        let copies = copies(&[&FOG[1..], &lines].concat());
        let made = copies.made.clone().unwrap();
        assert_eq!(Made::try_from(Vec::from(made.clone())), Ok(made));
        let told = |glass| {
            let mut row = json!({});
            copies.tell(&mut row, glass);
            row
        };
        let row = json!({"stored": "C", "profile": "t", "seed": 3, "departures": "jpeg85 = false"});
        assert_eq!(told(false), row);
        assert_eq!(told(true)["departures"], "jpeg85 = false, glass_swap = true");
        let expected = "of profile t, seed 3, set ab, frost synthetic, jpeg85 = false, glass_swap = true";
        assert_eq!(copies.to_string(), expected);
    }
}

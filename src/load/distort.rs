//! Corruption of images on their way into a batch: at random in training, always the same in evaluation.

use super::error::LoadError;
use crate::base::{Purpose, Rng, RngKey};
use crate::corruption::words::{all_severities, imagenet, name, names};
use crate::corruption::{Corruption, Extent, ImageKey, Jpeg, Profile, Scratch, Severity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which images are corrupted, and how: each with probability `share`, by one of `kinds` at one of
/// `severities`, all equally likely (spec/data section 3, spec/reconstruction 3.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DistortSettings {
    /// Probability that an image is corrupted.
    #[serde(default = "half")]
    pub share: f64,
    /// Names of corruptions.
    #[serde(with = "names")]
    #[schemars(with = "Vec<String>")]
    pub kinds: Vec<Corruption>,
    /// Of 1 to 5; all if not given.
    #[serde(with = "names", default = "all_severities")]
    #[schemars(with = "Vec<u8>")]
    pub severities: Vec<Severity>,
    /// Parameters: `i`, those of ImageNet-C, or `t`, those of Tiny-ImageNet-C.
    #[serde(with = "name", default = "imagenet")]
    #[schemars(with = "String")]
    pub profile: Profile,
    /// Of an evaluation: the draws of an image depend on this and its number only.
    #[serde(skip)]
    pub fixed_seed: Option<u64>,
}

fn half() -> f64 {
    0.5
}

impl DistortSettings {
    /// Every image in one way, always the same.
    pub fn fixed(corruption: Corruption, profile: Profile, severity: Severity, seed: u64) -> Self {
        let (kinds, severities) = (vec![corruption], vec![severity]);
        Self { share: 1.0, kinds, severities, profile, fixed_seed: Some(seed) }
    }

    /// Image number `image` of bytes, planes of `height` and `width`, as an evaluation by [`Self::fixed`] settings shows
    /// it before gray: three planes.
    ///
    /// # Errors
    /// Of the JPEG that images of Tiny-ImageNet-C have been.
    pub fn evaluated(
        &self,
        pixels: &[u8],
        [height, width]: [usize; 2],
        image: u64,
    ) -> Result<Vec<u8>, LoadError> {
        let mut memory = DistortMemory { pixels: pixels.to_vec(), ..DistortMemory::default() };
        // What is fixed does not depend on it.
        let mut rng = RngKey::new(0, Purpose::Augment, 0).stream(0, image);
        if let Some(how) = self.draw(&mut rng, image) {
            memory.apply(how, height, width)?;
        }
        Ok(memory.pixels)
    }

    /// Whether the settings make sense.
    pub fn check(&self) -> Result<(), String> {
        if self.kinds.is_empty() || self.severities.is_empty() {
            return Err("distort needs at least one of `kinds` and of `severities`".into());
        }
        if !(0.0..=1.0).contains(&self.share) {
            return Err(format!("distort.share = {} is no probability", self.share));
        }
        Ok(())
    }

    /// Draws what becomes of image number `image`.
    pub(super) fn draw(&self, rng: &mut Rng, image: u64) -> Option<Distortion> {
        let pick = |rng: &mut Rng, n: usize| if n > 1 { rng.below(n as u32) as usize } else { 0 };
        let hit = rng.unit() < self.share;
        let corruption = self.kinds[pick(rng, self.kinds.len())];
        let severity = self.severities[pick(rng, self.severities.len())];
        let key = match self.fixed_seed {
            Some(seed) => ImageKey { seed, image },
            None => ImageKey { seed: rng.next_u64(), image: 0 },
        };
        // The published set is one of JPEGs, and so has passed their compression too.
        let jpeg = self.fixed_seed.is_some() && self.profile.has_jpeg();
        hit.then_some(Distortion { corruption, severity, profile: self.profile, key, jpeg })
    }
}

/// What becomes of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Distortion {
    corruption: Corruption,
    severity: Severity,
    profile: Profile,
    key: ImageKey,
    jpeg: bool,
}

/// Memory of one worker.
#[derive(Debug, Default)]
pub(super) struct DistortMemory {
    pub(super) pixels: Vec<u8>,
    scratch: Scratch,
    jpeg: Jpeg,
}

impl DistortMemory {
    /// Corrupts the planes in `pixels`, each `[height, width]`. One plane becomes three equal ones first: as in the
    /// reference, which corrupts colour and turns gray afterwards, noise is weaker in gray than in a channel.
    pub(super) fn apply(&mut self, how: Distortion, height: usize, width: usize) -> Result<(), LoadError> {
        if self.pixels.len() == height * width {
            self.pixels.extend_from_within(..);
            self.pixels.extend_from_within(..height * width);
        }
        let extent = Extent { channels: 3, height, width };
        let Distortion { corruption, severity, profile, key, jpeg } = how;
        corruption.apply(profile, severity, key, &mut self.pixels, extent, &mut self.scratch);
        if jpeg {
            let trip = self.jpeg.round_trip(&mut self.pixels, extent, Profile::QUALITY);
            trip.map_err(|e| LoadError::Data(format!("JPEG of a corrupted image: {e}")))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<DistortSettings, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn settings_are_names_and_come_back() {
        let short = settings("kinds = [\"fog\", \"snow\"]").unwrap();
        assert_eq!((short.share, short.severities.len(), short.profile), (0.5, 5, Profile::ImageNet));
        let long = settings("kinds = [\"fog\"]\nshare = 1.0\nseverities = [2, 5]\nprofile = \"t\"").unwrap();
        assert_eq!(long.severities, [2, 5].map(|s| Severity::new(s).unwrap()));
        for read in [short, long] {
            assert_eq!(settings(&toml::to_string(&read).unwrap()).unwrap(), read);
        }
        for (text, word) in [
            ("kinds = [\"fogg\"]", "no corruption \"fogg\""),
            ("kinds = [\"fog\"]\nseverities = [6]", "no severity \"6\""),
            ("kinds = [\"fog\"]\nprofile = \"x\"", "no profile \"x\""),
        ] {
            let message = settings(text).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
        assert!(settings("kinds = []").unwrap().check().is_err());
        assert!(settings("kinds = [\"fog\"]\nshare = 1.5").unwrap().check().is_err());
    }

    #[test]
    fn kinds_and_severities_are_drawn_evenly_and_fixed_ones_are_not_drawn() {
        let mixed = settings("kinds = [\"fog\", \"snow\", \"frost\"]").unwrap();
        let key = RngKey::new(3, Purpose::Augment, 0);
        let draws: Vec<_> = (0..30_000).map(|i| mixed.draw(&mut key.stream(0, i), i)).collect();
        let hits: Vec<_> = draws.iter().flatten().collect();
        assert!((hits.len() as f64 / 15_000.0 - 1.0).abs() < 0.03, "{}", hits.len());
        for corruption in &mixed.kinds {
            for severity in Severity::ALL {
                let n = hits.iter().filter(|d| (d.corruption, d.severity) == (*corruption, severity)).count();
                assert!((n as f64 / 1000.0 - 1.0).abs() < 0.15, "{corruption} {severity}: {n}");
            }
        }
        assert!(hits.windows(2).all(|d| d[0].key != d[1].key), "images share their draws");
        let fixed = DistortSettings::fixed(Corruption::Fog, Profile::Tiny, Severity::ALL[0], 9);
        let drawn = [0, 1].map(|i| fixed.draw(&mut key.stream(i, 5), 5).unwrap());
        assert_eq!(drawn[0], drawn[1]);
        assert_eq!((drawn[0].key, drawn[0].jpeg), (ImageKey { seed: 9, image: 5 }, true));
    }

    #[test]
    fn noise_on_one_plane_is_as_weak_as_gray_makes_it() {
        let mut memory = DistortMemory { pixels: vec![128; 64 * 64], ..DistortMemory::default() };
        let noise = DistortSettings::fixed(Corruption::GaussianNoise, Profile::ImageNet, Severity::ALL[0], 1);
        let how = noise.draw(&mut RngKey::new(1, Purpose::Augment, 0).stream(0, 0), 0).unwrap();
        memory.apply(how, 64, 64).unwrap();
        let planes: Vec<&[u8]> = memory.pixels.chunks_exact(64 * 64).collect();
        assert!(planes.len() == 3 && planes[0] != planes[1] && planes[1] != planes[2]);
    }
}

//! The common corruptions of Hendrycks & Dietterich ("Benchmarking neural network robustness to common
//! corruptions and perturbations", ICLR 2019) as pure functions of (image, corruption, profile, severity,
//! seed, number of the image), one file each.
//!
//! Two sets of parameters: those of Tiny-ImageNet-C, which was made for 64 pixels, and those of ImageNet-C,
//! which the reference applies to 64 pixels on the fly with the Python package `imagecorruptions`.
//! Definitions are those of spec/reconstruction 3.4 and 3.5: arithmetic in f32 on the scale of 0 to 255, or in
//! whole numbers where that says the same, then truncation to bytes. Frost is of the published photographs only where
//! they were handed in ([`frost::show`], once a process), and else of textures.
//!
//! Absent: torch, files, threads, scores. Every draw is keyed, so that neither the number of threads nor the
//! order of the images changes a byte.

mod brightness;
mod canny;
mod contrast;
mod defocus_blur;
mod draws;
mod elastic;
mod filter;
mod fog;
pub mod frost;
mod gaussian_blur;
mod glass_blur;
mod jpeg;
mod law;
mod motion_blur;
mod noise;
mod pixelate;
mod saturate;
mod scratch;
mod shot_noise;
mod snow;
mod spatter;
#[cfg(test)]
mod tests;
mod turn;
pub(crate) mod words;
mod zoom;
mod zoom_blur;

pub use jpeg::{Jpeg, JpegError};
pub use scratch::{Extent, Scratch};

use crate::base::{Purpose, RngKey};
use draws::Draws;
use std::fmt;
use std::str::FromStr;

/// A way in which images get worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Corruption {
    /// Normal noise.
    GaussianNoise,
    /// Poisson noise of few photons.
    ShotNoise,
    /// Salt and pepper.
    ImpulseNoise,
    /// Out of focus: a disk.
    DefocusBlur,
    /// Behind frosted glass: pixels change places.
    GlassBlur,
    /// The camera moved.
    MotionBlur,
    /// The camera moved towards the scene.
    ZoomBlur,
    /// Falling snow.
    Snow,
    /// Ice on the lens.
    Frost,
    /// Clouds of fog.
    Fog,
    /// Too bright.
    Brightness,
    /// Too little contrast.
    Contrast,
    /// Stretched and squeezed.
    ElasticTransform,
    /// Coarse pixels.
    Pixelate,
    /// Strong compression.
    JpegCompression,
    /// Normal noise in proportion to the value.
    SpeckleNoise,
    /// Smoothed.
    GaussianBlur,
    /// Drops of water or mud.
    Spatter,
    /// Too little or too much colour.
    Saturate,
}

/// The four groups of the paper, and the hold-out ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Gaussian, shot, impulse noise.
    Noise,
    /// Defocus, glass, motion, zoom blur.
    Blur,
    /// Snow, frost, fog, brightness.
    Weather,
    /// Contrast, elastic transform, pixelate, JPEG.
    Digital,
    /// Speckle noise, Gaussian blur, spatter, saturate: not in any average of the paper.
    Extra,
}

/// A set of parameters (spec/reconstruction 3.2). Results of the two do not compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// `t`: Tiny-ImageNet-C, made for 64 x 64 pixels. Its published files are JPEGs of quality
    /// [`Profile::QUALITY`].
    Tiny,
    /// `i`: ImageNet-C, as `imagecorruptions` applies it to images of any size.
    ImageNet,
}

/// A profile, and what else there is to choose. Made from a profile alone, it is as the published sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Parameters.
    pub profile: Profile,
    /// Glass blur swaps pixels, as was meant. The published sets copy one over the other (spec/reconstruction 3.5).
    pub glass_swap: bool,
}

/// Strength, 1 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Severity(u8);

/// What the randomness of one corrupted image depends on, beside corruption, profile and severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageKey {
    /// Of the whole set.
    pub seed: u64,
    /// Number of the image in its data set.
    pub image: u64,
}

impl Corruption {
    /// All: those of the paper, then the extra ones.
    pub const ALL: [Self; 19] = [
        Self::GaussianNoise,
        Self::ShotNoise,
        Self::ImpulseNoise,
        Self::DefocusBlur,
        Self::GlassBlur,
        Self::MotionBlur,
        Self::ZoomBlur,
        Self::Snow,
        Self::Frost,
        Self::Fog,
        Self::Brightness,
        Self::Contrast,
        Self::ElasticTransform,
        Self::Pixelate,
        Self::JpegCompression,
        Self::SpeckleNoise,
        Self::GaussianBlur,
        Self::Spatter,
        Self::Saturate,
    ];

    /// The fifteen that averages are taken over.
    pub const PAPER: [Self; 15] = {
        let (mut paper, mut i) = ([Self::GaussianNoise; 15], 0);
        while i < 15 {
            paper[i] = Self::ALL[i];
            i += 1;
        }
        paper
    };

    /// The name in tables, files and folders.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GaussianNoise => "gaussian_noise",
            Self::ShotNoise => "shot_noise",
            Self::ImpulseNoise => "impulse_noise",
            Self::DefocusBlur => "defocus_blur",
            Self::GlassBlur => "glass_blur",
            Self::MotionBlur => "motion_blur",
            Self::ZoomBlur => "zoom_blur",
            Self::Snow => "snow",
            Self::Frost => "frost",
            Self::Fog => "fog",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::ElasticTransform => "elastic_transform",
            Self::Pixelate => "pixelate",
            Self::JpegCompression => "jpeg_compression",
            Self::SpeckleNoise => "speckle_noise",
            Self::GaussianBlur => "gaussian_blur",
            Self::Spatter => "spatter",
            Self::Saturate => "saturate",
        }
    }

    /// Which group it is averaged in.
    pub const fn group(self) -> Group {
        match self {
            Self::GaussianNoise | Self::ShotNoise | Self::ImpulseNoise => Group::Noise,
            Self::DefocusBlur | Self::GlassBlur | Self::MotionBlur | Self::ZoomBlur => Group::Blur,
            Self::Snow | Self::Frost | Self::Fog | Self::Brightness => Group::Weather,
            Self::Contrast | Self::ElasticTransform | Self::Pixelate | Self::JpegCompression => {
                Group::Digital
            }
            Self::SpeckleNoise | Self::GaussianBlur | Self::Spatter | Self::Saturate => Group::Extra,
        }
    }

    /// Whether it draws nothing: the same for every key.
    pub const fn is_deterministic(self) -> bool {
        matches!(
            self,
            Self::DefocusBlur
                | Self::ZoomBlur
                | Self::Brightness
                | Self::Contrast
                | Self::Pixelate
                | Self::JpegCompression
                | Self::GaussianBlur
                | Self::Saturate
        )
    }

    /// Corrupts one image in place. `image` is `[channels, height, width]` as shards store it, of one or three
    /// channels. One channel is corrupted as three equal ones are and stays one; its noise is drawn once.
    /// (The reference corrupts colour and then turns gray, which weakens noise to 0.67 of its deviation: for
    /// its figures, corrupt three equal channels and take [`crate::base::color::luma`].)
    ///
    /// Panics if `image` is not as long as `extent` says, or not of one or three channels.
    pub fn apply(
        self,
        manner: impl Into<Manner>,
        severity: Severity,
        key: ImageKey,
        image: &mut [u8],
        extent: Extent,
        scratch: &mut Scratch,
    ) {
        let Manner { profile, glass_swap } = manner.into();
        let lane = (self as u32) << 8 | (profile as u32) << 4 | u32::from(severity.0);
        let mut rng = RngKey::new(key.seed, Purpose::Corruption, lane).stream(0, key.image);
        let definition = match self {
            Self::GlassBlur if glass_swap => Definition::Values(glass_blur::swap),
            _ => self.definition(),
        };
        definition.apply(image, extent, scratch, profile, severity, &mut rng);
    }

    fn definition(self) -> Definition {
        use Definition::{Bytes, Values};
        match self {
            Self::GaussianNoise => Bytes(noise::gaussian),
            Self::ShotNoise => Bytes(shot_noise::apply),
            Self::ImpulseNoise => Bytes(noise::impulse),
            Self::DefocusBlur => Bytes(defocus_blur::apply),
            Self::GlassBlur => Values(glass_blur::copy),
            Self::MotionBlur => Values(motion_blur::apply),
            Self::ZoomBlur => Values(zoom_blur::apply),
            Self::Snow => Values(snow::apply),
            Self::Frost => Values(frost::apply),
            Self::Fog => Values(fog::apply),
            Self::Brightness => Values(brightness::apply),
            Self::Contrast => Values(contrast::apply),
            Self::ElasticTransform => Values(elastic::apply),
            Self::Pixelate => Bytes(pixelate::apply),
            Self::JpegCompression => Bytes(jpeg::apply),
            Self::SpeckleNoise => Values(noise::speckle),
            Self::GaussianBlur => Values(gaussian_blur::apply),
            Self::Spatter => Values(spatter::apply),
            Self::Saturate => Values(saturate::apply),
        }
    }
}

/// Asks for the memory of an image that is corrupted next, so that nothing waits for it then.
pub fn prefetch(image: &[u8]) {
    /// Bytes that come together.
    const LINE: usize = 64;
    for line in image.iter().step_by(LINE) {
        #[cfg(target_arch = "x86_64")]
        safe_arch::prefetch_t0(line);
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }
}

/// How a corruption is computed.
enum Definition {
    /// Turns the values in the scratch, on the scale of 0 to 255, into corrupted ones, which may leave that range.
    Values(fn(&mut Scratch, Profile, Severity, &mut dyn Draws)),
    /// Turns the bytes of an image of the scratch's extent into corrupted ones.
    Bytes(fn(&mut [u8], &mut Scratch, Profile, Severity, &mut dyn Draws)),
}

impl Definition {
    fn apply(
        self,
        image: &mut [u8],
        extent: Extent,
        scratch: &mut Scratch,
        profile: Profile,
        severity: Severity,
        draws: &mut dyn Draws,
    ) {
        scratch.shape(image, extent);
        match self {
            Self::Values(corrupt) => {
                scratch.take(image);
                corrupt(scratch, profile, severity, draws);
                scratch.give(image);
            }
            Self::Bytes(corrupt) => corrupt(image, scratch, profile, severity, draws),
        }
    }
}

impl Profile {
    /// Quality of the published JPEGs of Tiny-ImageNet-C.
    pub const QUALITY: i32 = 85;

    /// Both.
    pub const ALL: [Self; 2] = [Self::Tiny, Self::ImageNet];

    /// `t` or `i`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tiny => "t",
            Self::ImageNet => "i",
        }
    }

    /// Whether its images pass a JPEG of [`Self::QUALITY`] at the end, if nothing else is asked for.
    pub const fn has_jpeg(self) -> bool {
        matches!(self, Self::Tiny)
    }

    /// The row of this profile's table for `severity`.
    fn pick<T: Copy>(self, severity: Severity, tiny: &[T; 5], imagenet: &[T; 5]) -> T {
        let table = match self {
            Self::Tiny => tiny,
            Self::ImageNet => imagenet,
        };
        table[severity.index()]
    }
}

impl From<Profile> for Manner {
    fn from(profile: Profile) -> Self {
        Self { profile, glass_swap: false }
    }
}

impl Severity {
    /// 1 to 5.
    pub const ALL: [Self; 5] = [Self(1), Self(2), Self(3), Self(4), Self(5)];

    /// `level` if it is 1 to 5.
    pub const fn new(level: u8) -> Option<Self> {
        if level >= 1 && level <= 5 { Some(Self(level)) } else { None }
    }

    /// 1 to 5.
    pub const fn get(self) -> u8 {
        self.0
    }

    fn index(self) -> usize {
        usize::from(self.0 - 1)
    }
}

impl Group {
    /// All, in the order of tables.
    pub const ALL: [Self; 5] = [Self::Noise, Self::Blur, Self::Weather, Self::Digital, Self::Extra];

    /// The name in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Blur => "blur",
            Self::Weather => "weather",
            Self::Digital => "digital",
            Self::Extra => "extra",
        }
    }
}

impl FromStr for Corruption {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|c| c.as_str() == name);
        known.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|c| c.as_str()).collect();
            format!("no corruption {name:?}; there are {}", names.join(", "))
        })
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|p| p.as_str() == name);
        known.copied().ok_or_else(|| {
            format!("no profile {name:?}; there are t (Tiny-ImageNet-C) and i (imagecorruptions)")
        })
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(level: &str) -> Result<Self, String> {
        let known = level.parse().ok().and_then(Self::new);
        known.ok_or_else(|| format!("no severity {level:?}; there are 1, 2, 3, 4 and 5"))
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

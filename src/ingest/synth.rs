//! Sample data in the raw layout: a TinyImageNet tree of JPEGs and the three neural sets.
//!
//! Classes differ in texture (stripes, checks, rings; coarse to fine), which neither flips nor small
//! rotations nor conversion to gray destroy. Neurons are complex cells: the local energy of a Gabor
//! pair, so that responses are a function of the image. Same options, same bytes.

mod texture;

use super::error::{IngestError, Result};
use super::raw::{self, RawSession, RawTrials, save};
use crate::base::{Purpose, Rng, RngKey};
use crate::files::temporary;
use rayon::prelude::*;
use std::fs;
use std::path::Path;
use texture::{ComplexCell, Gray, texture};

/// Sizes of the sample data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SynthOptions {
    /// Classes.
    pub classes: u32,
    /// Training images a class.
    pub per_class: u32,
    /// Test images a class.
    pub val_per_class: u32,
    /// Images of each neural set.
    pub neural_images: u32,
    /// Recording sessions of each neural set.
    pub sessions: u32,
    /// Neurons a session.
    pub neurons: u32,
    /// Seed.
    pub seed: u64,
}

impl Default for SynthOptions {
    /// Enough to learn from in minutes on two cores.
    fn default() -> Self {
        Self {
            classes: 10,
            per_class: 150,
            val_per_class: 20,
            neural_images: 1000,
            sessions: 2,
            neurons: 24,
            seed: 1,
        }
    }
}

/// Side of every image.
const SIDE: usize = 64;
/// Time bins of a response.
const BINS: usize = 12;
/// Presentations of each test image.
const REPEATS: usize = 4;

const IMAGES: u32 = 0;
const STIMULI: u32 = 1;
const CELLS: u32 = 2;
const NOISE: u32 = 3;

/// Writes the sample data to `target`, a folder that must not exist or be empty. `tick` is told of
/// every image; false means that the user wants to stop.
pub fn write(target: &Path, options: &SynthOptions, tick: &(dyn Fn() -> bool + Sync)) -> Result<()> {
    check(target, options)?;
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(IngestError::io(parent, "create"))?;
    let staging = temporary(0o777).prefix(".synth-").tempdir_in(parent);
    let staging = staging.map_err(IngestError::io(parent, "create a folder in"))?;
    image_set(&staging.path().join("tiny-imagenet-200"), options, tick)?;
    let stimuli = stimuli(options);
    for (name, lane, shuffled) in [
        ("mtl_monkey_dataset", 0, false),
        ("mtl_oracle_dataset", 1, false),
        ("mtl_shuffled_dataset", 0, true),
    ] {
        neural_set(&staging.path().join(name), options, &stimuli, lane, shuffled, tick)?;
    }
    let staged = staging.keep();
    let placed = if target.exists() { fs::remove_dir(target) } else { Ok(()) };
    let placed = placed.and_then(|()| fs::rename(&staged, target));
    if placed.is_err() {
        let _ = fs::remove_dir_all(&staged);
    }
    placed.map_err(IngestError::io(target, "put the sample data in place"))
}

/// Number of images that [`write()`] makes.
pub fn n_images(options: &SynthOptions) -> u64 {
    let labelled = u64::from(options.classes) * u64::from(options.per_class + options.val_per_class);
    labelled + 3 * u64::from(options.neural_images)
}

fn check(target: &Path, options: &SynthOptions) -> Result<()> {
    let occupied = fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some()) || target.is_file();
    if occupied {
        return Err(IngestError::bad(target, "is there and is not empty; name a new folder"));
    }
    let SynthOptions { classes, per_class, val_per_class, neural_images, sessions, neurons, .. } = *options;
    if [classes, per_class, val_per_class, sessions, neurons].contains(&0)
        || neural_images < 20
        || classes > 200
    {
        let what = "sizes must be at least 1, classes at most 200, neural images at least 20";
        return Err(IngestError::bad(target, what));
    }
    Ok(())
}

fn rng(options: &SynthOptions, lane: u32, a: u32, b: u64) -> Rng {
    RngKey::new(options.seed, Purpose::Synth, lane).stream(a, b)
}

fn image_set(root: &Path, options: &SynthOptions, tick: &(dyn Fn() -> bool + Sync)) -> Result<()> {
    let ids: Vec<String> = (0..options.classes).map(|c| format!("n{:08}", 10_000_000 + 7 * c)).collect();
    let words: String =
        ids.iter().enumerate().map(|(c, id)| format!("{id}\t{}\n", texture::words(c as u32))).collect();
    save(&root.join("wnids.txt"), format!("{}\n", ids.join("\n")).as_bytes())?;
    save(&root.join("words.txt"), words.as_bytes())?;
    let mut files = Vec::new();
    for (class, id) in ids.iter().enumerate() {
        let folder = root.join("train").join(id);
        let mut boxes = String::new();
        for i in 0..options.per_class {
            let name = format!("{id}_{i}.JPEG");
            boxes.push_str(&format!("{name}\t0\t0\t63\t63\n"));
            files.push((folder.join("images").join(name), class as u32));
        }
        save(&folder.join(format!("{id}_boxes.txt")), boxes.as_bytes())?;
    }
    let mut annotations = String::new();
    for i in 0..options.classes * options.val_per_class {
        let class = i % options.classes;
        let name = format!("val_{i}.JPEG");
        annotations.push_str(&format!("{name}\t{}\t0\t0\t63\t63\n", ids[class as usize]));
        files.push((root.join("val").join("images").join(name), class));
    }
    save(&root.join("val").join("val_annotations.txt"), annotations.as_bytes())?;
    files.par_iter().enumerate().try_for_each(|(i, (path, class))| {
        keep_on(tick)?;
        save(path, &jpeg(path, *class, &mut rng(options, IMAGES, 0, i as u64))?)
    })
}

/// A JPEG of a class; one in fifty is grayscale, as in the real set.
fn jpeg(path: &Path, class: u32, rng: &mut Rng) -> Result<Vec<u8>> {
    let gray = rng.below(50) == 0;
    let image = texture(class, SIDE, rng);
    let (pixels, format, subsamp) = if gray {
        (image.bytes(), turbojpeg::PixelFormat::GRAY, turbojpeg::Subsamp::Gray)
    } else {
        (image.tinted(class), turbojpeg::PixelFormat::RGB, turbojpeg::Subsamp::Sub2x2)
    };
    let pitch = pixels.len() / SIDE;
    let image = turbojpeg::Image { pixels: &pixels[..], width: SIDE, pitch, height: SIDE, format };
    let file = turbojpeg::compress(image, 90, subsamp);
    Ok(file.map_err(|e| IngestError::bad(path, format!("JPEG encoder: {e}")))?.to_vec())
}

/// Images of random classes, each with its class.
fn stimuli(options: &SynthOptions) -> Vec<(Gray, u32)> {
    let stimulus = |i: u32| {
        let mut rng = rng(options, STIMULI, 0, u64::from(i));
        let class = rng.below(options.classes);
        (texture(class, SIDE, &mut rng), class)
    };
    (0..options.neural_images).into_par_iter().map(stimulus).collect()
}

fn neural_set(
    root: &Path,
    options: &SynthOptions,
    stimuli: &[(Gray, u32)],
    lane: u32,
    shuffled: bool,
    tick: &(dyn Fn() -> bool + Sync),
) -> Result<()> {
    stimuli.par_iter().enumerate().try_for_each(|(i, (image, _))| {
        keep_on(tick)?;
        raw::save_image(root, i as u64 + 1, &image.bytes(), SIDE, SIDE)
    })?;
    for session in 0..options.sessions {
        let cells: Vec<ComplexCell> = (0..options.neurons)
            .map(|n| {
                ComplexCell::draw(
                    SIDE,
                    &mut rng(options, CELLS, lane, u64::from(session) << 32 | u64::from(n)),
                )
            })
            .collect();
        // Rounded to bytes as the network sees them.
        let respond = |(image, _): &(Gray, u32)| cells.iter().map(|cell| cell.response(image)).collect();
        let drive: Vec<Vec<f64>> = stimuli.par_iter().map(respond).collect();
        let mut rng = rng(options, NOISE, lane, u64::from(session));
        let n_test = (stimuli.len() / 10).max(4);
        let mut order: Vec<usize> = (0..stimuli.len()).collect();
        rng.shuffle(&mut order);
        let (test, train) = order.split_at(n_test);
        let test: Vec<usize> = test.iter().flat_map(|&i| [i; REPEATS]).collect();
        let seen = |shown: &[usize], rng: &mut Rng| {
            let mut seen = shown.to_vec();
            if shuffled {
                rng.shuffle(&mut seen);
            }
            seen
        };
        let (train_seen, test_seen) = (seen(train, &mut rng), seen(&test, &mut rng));
        let session_id = 3_631_896_544_452 + u64::from(session);
        let session = RawSession {
            subject_id: "31".to_owned(),
            session_id: session_id.to_string(),
            training: trials(stimuli, train, responses(&drive, &train_seen, &mut rng)),
            testing: trials(stimuli, &test, responses(&drive, &test_seen, &mut rng)),
            shape: [options.neurons as usize, BINS],
        };
        raw::save_session(root, &session)?;
    }
    Ok(())
}

fn keep_on(tick: &(dyn Fn() -> bool + Sync)) -> Result<()> {
    if tick() { Ok(()) } else { Err(IngestError::Stopped) }
}

fn trials(stimuli: &[(Gray, u32)], shown: &[usize], responses: Vec<f32>) -> RawTrials {
    let ids = shown.iter().map(|&i| i as i64 + 1).collect();
    let labels = shown.iter().map(|&i| i64::from(stimuli[i].1)).collect();
    RawTrials { ids, labels, responses }
}

/// Responses `[neurons, bins, trials]` to the images `seen`, with a transient time course and mild noise.
fn responses(drive: &[Vec<f64>], seen: &[usize], rng: &mut Rng) -> Vec<f32> {
    let n_neurons = drive[0].len();
    let course: Vec<f64> = (0..BINS).map(|b| (b as f64 + 0.5) * (-(b as f64) / 3.0).exp()).collect();
    let total: f64 = course.iter().sum();
    let mut out = vec![0.0; n_neurons * BINS * seen.len()];
    for (trial, &image) in seen.iter().enumerate() {
        for (neuron, &drive) in drive[image].iter().enumerate() {
            let noisy = (drive * (1.0 + 0.1 * rng.normal()) + 0.05 * rng.normal()).max(0.0);
            for (bin, part) in course.iter().enumerate() {
                out[(neuron * BINS + bin) * seen.len() + trial] = (noisy * part / total) as f32;
            }
        }
    }
    out
}

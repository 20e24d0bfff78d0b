//! What training will see, as a function of shards, settings and seed alone.

use crate::common::shards;
use nct::base::{Fingerprint, Split, Task};
use nct::load::{AugmentSettings, Budget, Loader, LoaderOptions, Source, Targets, View};
use nct::schedule::{Mix, Ratio, RatioByEpoch, Schedule, StreamSpec};
use nct::shard::ShardSet;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

fn sources(dir: &Path) -> Vec<Source> {
    let set = ShardSet::open(&dir.join("shards")).unwrap();
    let view = |augment| View { augment, ..View::new(vec![0.45], vec![0.22]) };
    let neural = set.dataset("mtl_monkey_dataset").unwrap();
    let mut sources =
        Source::sessions(neural, Task::V1, Split::Train, &view(AugmentSettings::NONE), None).unwrap();
    let images = set.dataset("tiny-imagenet-200").unwrap();
    sources.push(Source::images(images, Split::Train, &view(AugmentSettings::default())).unwrap());
    sources
}

fn schedule(sources: &[Source], mix: Mix, seed: u64) -> Schedule {
    let stream = |s: &Source| StreamSpec::new(s.task, s.n_records(), 16);
    Schedule::new(sources.iter().map(stream).collect(), mix, seed).unwrap()
}

fn mtl() -> Mix {
    Mix::Mtl { ratio: RatioByEpoch::new([(1, Ratio::PerStep(1))]).unwrap(), images_per_step: 1 }
}

/// Digest of ids, pixels and targets of the first steps from `first` on.
fn digest(dir: &Path, mix: Mix, seed: u64, steps: std::ops::Range<u64>, threads: usize) -> Vec<Fingerprint> {
    let sources = Arc::new(sources(dir));
    let schedule = Arc::new(schedule(&sources, mix, seed));
    let mut loader = Loader::start(
        &sources,
        &schedule,
        seed,
        steps,
        LoaderOptions { threads, depth: 2, ..LoaderOptions::default() },
    )
    .unwrap();
    let mut digests = Vec::new();
    while let Some(step) = loader.next() {
        let step = step.unwrap();
        for batch in &step.batches {
            let mut bytes: Vec<u8> = batch.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            bytes.extend(batch.pixels.as_f32().unwrap().iter().flat_map(|p| p.to_le_bytes()));
            match batch.targets() {
                Targets::Labels(labels) => bytes.extend(labels.iter().flat_map(|l| l.to_le_bytes())),
                Targets::Responses(responses) | Targets::Both { responses, .. } => {
                    bytes.extend(responses.iter().flat_map(|r| r.to_le_bytes()));
                }
            }
            digests.push(Fingerprint::of(&bytes));
        }
        loader.recycle(step);
    }
    digests
}

/// All responses of some sessions in file order.
pub(crate) fn responses(sources: Vec<Source>) -> Vec<f32> {
    let sources = Arc::new(sources);
    let schedule = Arc::new(schedule(&sources, Mix::InOrder, 0));
    let steps = 0..schedule.steps_per_epoch();
    let loader = Loader::start(
        &sources,
        &schedule,
        0,
        steps,
        LoaderOptions { threads: 1, depth: 1, ..LoaderOptions::default() },
    )
    .unwrap();
    let mut all = Vec::new();
    for step in loader {
        for batch in step.unwrap().batches {
            match batch.targets() {
                Targets::Responses(responses) => all.extend(responses),
                Targets::Labels(_) | Targets::Both { .. } => panic!("a session has responses"),
            }
        }
    }
    all
}

#[test]
fn two_hundred_batches_are_the_same_with_one_two_and_eight_threads() {
    let dir = shards();
    let one = digest(dir.path(), mtl(), 7, 0..100, 1);
    assert_eq!(one.len(), 200);
    for threads in [2, 8] {
        assert_eq!(one, digest(dir.path(), mtl(), 7, 0..100, threads), "{threads} threads");
    }
    let other = digest(dir.path(), mtl(), 8, 0..100, 2);
    assert!(one.iter().zip(&other).all(|(a, b)| a != b), "another seed gives a batch in common");
}

/// Every record of both sessions and of the labelled images, and each session's mean responses.
fn all_of(dir: &Path, share: Option<f64>) -> (Vec<Vec<Record>>, Vec<Vec<f32>>) {
    let set = ShardSet::open(&dir.join("shards")).unwrap();
    let view = View::new(vec![0.45], vec![0.22]);
    let neural = set.dataset("mtl_monkey_dataset").unwrap();
    let mut sources = Source::sessions(neural, Task::V1, Split::Train, &view, None).unwrap();
    sources.push(Source::images(set.dataset("tiny-imagenet-200").unwrap(), Split::Train, &view).unwrap());
    for source in &mut sources {
        if let Some(share) = share {
            source.keep(share).unwrap();
        }
    }
    let means = sources.iter().map(Source::mean_response).collect();
    let sources = Arc::new(sources);
    let plan = Arc::new(schedule(&sources, Mix::InOrder, 0));
    let steps = 0..plan.steps_per_epoch();
    let mut records = vec![Vec::new(); sources.len()];
    for step in Loader::start(&sources, &plan, 0, steps, LoaderOptions::default()).unwrap() {
        for batch in step.unwrap().batches {
            let pixels = batch.pixels.as_f32().unwrap();
            let each = pixels.len() / batch.ids.len();
            for (i, (&id, pixels)) in batch.ids.iter().zip(pixels.chunks(each)).enumerate() {
                let targets = match batch.targets() {
                    Targets::Labels(labels) => vec![labels[i] as u32],
                    Targets::Responses(all) | Targets::Both { responses: all, .. } => {
                        let n = all.len() / batch.ids.len();
                        all[i * n..][..n].iter().map(|value| value.to_bits()).collect()
                    }
                };
                let pixels = pixels.iter().map(|value| value.to_bits()).collect();
                records[batch.stream.0 as usize].push((id, targets, pixels));
            }
        }
    }
    (records, means)
}

/// Id, targets and pixels.
type Record = (u32, Vec<u32>, Vec<u32>);

#[test]
fn a_share_of_the_records_is_one_choice_and_has_all_of_a_smaller_one() {
    let dir = shards();
    let (whole, means) = all_of(dir.path(), None);
    assert_eq!(all_of(dir.path(), Some(1.0)), (whole.clone(), means.clone()));
    let [(most, _), (less, of_less)] = [0.7, 0.3].map(|share| all_of(dir.path(), Some(share)));
    for ((whole, most), less) in whole.iter().zip(&most).zip(&less) {
        let part = |share: f64| (whole.len() as f64 * share) as usize;
        assert_eq!((most.len(), less.len()), (part(0.7), part(0.3)));
        let is_part = |few: &[Record], many: &[Record]| {
            few.iter().collect::<BTreeSet<_>>().is_subset(&many.iter().collect())
        };
        assert!(is_part(less, most) && is_part(most, whole));
    }
    for session in 0..2 {
        let of_neuron = |k: usize| less[session].iter().map(move |r| f64::from(f32::from_bits(r.1[k])));
        for (k, &mean) in of_less[session].iter().enumerate() {
            let expected = of_neuron(k).sum::<f64>() / less[session].len() as f64;
            assert!(
                (f64::from(mean) - expected).abs() < 1e-5 && mean != means[session][k],
                "{mean} {expected}"
            );
        }
    }
    let mut sources = sources(dir.path());
    let told = sources[2].keep(0.001).unwrap_err().to_string();
    assert!(told.contains("tiny-imagenet-200: 0.001 of "), "{told}");
}

#[test]
fn reading_may_begin_at_any_step() {
    let dir = shards();
    let whole = digest(dir.path(), mtl(), 7, 0..30, 2);
    assert_eq!(whole[2 * 11..], digest(dir.path(), mtl(), 7, 11..30, 3));
}

#[test]
fn every_mix_delivers_and_an_early_end_joins_the_threads() {
    let dir = shards();
    let weighted = Mix::Weighted { batches_per_step: 3, steps_per_epoch: 0 };
    for mix in [Mix::Long { batches_per_step: 0 }, Mix::Short { batches_per_step: 2 }, weighted] {
        assert_eq!(digest(dir.path(), mix.clone(), 1, 0..9, 1), digest(dir.path(), mix, 1, 0..9, 2));
    }
    let sources = Arc::new(sources(dir.path()));
    let schedule = Arc::new(schedule(&sources, mtl(), 1));
    let mut loader = Loader::start(
        &sources,
        &schedule,
        1,
        0..1000,
        LoaderOptions { threads: 4, depth: 3, ..LoaderOptions::default() },
    )
    .unwrap();
    assert_eq!(loader.next().unwrap().unwrap().batches.last().unwrap().task, Task::Classification);
    drop(loader);
    assert_eq!(Arc::strong_count(&sources), 1, "a thread outlived its loader");
}

#[test]
fn a_damaged_block_arrives_once_as_an_error_that_names_it() {
    let dir = shards();
    let path = dir.path().join("shards/tiny-imagenet-200/train-00000.nct");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let sources = Arc::new(sources(dir.path()));
    let schedule = Arc::new(schedule(&sources, mtl(), 1));
    let loader = Loader::start(
        &sources,
        &schedule,
        1,
        0..50,
        LoaderOptions { threads: 3, depth: 2, ..LoaderOptions::default() },
    )
    .unwrap();
    let errors: Vec<String> = loader.filter_map(Result::err).map(|e| e.to_string()).collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("train-00000.nct") && errors[0].contains("block 0"), "{}", errors[0]);
}

#[test]
fn augmentation_differs_between_records_and_between_epochs() {
    let dir = shards();
    let set = ShardSet::open(&dir.path().join("shards")).unwrap();
    let augment = AugmentSettings { crop_padding: 4, ..AugmentSettings::NONE };
    let view = View { augment, ..View::new(vec![0.0], vec![1.0]) };
    let images = Source::images(set.dataset("tiny-imagenet-200").unwrap(), Split::Train, &view).unwrap();
    let sources = Arc::new(vec![images]);
    let schedule = Arc::new(schedule(&sources, Mix::Long { batches_per_step: 0 }, 1));
    let steps = 0..2 * schedule.steps_per_epoch();
    let loader = Loader::start(
        &sources,
        &schedule,
        1,
        steps,
        LoaderOptions { threads: 2, depth: 1, ..LoaderOptions::default() },
    )
    .unwrap();
    // Rows and columns of zero fill tell by how much each record was shifted.
    let mut shifts = [Vec::new(), Vec::new()];
    for step in loader.map(Result::unwrap) {
        for batch in &step.batches {
            for (image, id) in batch.pixels.as_f32().unwrap().chunks_exact(64 * 64).zip(&batch.ids) {
                let empty_row = |y: &usize| image[y * 64..(y + 1) * 64].iter().all(|&p| p == 0.0);
                let empty_column = |x: &usize| (0..64).all(|y| image[y * 64 + x] == 0.0);
                let shift = [(0..64).take_while(empty_row).count(), (0..64).take_while(empty_column).count()];
                shifts[step.plan.epoch as usize - 1].push((*id, shift));
            }
        }
    }
    let [mut first, mut second] = shifts;
    first.sort_unstable();
    second.sort_unstable();
    let distinct: BTreeSet<_> = first.iter().map(|(_, shift)| shift).collect();
    assert!(distinct.len() >= 8, "{distinct:?}");
    let moved = first.iter().zip(&second).filter(|(a, b)| a.0 == b.0 && a.1 != b.1).count();
    assert!(first.len() == second.len() && moved * 3 > first.len(), "{moved} of {} moved", first.len());
}

/// Ids and pixels of every step, with the images under `budget` and shuffled in windows.
fn windowed(dir: &Path, budget: &Budget, rank: u32, world: u32) -> Vec<(Vec<u32>, Vec<f32>)> {
    let set = ShardSet::open(&dir.join("shards")).unwrap();
    let view = View {
        augment: AugmentSettings::default(),
        budget: budget.clone(),
        ..View::new(vec![0.45], vec![0.22])
    };
    let images = Source::images(set.dataset("tiny-imagenet-200").unwrap(), Split::Train, &view).unwrap();
    let window = Some(images.window(1 << 18));
    let stream = StreamSpec { window, ..StreamSpec::new(images.task, images.n_records(), 16) };
    let schedule = Arc::new(Schedule::new(vec![stream], Mix::Long { batches_per_step: 1 }, 3).unwrap());
    let steps = 0..2 * schedule.steps_per_epoch();
    let options = LoaderOptions { threads: 2, depth: 2, rank, world };
    let loader = Loader::start(&Arc::new(vec![images]), &schedule, 3, steps, options).unwrap();
    let of = |step: nct::load::Step| {
        let batch = &step.batches[0];
        (batch.ids.clone(), batch.pixels.as_f32().unwrap().to_vec())
    };
    loader.map(|step| of(step.unwrap())).collect()
}

#[test]
fn memory_for_decoded_images_changes_nothing_but_speed() {
    let dir = shards();
    let all = windowed(dir.path(), &Budget::unlimited(), 0, 1);
    assert!(all.len() > 4);
    for bytes in [0, 1 << 17, 1 << 18] {
        let budget = Budget::new(bytes);
        assert!(windowed(dir.path(), &budget, 0, 1) == all, "{bytes} bytes");
        assert_eq!(budget.left(), 0, "the images fit {bytes} bytes: nothing was tested");
    }
}

#[test]
fn all_ranks_together_see_what_one_sees() {
    let dir = shards();
    let alone = windowed(dir.path(), &Budget::unlimited(), 0, 1);
    let ranks: Vec<_> = (0..3).map(|rank| windowed(dir.path(), &Budget::unlimited(), rank, 3)).collect();
    for (k, (ids, pixels)) in alone.iter().enumerate() {
        let shares = ranks.iter().map(|steps| &steps[k]);
        assert_eq!(&shares.clone().flat_map(|(ids, _)| ids.clone()).collect::<Vec<_>>(), ids);
        assert!(&shares.flat_map(|(_, pixels)| pixels.clone()).collect::<Vec<_>>() == pixels);
    }
}

#[test]
fn a_loader_may_be_dropped_at_any_moment() {
    let dir = shards();
    let sources = Arc::new(sources(dir.path()));
    let schedule = Arc::new(schedule(&sources, mtl(), 1));
    for taken in (0..6).cycle().take(200) {
        let options = LoaderOptions { threads: 3, depth: 1, ..LoaderOptions::default() };
        let mut loader = Loader::start(&sources, &schedule, 1, 0..500, options).unwrap();
        for _ in 0..taken {
            let step = loader.next().unwrap().unwrap();
            loader.recycle(step);
        }
    }
}

/// Pixels of the first update's image batch.
fn first_pixels(dir: &Path, augment: &AugmentSettings, second: Option<AugmentSettings>) -> Vec<f32> {
    let set = ShardSet::open(&dir.join("shards")).unwrap();
    let view = View { augment: augment.clone(), second, ..View::new(vec![0.0], vec![1.0]) };
    let images = Source::images(set.dataset("tiny-imagenet-200").unwrap(), Split::Train, &view).unwrap();
    let sources = Arc::new(vec![images]);
    let schedule = Arc::new(schedule(&sources, Mix::Long { batches_per_step: 0 }, 1));
    let mut loader = Loader::start(&sources, &schedule, 1, 0..1, LoaderOptions::default()).unwrap();
    let step = loader.next().unwrap().unwrap();
    step.batches[0].pixels.as_f32().unwrap().to_vec()
}

#[test]
fn second_views_follow_the_first_and_are_drawn_apart() {
    let dir = shards();
    let augment = AugmentSettings::default();
    let alone = first_pixels(dir.path(), &augment, None);
    let pair = first_pixels(dir.path(), &augment, Some(augment.clone()));
    assert_eq!(pair.len(), 2 * alone.len());
    let (first, second) = pair.split_at(alone.len());
    assert!(first == alone && second != alone);
    let plain = first_pixels(dir.path(), &AugmentSettings::NONE, None);
    let plain_second = first_pixels(dir.path(), &augment, Some(AugmentSettings::NONE));
    assert!(plain_second[alone.len()..] == plain);
}

#[test]
fn corrupted_images_are_those_of_the_definition() {
    use nct::base::color::luma;
    use nct::corruption::{Corruption, Extent, ImageKey, Profile, Scratch, Severity};
    use nct::load::{DistortSettings, PixelType, Pixels};
    let dir = shards();
    let set = ShardSet::open(&dir.path().join("shards")).unwrap();
    let images = set.dataset("tiny-imagenet-200").unwrap();
    let bytes = |augment: AugmentSettings| {
        let view = View { augment, pixels: PixelType::U8, ..View::new(vec![0.45], vec![0.22]) };
        let sources = Arc::new(vec![Source::images(images, Split::Test, &view).unwrap()]);
        let schedule = Arc::new(schedule(&sources, Mix::InOrder, 0));
        let steps = 0..schedule.steps_per_epoch();
        let mut all = Vec::new();
        for step in Loader::start(&sources, &schedule, 0, steps, LoaderOptions::default()).unwrap() {
            let Pixels::U8(pixels) = &step.unwrap().batches[0].pixels else { panic!("no bytes") };
            all.extend_from_slice(pixels);
        }
        all
    };
    let clean = bytes(AugmentSettings::NONE);
    let (kind, profile, severity) = (Corruption::GlassBlur, Profile::ImageNet, Severity::ALL[2]);
    let distort = Some(DistortSettings::fixed(kind, profile, severity, 7));
    let found = bytes(AugmentSettings { distort, ..AugmentSettings::NONE });
    let plane = 64 * 64;
    let mut scratch = Scratch::default();
    for (i, (clean, found)) in clean.chunks_exact(plane).zip(found.chunks_exact(plane)).enumerate() {
        let mut color = clean.repeat(3);
        let extent = Extent { channels: 3, height: 64, width: 64 };
        kind.apply(
            profile,
            severity,
            ImageKey { seed: 7, image: i as u64 },
            &mut color,
            extent,
            &mut scratch,
        );
        let expected: Vec<u8> =
            (0..plane).map(|p| luma(color[p], color[plane + p], color[2 * plane + p])).collect();
        assert!(expected == found && found != clean, "image {i}");
    }
    // In training: half of the images, and moved ones too.
    let training = DistortSettings {
        fixed_seed: None,
        share: 0.5,
        ..DistortSettings::fixed(kind, profile, severity, 0)
    };
    let found = bytes(AugmentSettings { distort: Some(training), ..AugmentSettings::NONE });
    let same = clean.chunks_exact(plane).zip(found.chunks_exact(plane)).filter(|(a, b)| a == b).count();
    let n = clean.len() / plane;
    assert!(same > 0 && same < n, "{same} of {n} are clean");
}

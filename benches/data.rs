//! Throughput of the data path: shard block, gather and augment, schedule, batches end to end.
//!
//! Images are 64 x 64 gray, as the co-training recipes use. What was learned is in `benches/README.md`.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "benches")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use nct::base::{Purpose, RngKey, Split, StepIndex, Task};
use nct::ingest::synth::{SynthOptions, write};
use nct::ingest::{Color, PrepareOptions, prepare};
use nct::load::{
    Aligned, AugmentSettings, Loader, LoaderOptions, PixelType, Roofline, Scratch, Source, Tables, View,
};
use nct::schedule::{Mix, Ratio, RatioByEpoch, Schedule, StreamSpec};
use nct::shard::{ShardSet, pack};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn shards() -> tempfile::TempDir {
    shards_of(400, Color::Gray)
}

fn shards_of(per_class: u32, color: Color) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let options = SynthOptions { per_class, neural_images: 2000, ..SynthOptions::default() };
    write(&dir.path().join("raw"), &options, &|| true).unwrap();
    let options = PrepareOptions { color, ..PrepareOptions::new(dir.path().join("shards"), 2) };
    prepare(&dir.path().join("raw"), &options, &|_| true).unwrap();
    dir
}

fn sources(set: &ShardSet) -> Vec<Source> {
    let view = |augment| View { augment, ..View::new(vec![0.45], vec![0.22]) };
    let neural = set.dataset("mtl_monkey_dataset").unwrap();
    let mut sources =
        Source::sessions(neural, Task::V1, Split::Train, &view(AugmentSettings::NONE), None).unwrap();
    let images = set.dataset("tiny-imagenet-200").unwrap();
    sources.push(Source::images(images, Split::Train, &view(AugmentSettings::default())).unwrap());
    sources
}

fn schedule(sources: &[Source]) -> Schedule {
    let stream = |s: &Source| StreamSpec::new(s.task, s.n_records(), 128);
    let ratio = RatioByEpoch::new([(1, Ratio::PerStep(1))]).unwrap();
    Schedule::new(sources.iter().map(stream).collect(), Mix::Mtl { ratio, images_per_step: 1 }, 1).unwrap()
}

fn block(c: &mut Criterion) {
    for color in [Color::Gray, Color::Keep] {
        let dir = shards_of(400, color);
        let set = ShardSet::open(&dir.path().join("shards")).unwrap();
        let shard = set.dataset("tiny-imagenet-200").unwrap().images(Split::Train).unwrap().remove(0);
        let (field, image) = shard.field("image").unwrap();
        let raster = image.raster();
        let mut block = vec![0; shard.block_bytes(field, 0)];
        shard.read_block(field, 0, &mut block).unwrap();
        let mut group = c.benchmark_group(format!("shard, {color:?}"));
        group.throughput(Throughput::Bytes(block.len() as u64));
        for level in [0, 1] {
            group.bench_function(format!("pack a block, level {level}"), |b| {
                b.iter(|| pack(black_box(&block), raster, level).unwrap());
            });
        }
        group.bench_function("read a block", |b| {
            b.iter(|| shard.read_block(field, 0, black_box(&mut block)).unwrap());
        });
        group.finish();
    }
}

fn augment(c: &mut Criterion) {
    let image: Vec<u8> = (0..3 * 64 * 64).map(|i| (i * 7919 % 251) as u8).collect();
    let tables = Tables::new(&[0.45], &[0.22], |v| v);
    let key = RngKey::new(1, Purpose::Augment, 0);
    let (mut scratch, mut out) = (Scratch::default(), Aligned::<f32>::default());
    out.resize(64 * 64);
    let mut group = c.benchmark_group("show one image");
    group.throughput(Throughput::Elements(1));
    for (source, image) in [("gray", &image[..64 * 64]), ("colour", &image[..])] {
        for (name, settings) in [
            ("normalise", AugmentSettings::NONE),
            (
                "crop, flip, normalise",
                AugmentSettings { rotation_degrees: 0.0, ..AugmentSettings::default() },
            ),
            ("crop, flip, rotate, normalise", AugmentSettings::default()),
        ] {
            let mut record = 0;
            group.bench_function(format!("{source}: {name}"), |b| {
                b.iter(|| {
                    record += 1;
                    let placement = settings.draw(&mut key.stream(0, record));
                    tables.bytes(black_box(image), 64, placement, &mut scratch, &mut out);
                });
            });
        }
    }
    group.finish();
}

/// Shuffled batches of colour bytes beside the plainest copy of as many random rows, and the ratio of their
/// rates. The rows are too many for any cache.
fn roofline(c: &mut Criterion) {
    let dir = shards_of(1500, Color::Keep);
    let set = ShardSet::open(&dir.path().join("shards")).unwrap();
    let images = set.dataset("tiny-imagenet-200").unwrap();
    let view = View { pixels: PixelType::U8, ..View::new(vec![0.0; 3], vec![1.0; 3]) };
    let source = Source::images(images, Split::Train, &view).unwrap();
    let rows = source.n_records();
    let stream = StreamSpec::new(source.task, rows, 128);
    let schedule = Arc::new(Schedule::new(vec![stream], Mix::Long { batches_per_step: 1 }, 1).unwrap());
    let (sources, memory) = (Arc::new(vec![source]), Roofline::new(rows as usize, 3 * 64 * 64).unwrap());
    let mut group = c.benchmark_group("roofline");
    let steps = rows / 128;
    group.sample_size(20).throughput(Throughput::Elements(steps * 128));
    for threads in [1, 2] {
        let options = LoaderOptions { threads, depth: 2, ..LoaderOptions::default() };
        let mut loader = Loader::start(&sources, &schedule, 1, 0..u64::MAX, options).unwrap();
        let mut read = || {
            for _ in 0..steps {
                let step = loader.next().unwrap().unwrap();
                loader.recycle(step);
            }
        };
        let copy = || memory.gather(steps as usize, 128, threads);
        let mut measured = false;
        group.bench_function(format!("loader, {threads} threads"), |b| {
            measured = true;
            b.iter(&mut read);
        });
        group.bench_function(format!("memcpy, {threads} threads"), |b| b.iter(copy));
        if measured {
            let ratio = ratio(&mut read, copy);
            println!("loader at {ratio:.2} of the rate of memcpy, {threads} threads");
        }
    }
    group.finish();
}

const PASSES: usize = 5;

/// How fast `read` is, `copy` being 1: the median of rounds in which they take turns.
fn ratio(mut read: impl FnMut(), copy: impl Fn() -> Duration) -> f64 {
    let mut ratios: Vec<f64> = (0..21)
        .map(|_| {
            // Batches that were made before, or while the other ran, do not count.
            copy();
            let copying: Duration = (0..PASSES).map(|_| copy()).sum();
            read();
            let start = Instant::now();
            (0..PASSES).for_each(|_| read());
            copying.as_secs_f64() / start.elapsed().as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

fn plan(c: &mut Criterion) {
    let dir = shards();
    let schedule = schedule(&sources(&ShardSet::open(&dir.path().join("shards")).unwrap()));
    let mut group = c.benchmark_group("schedule");
    group.throughput(Throughput::Elements(256));
    let mut k = 0;
    group.bench_function("plan of two batches of 128, record by record", |b| {
        b.iter(|| {
            k += 1;
            let plan = schedule.step(StepIndex(k));
            plan.batches.iter().flat_map(|batch| schedule.records(batch)).map(|r| r.0).sum::<u64>()
        });
    });
    group.finish();
}

fn batches(c: &mut Criterion) {
    let dir = shards();
    let set = ShardSet::open(&dir.path().join("shards")).unwrap();
    let mut group = c.benchmark_group("loader");
    group.sample_size(20).throughput(Throughput::Elements(50 * 256));
    for threads in [1, 2] {
        let (warm, cold) = (format!("decoded, {threads} threads"), format!("first pass, {threads} threads"));
        let sources = Arc::new(sources(&set));
        let plan = Arc::new(schedule(&sources));
        let read = |sources: &Arc<Vec<Source>>| {
            let options = LoaderOptions { threads, depth: 2, ..LoaderOptions::default() };
            let mut loader = Loader::start(sources, &plan, 1, 0..50, options).unwrap();
            let mut samples = 0;
            while let Some(step) = loader.next() {
                let step = step.unwrap();
                assert_eq!(step.batches.last().unwrap().task, Task::Classification);
                samples += step.batches.iter().map(nct::load::Batch::len).sum::<usize>();
                loader.recycle(step);
            }
            assert!(samples > 50 * 200);
        };
        group.bench_function(warm, |b| b.iter(|| read(&sources)));
        group.bench_function(cold, |b| {
            b.iter_batched(|| Arc::new(self::sources(&set)), |fresh| read(&fresh), BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, block, augment, plan, roofline, batches);
criterion_main!(benches);

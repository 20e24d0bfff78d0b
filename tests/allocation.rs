//! The loader takes no memory from the system for its batches once it has started. A test binary of its own, because
//! it counts the allocations of the whole process.
#![allow(missing_docs, unsafe_code, reason = "a global allocator is unsafe by nature")]

use nct::base::{Split, Task};
use nct::ingest::synth::{SynthOptions, write};
use nct::ingest::{Color, PrepareOptions, prepare};
use nct::load::{AugmentSettings, Loader, LoaderOptions, Source, View};
use nct::schedule::{Mix, Ratio, RatioByEpoch, Schedule, StreamSpec};
use nct::shard::ShardSet;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory but a static.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn no_batch_allocates_once_the_loader_has_started() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = SynthOptions { classes: 4, per_class: 60, neural_images: 150, ..SynthOptions::default() };
    write(&dir.path().join("raw"), &sizes, &|| true).unwrap();
    let options = PrepareOptions { color: Color::Gray, ..PrepareOptions::new(dir.path().join("shards"), 2) };
    prepare(&dir.path().join("raw"), &options, &|_| true).unwrap();
    let set = ShardSet::open(&dir.path().join("shards")).unwrap();
    let view = |augment| View { augment, ..View::new(vec![0.45], vec![0.22]) };
    let neural = set.dataset("mtl_monkey_dataset").unwrap();
    let mut sources =
        Source::sessions(neural, Task::V1, Split::Train, &view(AugmentSettings::NONE), None).unwrap();
    let images = set.dataset("tiny-imagenet-200").unwrap();
    sources.push(Source::images(images, Split::Train, &view(AugmentSettings::default())).unwrap());
    let sources = Arc::new(sources);
    let stream = |s: &Source| StreamSpec::new(s.task, s.n_records(), 16);
    let mix = Mix::Mtl { ratio: RatioByEpoch::new([(1, Ratio::PerStep(1))]).unwrap(), images_per_step: 1 };
    let schedule = Arc::new(Schedule::new(sources.iter().map(stream).collect(), mix, 1).unwrap());
    let options = LoaderOptions { threads: 2, ..LoaderOptions::default() };
    let mut loader = Loader::start(&sources, &schedule, 1, 0..3000, options).unwrap();
    // While it starts, as many steps come into being as can be on their way at once, and each grows to
    // the largest batch. A pause lets the workers read ahead as far as they may.
    for k in 0..1000 {
        let step = loader.next().unwrap().unwrap();
        if k % 100 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        loader.recycle(step);
    }
    let (mut samples, mut by_window) = (0, Vec::new());
    for _ in 0..10 {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for _ in 0..190 {
            let step = loader.next().unwrap().unwrap();
            samples += step.batches.iter().map(nct::load::Batch::len).sum::<usize>();
            loader.recycle(step);
        }
        by_window.push(ALLOCATIONS.load(Ordering::Relaxed) - before);
    }
    assert!(samples > 1900 * 16, "{samples}");
    // On a busy machine the loop may fall behind for the first time only now, and one more step comes into
    // being. That can happen as often as steps fit on their way: the number of batches does not matter.
    let quiet = by_window.iter().filter(|&&n| n == 0).count();
    assert!(quiet >= 8 && by_window.iter().sum::<u64>() <= 80, "allocations by window: {by_window:?}");
}

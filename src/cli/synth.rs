//! `nct synth`: sample data in the raw layout.

use super::show::Show;
use crate::ingest::synth::{SynthOptions, n_images, write};
use std::path::PathBuf;

/// Arguments of `nct synth`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder to write; must not exist or be empty
    pub(crate) dir: PathBuf,
    /// Classes
    #[arg(long, default_value_t = SynthOptions::default().classes)]
    classes: u32,
    /// Training images per class
    #[arg(long, default_value_t = SynthOptions::default().per_class)]
    per_class: u32,
    /// Test images per class
    #[arg(long, default_value_t = SynthOptions::default().val_per_class)]
    val_per_class: u32,
    /// Images of each neural set
    #[arg(long, default_value_t = SynthOptions::default().neural_images)]
    neural_images: u32,
    /// Recording sessions of each neural set
    #[arg(long, default_value_t = SynthOptions::default().sessions)]
    sessions: u32,
    /// Neurons per session
    #[arg(long, default_value_t = SynthOptions::default().neurons)]
    neurons: u32,
    /// Seed: the same seed and sizes give the same bytes
    #[arg(long, default_value_t = SynthOptions::default().seed)]
    seed: u64,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let options = SynthOptions {
        classes: args.classes,
        per_class: args.per_class,
        val_per_class: args.val_per_class,
        neural_images: args.neural_images,
        sessions: args.sessions,
        neurons: args.neurons,
        seed: args.seed,
    };
    make(&args.dir, &options, show)
}

/// Writes sample data and says so.
pub(crate) fn make(dir: &std::path::Path, options: &SynthOptions, show: Show) -> anyhow::Result<()> {
    let bar = show.bar("synth", n_images(options), "images");
    let stop = super::exit::stop_flag();
    let tick = || {
        bar.advance(1);
        !stop.load(std::sync::atomic::Ordering::Relaxed)
    };
    write(dir, options, &tick)?;
    bar.clear();
    let sets = "tiny-imagenet-200, mtl_monkey_dataset, mtl_oracle_dataset, mtl_shuffled_dataset";
    show.line(&format!("{}: {} images in {sets}", dir.display(), super::show::count(n_images(options))));
    Ok(())
}

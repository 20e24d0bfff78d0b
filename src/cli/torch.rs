//! The commands that need libtorch. Its constructors take a quarter of a second whenever a program linked with it
//! starts, so they are a program of their own, `nct-torch`, which lies beside `nct` and which `nct` becomes for them.

use super::Torch;
use super::codes;
use super::exit::Usage;
use super::show::{Show, tell};
use super::{
    bench, datajoint, demo, doctor, eval, launch, mei, reconstruct, respond, rsa, run, train, weights,
};
use crate::model::device::{self, Selected};
use crate::runs::{Listed, Store};
use crate::train::{guarded, out_of_memory};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use tch::Device;

/// File name of the program with libtorch.
const PROGRAM: &str = "nct-torch";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Measure throughput on this machine
    Bench(bench::Args),
    /// Train a network
    Train(train::Args),
    /// Train one network with several processes of this machine
    Launch(launch::Args),
    /// Train all experiments of a recipe, a sweep or a study, as far as they are not done
    Run(run::Args),
    /// Evaluate a trained network, on images as they are, under noise and under corruptions
    Eval(eval::Args),
    /// Write a network's responses to images as a neural set in the raw layout
    Respond(respond::Args),
    /// Find images that a layer cannot tell from others, under a constraint
    Reconstruct(reconstruct::Args),
    /// Find images that excite single neurons most
    Mei(mei::Args),
    /// Compare representations of layers, networks and recorded responses
    Rsa(rsa::Args),
    /// Show, convert and compare weights files
    Weights(weights::Args),
    /// Sample data, shards, training and evaluation in one go
    Demo(demo::Args),
    /// Say what this program and machine have, what is missing, and how to get it
    Doctor(doctor::Args),
}

/// By this program, which is linked with libtorch.
pub(super) struct Here;

/// The device, told to the user.
pub(super) fn selected(name: &str, show: Show) -> anyhow::Result<Device> {
    let selected = device::select(name)?;
    show.line(&format!("device: {}", selected.note));
    warn_of_unused(&selected);
    Ok(selected.device)
}

/// Says, even to those who asked for quiet, that a GPU is here and not used: what was to take minutes takes hours.
pub(super) fn warn_of_unused(selected: &Selected) {
    if let Some(why) = &selected.unused {
        tell(&format!("warning: there is a GPU, and it is not used: {why}"));
    }
}

impl Torch for Here {
    fn command(command: Command, show: Show) -> anyhow::Result<()> {
        run(command, show)
    }

    fn datajoint(args: &datajoint::Args, store: &Store, runs: &[Listed], show: Show) -> anyhow::Result<()> {
        datajoint::run(args, store, runs, show)
    }
}

/// By the other program.
pub(super) struct Elsewhere;

impl Torch for Elsewhere {
    fn command(_: Command, _: Show) -> anyhow::Result<()> {
        become_program()
    }

    fn datajoint(_: &datajoint::Args, _: &Store, _: &[Listed], _: Show) -> anyhow::Result<()> {
        become_program()
    }
}

/// Memory that runs out ends any command with the same words and code, wherever in it that happens.
fn run(command: Command, show: Show) -> anyhow::Result<()> {
    guarded(|| Ok(dispatch(command, show)))?.map_err(|e| match out_of_memory(&format!("{e:#}")) {
        Some(memory) if codes::of(&e).name == "N801" => memory.into(),
        _ => e,
    })
}

fn dispatch(command: Command, show: Show) -> anyhow::Result<()> {
    match command {
        Command::Bench(args) => bench::run(&args, show),
        Command::Train(args) => train::run(&args, show),
        Command::Launch(args) => launch::run(&args, show),
        Command::Run(args) => run::run(&args, show),
        Command::Eval(args) => eval::run(&args, show),
        Command::Respond(args) => respond::run(&args, show),
        Command::Reconstruct(args) => reconstruct::run(&args, show),
        Command::Mei(args) => mei::run(&args, show),
        Command::Rsa(args) => rsa::run(&args, show),
        Command::Weights(args) => weights::run(&args, show),
        Command::Demo(args) => demo::run(&args, show),
        Command::Doctor(args) => doctor::run(&args),
    }
}

/// Becomes the program with libtorch: the same process, with the same arguments. Comes back with an error only.
fn become_program() -> anyhow::Result<()> {
    let program = beside(PROGRAM)?;
    let library = device::libtorch().join("lib/libtorch_cpu.so");
    if !library.exists() && std::env::var_os("LD_LIBRARY_PATH").is_none() {
        let what = format!("{}: the libtorch this program was built with is gone", library.display());
        return Err(Usage(format!("{what}; tools/setup brings it")).into());
    }
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new(&program);
    command.arg0(arguments.next().unwrap_or_else(|| "nct".into())).args(arguments);
    let e = command.exec();
    let way_out = "it is built and installed together with nct: cargo build --release";
    Err(Usage(format!("{}: start: {e}; {way_out}", program.display())).into())
}

/// The program that users call, for scripts.
pub(super) fn front() -> anyhow::Result<PathBuf> {
    beside("nct")
}

fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().map_err(|e| Usage(format!("where this program lies: {e}")))?;
    Ok(own.with_file_name(name))
}

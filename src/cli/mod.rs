//! The command line: one file a subcommand. The only layer that prints, and the only one with `anyhow`.
//!
//! Text for people goes to stderr, results to stdout.

#[cfg(feature = "torch")]
mod analysis;
mod bench;
mod codes;
mod corrupt;
mod exit;
mod fetch;
#[cfg(feature = "torch")]
mod figures;
mod files;
mod help;
mod inspect;
pub mod prepare;
mod runs;
mod sheet;
mod show;
mod synth;
mod verify;

#[cfg(feature = "torch")]
mod config;
#[cfg(feature = "torch")]
mod datajoint;
#[cfg(feature = "torch")]
mod demo;
mod doctor;
#[cfg(feature = "torch")]
mod eval;
#[cfg(feature = "torch")]
mod launch;
#[cfg(feature = "torch")]
mod mei;
#[cfg(feature = "torch")]
mod reconstruct;
#[cfg(feature = "torch")]
mod report;
#[cfg(feature = "torch")]
mod respond;
#[cfg(feature = "torch")]
mod robustness;
#[cfg(feature = "torch")]
mod rsa;
#[cfg(feature = "torch")]
mod run;
#[cfg(feature = "torch")]
mod train;
#[cfg(feature = "torch")]
mod weights;

pub use exit::finish;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// Co-train one network on object recognition and neural responses.
#[derive(Debug, Parser)]
#[command(
    name = "nct",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Cli {
    /// Say only what went wrong
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn raw data sets into shards
    Prepare(prepare::Args),
    /// Show what shards hold
    Inspect(inspect::Args),
    /// Read every byte of shards and check it
    Verify(verify::Args),
    /// Copy shards from a store into a folder
    Fetch(fetch::Args),
    /// Write corrupted copies of prepared images, or a picture of all corruptions
    Corrupt(corrupt::Args),
    /// Corrupt raw bytes: for comparison with other programs
    #[command(hide = true)]
    CorruptRaw(corrupt::raw::Args),
    /// Measure throughput on this machine
    Bench(bench::Args),
    /// Train a network
    #[cfg(feature = "torch")]
    Train(train::Args),
    /// Train one network with several processes of this machine
    #[cfg(feature = "torch")]
    Launch(launch::Args),
    /// Train all experiments of a recipe, a sweep or a study, as far as they are not done
    #[cfg(feature = "torch")]
    Run(run::Args),
    /// Show, compare and describe settings
    #[cfg(feature = "torch")]
    Config(config::Args),
    /// Evaluate a trained network, on images as they are, under noise and under corruptions
    #[cfg(feature = "torch")]
    Eval(eval::Args),
    /// Write a network's responses to images as a neural set in the raw layout
    #[cfg(feature = "torch")]
    Respond(respond::Args),
    /// Compare models under corruptions with a baseline
    #[cfg(feature = "torch")]
    Robustness(robustness::Args),
    /// Find images that a layer cannot tell from others, under a constraint
    #[cfg(feature = "torch")]
    Reconstruct(reconstruct::Args),
    /// Find images that excite single neurons most
    #[cfg(feature = "torch")]
    Mei(mei::Args),
    /// Compare representations of layers, networks and recorded responses
    #[cfg(feature = "torch")]
    Rsa(rsa::Args),
    /// Show runs as one page: curves, robustness, confusions, neurons, images, and what they differ in
    #[cfg(feature = "torch")]
    Report(report::Args),
    /// Draw the figures of a report as files, with their numbers
    #[cfg(feature = "torch")]
    Plot(report::PlotArgs),
    /// List, find, compare, tag and remove runs
    Runs(runs::Args),
    /// Show, convert and compare weights files
    #[cfg(feature = "torch")]
    Weights(weights::Args),
    /// Sample data, shards, training and evaluation in one go
    #[cfg(feature = "torch")]
    Demo(demo::Args),
    /// Write sample data in the layout of the real sets
    Synth(synth::Args),
    /// Say what this program and machine have, what is missing, and how to get it
    Doctor(doctor::Args),
    /// Explain an error by its code
    Explain(codes::Args),
    /// Explain a command or a topic
    Help(help::Args),
    /// Write man pages
    Man(help::ManArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let show = show::Show::new(cli.quiet);
    finish(match cli.command {
        Command::Prepare(args) => prepare::run(&args, cli.quiet),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args, show),
        Command::Fetch(args) => fetch::run(&args, show),
        Command::Corrupt(args) => corrupt::run(&args, show),
        Command::CorruptRaw(args) => corrupt::raw::run(&args),
        Command::Bench(args) => bench::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Train(args) => train::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Launch(args) => launch::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Run(args) => run::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Config(args) => config::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Eval(args) => eval::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Respond(args) => respond::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Robustness(args) => robustness::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Reconstruct(args) => reconstruct::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Mei(args) => mei::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Rsa(args) => rsa::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Report(args) => report::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Plot(args) => report::plot(&args, show),
        Command::Runs(args) => runs::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Weights(args) => weights::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Demo(args) => demo::run(&args, show),
        Command::Synth(args) => synth::run(&args, show),
        Command::Doctor(args) => doctor::run(&args),
        Command::Explain(args) => codes::explain(&args),
        Command::Help(args) => help::run(&args),
        Command::Man(args) => help::man(&args, show),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "nct", &mut std::io::stdout());
            Ok(())
        }
    })
}

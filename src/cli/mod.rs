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
mod torch;
#[cfg(feature = "torch")]
mod train;
#[cfg(feature = "torch")]
mod weights;

pub use exit::finish;

use clap::{CommandFactory, Parser, Subcommand};
use std::io::Write;
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
    #[cfg(not(feature = "torch"))]
    Bench(bench::Args),
    #[cfg(feature = "torch")]
    #[command(flatten)]
    Torch(torch::Command),
    /// Show, compare and describe settings
    #[cfg(feature = "torch")]
    Config(config::Args),
    /// Compare models under corruptions with a baseline
    #[cfg(feature = "torch")]
    Robustness(robustness::Args),
    /// Show runs as one page: curves, robustness, confusions, neurons, images, and what they differ in
    #[cfg(feature = "torch")]
    Report(report::Args),
    /// Draw the figures of a report as files, with their numbers
    #[cfg(feature = "torch")]
    Plot(report::PlotArgs),
    /// List, find, compare, tag and remove runs
    Runs(runs::Args),
    /// Write sample data in the layout of the real sets
    Synth(synth::Args),
    /// Say what this program and machine have, what is missing, and how to get it
    #[cfg(not(feature = "torch"))]
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

/// Where what needs libtorch is done. A type and no pointer: a program's code then names one place only, and the linker
/// leaves libtorch out of `nct`.
trait Torch {
    #[cfg(feature = "torch")]
    fn command(command: torch::Command, show: show::Show) -> anyhow::Result<()>;
    /// `nct runs export --datajoint`, which attaches weights.
    #[cfg(feature = "torch")]
    fn datajoint(
        args: &datajoint::Args,
        store: &crate::runs::Store,
        runs: &[crate::runs::Listed],
        show: show::Show,
    ) -> anyhow::Result<()>;
}

/// Runs `nct` with the process's arguments.
#[cfg(feature = "torch")]
pub fn main() -> ExitCode {
    start::<torch::Elsewhere>()
}

/// Runs `nct-torch`, which does all commands itself.
#[cfg(feature = "torch")]
pub fn main_with_torch() -> ExitCode {
    start::<torch::Here>()
}

/// Runs `nct` with the process's arguments.
#[cfg(not(feature = "torch"))]
pub fn main() -> ExitCode {
    struct Nowhere;
    impl Torch for Nowhere {}
    start::<Nowhere>()
}

fn start<T: Torch>() -> ExitCode {
    let cli = Cli::parse();
    let show = show::Show::new(cli.quiet);
    finish(match cli.command {
        Command::Prepare(args) => prepare::run(&args, cli.quiet),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args, show),
        Command::Fetch(args) => fetch::run(&args, show),
        Command::Corrupt(args) => corrupt::run(&args, show),
        Command::CorruptRaw(args) => corrupt::raw::run(&args),
        #[cfg(not(feature = "torch"))]
        Command::Bench(args) => bench::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Torch(command) => T::command(command, show),
        #[cfg(feature = "torch")]
        Command::Config(args) => config::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Robustness(args) => robustness::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Report(args) => report::run(&args, show),
        #[cfg(feature = "torch")]
        Command::Plot(args) => report::plot(&args, show),
        Command::Runs(args) => runs::run::<T>(&args, show),
        Command::Synth(args) => synth::run(&args, show),
        #[cfg(not(feature = "torch"))]
        Command::Doctor(args) => doctor::run(&args),
        Command::Explain(args) => codes::explain(&args),
        Command::Help(args) => help::run(&args),
        Command::Man(args) => help::man(&args, show),
        Command::Completions { shell } => complete(shell),
    })
}

fn complete(shell: clap_complete::Shell) -> anyhow::Result<()> {
    // Not to stdout at once: clap panics when a pipe is closed.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "nct", &mut script);
    Ok(std::io::stdout().lock().write_all(&script)?)
}

//! `prepare`: the same as `nct prepare`, as a program that builds without torch.

use clap::Parser;
use std::process::ExitCode;

/// Turn raw data sets into shards.
#[derive(Debug, Parser)]
#[command(name = "prepare", version, max_term_width = 100)]
struct Cli {
    /// Say only what went wrong
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    args: nct::cli::prepare::Args,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    nct::cli::finish(nct::cli::prepare::run(&cli.args, cli.quiet))
}

//! `nct doctor`: what is here, what is missing, and the command that brings it.

/// Arguments of `nct doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> anyhow::Result<()> {
    println!("nct {}", env!("CARGO_PKG_VERSION"));
    Ok(())
}

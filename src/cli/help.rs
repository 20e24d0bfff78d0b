//! `nct help`: commands, and topics in the words of the documents; and man pages.

use super::Cli;
use super::exit::Usage;
use super::show::{Show, out};
use clap::CommandFactory;
use std::path::PathBuf;

/// Arguments of `nct help`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A command, such as train or runs ls, or a topic; without it, all of them
    topic: Vec<String>,
}

/// Arguments of `nct man`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Folder for the pages, one a command
    #[arg(default_value = "man")]
    folder: PathBuf,
}

/// Name, what it is about, and the text.
const TOPICS: [(&str, &str, &str); 11] = [
    ("settings", "every key of a recipe, sweeps and inheritance", include_str!("../../configs/README.md")),
    ("data", "what prepare reads, and how to write your own", include_str!("../../docs/data.md")),
    ("experiments", "sweeps, studies, workers, clusters", include_str!("../../docs/experiments.md")),
    ("reports", "what a report shows, and how to read it", include_str!("../../docs/report.md")),
    (
        "datajoint",
        "the reference's dictionaries, and a lab's tables",
        include_str!("../../docs/datajoint.md"),
    ),
    ("parallel", "several processes that train one network", include_str!("../../docs/parallel.md")),
    (
        "stores",
        "shards in S3, Google Cloud Storage, Azure or on a web server",
        include_str!("../../docs/stores.md"),
    ),
    ("analysis", "reconstructions, most exciting images, similarity", include_str!("../../docs/analysis.md")),
    ("metrics", "every score, and how it is computed", include_str!("../../docs/metrics.md")),
    ("format", "every byte of a shard", include_str!("../shard/FORMAT.md")),
    ("performance", "what was measured, and how to measure", include_str!("../../docs/performance.md")),
];

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut command = Cli::command();
    command.build();
    if args.topic.is_empty() {
        let topics: String =
            TOPICS.iter().map(|(name, about, _)| format!("\n  {name:<12} {about}")).collect();
        return out(&format!("{}\nTopics, for nct help TOPIC:{topics}", command.render_long_help()));
    }
    if let [asked] = &args.topic[..]
        && let Some((.., text)) = TOPICS.iter().find(|(name, ..)| name == asked)
    {
        return out(text.trim_end());
    }
    let mut found = &mut command;
    for name in &args.topic {
        let Some(next) = found.find_subcommand_mut(name) else {
            let topics: Vec<&str> = TOPICS.iter().map(|(name, ..)| *name).collect();
            let what = format!(
                "there is no command or topic {:?}; topics are {}",
                args.topic.join(" "),
                topics.join(", ")
            );
            return Err(Usage(what).into());
        };
        found = next;
    }
    out(found.render_long_help().to_string().trim_end())
}

pub(crate) fn man(args: &ManArgs, show: Show) -> anyhow::Result<()> {
    let folder = args.folder.display();
    let write = || {
        std::fs::create_dir_all(&args.folder)?;
        clap_mangen::generate_to(Cli::command(), &args.folder)
    };
    write().map_err(|e| Usage(format!("{folder}: write: {e}")))?;
    show.line(&format!("pages are in {folder}; read one with: man {folder}/nct-train.1"));
    Ok(())
}
